"""/etc/hosts: make this node's name resolve to its node address.

Gloo connects its peers through the address that each node's own name resolves to. With Debian's ``127.0.1.1 name``
line, or none, a training job on several nodes fails after a minute.
"""

import errno
import fcntl
import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bootstrap import net, timeouts
from bootstrap.errors import HostsError
from bootstrap.host import Host
from bootstrap.model import NodeAddress
from bootstrap.process.bounded import TimedOut, run_bounded

FILE = "/etc/hosts"
MARK = "# ray-bootstrap"

# The blanks of C's isspace(); str.split() would also split at U+00A0 or U+0085, which may be inside a comment or, in a
# broken file, inside a name.
_FIELD = re.compile(r"([ \t\v\f\r]*)([^ \t\v\f\r]+)")
_UNWRITABLE = re.compile(r"[\s#\x00]")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class HostsOutcome:
    """The outcome of :func:`ensure`."""

    changed: bool
    """Whether the file was written."""
    fault: str = ""
    """Why the name does not resolve to the address; empty if it does, or need not."""
    remedy: str = ""
    """What to type, then."""


def plan(text: str, hostname: str, ip: str) -> str | None:
    """Return the hosts file ``text``, changed so that ``hostname`` and its short form mean ``ip``; None if they do.

    It removes the names from every line of the same family with another address, and from loopback lines of both
    families: resolvers with ``multi on`` return all lines, and glibc answers an IPv4 query with ``::1`` as 127.0.0.1.
    All else stays byte for byte. A name that cannot stand in the file, and localhost, change nothing.
    """
    names, own = _names(hostname), _unmapped(ipaddress.ip_address(ip))
    kept, missing = [], set(names)
    for line in text.split("\n"):
        address, held = _parse(line)
        if address is None or not names & held:
            kept.append(line)
        elif address == own:
            kept.append(line)
            missing -= held
        elif address.version == own.version or address.is_loopback:
            kept.extend(_without(line, names))
        else:
            kept.append(line)
    if missing:
        ours = dict.fromkeys(name for name in (hostname, hostname.partition(".")[0]) if _lower(name) in missing)
        return _append("\n".join(kept), f"{ip} {' '.join(ours)} {MARK}", text)
    changed = "\n".join(kept)
    return changed if changed != text else None


def ensure(
    mode: str, address: NodeAddress, host: Host, resolves: Callable[[str], Collection[str]] = net.resolve
) -> HostsOutcome:
    """Make this node's name resolve to ``address.ip``, through /etc/hosts unless it does already.

    It writes the file in place, because in a container it is a bind mount and cannot be replaced. The line stays after
    the run: a container's file goes with the container, and on a machine the line is true and others may rely on it.
    If that fails, ``auto`` returns the fault: :mod:`bootstrap.raynode.frameworks` then names Gloo the interface.

    :raises HostsError: with ``mode="require"``, if the name still does not resolve to the address.
    """
    hostname, ip = address.hostname, address.ip
    # A node that only loopback reaches is alone: no other node resolves its name.
    if mode == "off" or ipaddress.ip_address(ip).is_loopback:
        return HostsOutcome(changed=False)
    text, trouble = host.read(FILE), ""
    # If the file lacks the name, ask the resolver first: DNS may know it, and then a machine's file need not grow.
    if text is not None and not _mentions(text, hostname) and leads_to(resolves(hostname), ip):
        return HostsOutcome(changed=False)
    changed = False
    if address.interface is None:
        trouble = f"{FILE} stays as it is, as no interface of this machine holds that address"
    else:
        try:
            changed = _write(host, hostname, ip)
        except OSError as error:
            trouble = f"{FILE} cannot be written ({error.strerror or error})"
    found = resolves(hostname)
    if leads_to(found, ip):
        return HostsOutcome(changed)
    fact = f"{hostname!r} resolves to {', '.join(sorted(found)) or 'nothing'}, not to the node address {ip}"
    fault = f"{fact}; {trouble or f'the resolver does not answer what {FILE} says (nsswitch.conf, nscd?)'}"
    if mode == "require":
        raise HostsError(fault, hint=f"{_remedy(address)}; or --hosts=auto")
    return HostsOutcome(changed, fault, _remedy(address))


def _remedy(address: NodeAddress) -> str:
    if address.interface is None:
        return "--node-ip=ADDRESS with an address of this machine; `ip -brief address` lists them"
    return f"as root: echo '{address.ip} {address.hostname}' >> {FILE}, and remove the name from its other lines"


def _write(host: Host, hostname: str, ip: str) -> bool:
    """Carry out the plan; return whether it changed the file.

    :raises OSError: if the file is absent, not writable, or locked for too long.
    """
    path = host.path(FILE)
    if plan(_decode(path.read_bytes()), hostname, ip) is None:
        return False
    with path.open("r+b") as file:
        _lock(file)
        # Plan again under the lock: another agent on this machine may have written the file meanwhile.
        before = file.read()
        after = plan(_decode(before), hostname, ip)
        if after is None:
            return False
        try:
            _overwrite(file, after.encode("utf-8", "surrogateescape"))
        except OSError:
            # On a full disk the old text still fits, and half a hosts file would be worse than a wrong one.
            _overwrite(file, before)
            raise
    return True


def _overwrite(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while written := os.pwrite(file.fileno(), view, len(content) - len(view)):
        view = view[written:]
    os.ftruncate(file.fileno(), len(content))
    os.fsync(file.fileno())


def _lock(file: BinaryIO) -> None:
    """Take the file's lock; closing the file releases it.

    :raises BlockingIOError: if another process holds it for too long.
    """
    try:
        run_bounded(timeouts.HOSTS_FILE_LOCK_S, lambda: fcntl.flock(file, fcntl.LOCK_EX))
    except TimedOut:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds its lock") from None


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def leads_to(found: Collection[str], ip: str) -> bool:
    """Return whether a resolver's answer has ``ip``, no other address of its family, and no loopback address."""
    own = ipaddress.ip_address(ip)
    addresses = {_unmapped(ipaddress.ip_address(a)) for a in found}
    return own in addresses and not any(a != own and (a.version == own.version or a.is_loopback) for a in addresses)


def _names(hostname: str) -> frozenset[str]:
    """Return the names that must resolve, in lower case: the host's name and its short form."""
    name = _lower(hostname)
    if not name or _UNWRITABLE.search(name) or _is_reserved(name):
        return frozenset()
    short = name.partition(".")[0]
    return frozenset({name} if not short or short.isdecimal() or _is_reserved(short) else {name, short})


def _lower(name: str) -> str:
    """Return ASCII lower case, which resolvers compare; str.lower() would turn the Kelvin sign into a k."""
    return name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _is_reserved(name: str) -> bool:
    return net.is_address(name) or name == "localhost" or name.startswith("localhost.")


def _mentions(text: str, hostname: str) -> bool:
    names = _names(hostname)
    return any(address is not None and names & held for address, held in map(_parse, text.split("\n")))


def _fields(line: str) -> Iterator[re.Match[str]]:
    return _FIELD.finditer(line, 0, len(line.partition("#")[0]))


def _parse(line: str) -> tuple[Address | None, frozenset[str]]:
    """Return the address and the names (in lower case) of a line; None for the address if resolvers skip the line."""
    words = [match[2] for match in _fields(line)]
    try:
        address = _unmapped(ipaddress.ip_address(words[0]))
    except (IndexError, ValueError):
        return None, frozenset()
    return address, frozenset(_lower(word) for word in words[1:])


def _unmapped(address: Address) -> Address:
    """Return 10.0.0.1 for ``::ffff:10.0.0.1``, as glibc does."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without(line: str, names: frozenset[str]) -> Iterator[str]:
    """Yield the line without ``names`` and the blanks before them; nothing if no name remains."""
    words = list(_fields(line))
    if all(_lower(match[2]) in names for match in words[1:]):
        return
    for match in reversed(words[1:]):
        if _lower(match[2]) in names:
            line = line[: match.start()] + line[match.end() :]
    yield line


def _append(text: str, line: str, original: str) -> str:
    """Return ``text`` and one more line, with the file's line ends."""
    end = "\r\n" if "\r\n" in original else "\n"
    return f"{text}{'' if not text or text.endswith(chr(10)) else end}{line}{end}"
