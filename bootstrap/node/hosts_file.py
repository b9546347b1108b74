"""/etc/hosts: this node's own name resolves to its node address.

Gloo connects its peers through the address that each node's own name resolves to; Debian's ``127.0.1.1 name`` line, or
no line, makes a training job on several nodes fail after a minute.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from bootstrap import net, timeouts
from bootstrap.errors import HostsError
from bootstrap.host import Host
from bootstrap.model import NodeAddress

FILE = "/etc/hosts"
MARK = "# ray-bootstrap"

# What C's isspace() takes for a blank; str.split() would also split at U+00A0 or U+0085, which may be inside a comment
# or, in a broken file, inside a name.
_FIELD = re.compile(r"([ \t\v\f\r]*)([^ \t\v\f\r]+)")
_UNWRITABLE = re.compile(r"[\s#\x00]")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class HostsOutcome:
    """What became of this node's name."""

    changed: bool
    """Whether the file was written."""
    note: str = ""
    """A warning with its remedy, for people; empty if all is well."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For the environment of everything started."""


def plan(text: str, hostname: str, ip: str) -> str | None:
    """The hosts file ``text`` changed so that ``hostname`` (and its short form) means ``ip``; None if it does already.

    The names are taken off every line of the same family that says something else, and off loopback lines of both:
    resolvers with ``multi on`` return all lines, and glibc answers a question for IPv4 with ``::1`` as 127.0.0.1. All
    else stays byte for byte. A name that no file can hold, and localhost, are left alone.
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
    mode: str,
    address: NodeAddress,
    host: Host,
    resolves: Callable[[str], Collection[str]] = net.resolve,
) -> HostsOutcome:
    """Make this node's name resolve to ``address.ip``, by /etc/hosts if the resolver does not say so already.

    The file is written in place, as it is a bind mount in containers and cannot be replaced. What was written stays
    after the run: in a container it goes with it, and on a machine it is true and others may have come to rely on it.

    Where that cannot be, ``auto`` returns a note and GLOO_SOCKET_IFNAME, with which Gloo needs no name.

    :raises HostsError: with ``mode="require"`` if the name does not resolve to the address in the end.
    """
    hostname, ip = address.hostname, address.ip
    if mode == "off":
        return HostsOutcome(changed=False)
    if ipaddress.ip_address(ip).is_loopback:
        # A node that only loopback reaches is alone: whatever its name means, nobody else asks.
        return HostsOutcome(changed=False)
    text, trouble = host.read(FILE), ""
    # Asked first only where the file is silent: DNS may know the name, and a machine's file is not ours to grow.
    if text is not None and not _mentions(text, hostname) and leads_to(resolves(hostname), ip):
        return HostsOutcome(changed=False)
    changed = False
    if address.interface is None:
        trouble = f"{FILE} is left alone, as no interface of this machine holds that address"
    else:
        try:
            changed = _write(host, hostname, ip)
        except OSError as error:
            trouble = f"{FILE} cannot be written ({error.strerror or error})"
    found = resolves(hostname)
    if leads_to(found, ip):
        return HostsOutcome(changed)
    fact = f"{hostname!r} resolves to {', '.join(sorted(found)) or 'nothing'}, not to the node address {ip}"
    message = f"{fact}; {trouble or f'what {FILE} says is not what the resolver answers (nsswitch.conf, nscd?)'}"
    remedy = f"as root: echo '{ip} {hostname}' >> {FILE}, and take the name off other lines there"
    if address.interface is None:
        remedy = "--node-ip=ADDRESS with one of this machine's; `ip -brief address` lists them"
    if mode == "require":
        raise HostsError(message, hint=f"{remedy}; or --hosts=auto")
    env, instead = _interface(address, host)
    return HostsOutcome(changed, note=f"{message}; {instead}; {remedy}", env=env)


def _interface(address: NodeAddress, host: Host) -> tuple[dict[str, str], str]:
    """The variable that spares Gloo the name, and what to say about it."""
    if theirs := host.get("GLOO_SOCKET_IFNAME"):
        return {}, f"GLOO_SOCKET_IFNAME={theirs} is left as it is"
    if address.interface is None:
        return {}, f"the interface of {address.ip} is not known, so Gloo may take the wrong one"
    return {"GLOO_SOCKET_IFNAME": address.interface}, f"GLOO_SOCKET_IFNAME={address.interface} is set instead"


def _write(host: Host, hostname: str, ip: str) -> bool:
    """Carry the plan out; whether anything was to be done.

    :raises OSError: if the file is absent, not writable, or locked for too long.
    """
    path = host.path(FILE)
    if plan(_decode(path.read_bytes()), hostname, ip) is None:
        return False
    with path.open("r+b") as file:
        _lock(file)
        # Once more under the lock: another agent on this machine may have written meanwhile.
        before = file.read()
        after = plan(_decode(before), hostname, ip)
        if after is None:
            return False
        try:
            _overwrite(file, after.encode("utf-8", "surrogateescape"))
        except OSError:
            # Full disk: the old text fitted before, so it does again. Half a hosts file would be worse than a wrong
            # one.
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
    """Take the file's lock; closing the file gives it back."""
    deadline = time.monotonic() + timeouts.HOSTS_FILE_LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _decode(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def leads_to(found: Collection[str], ip: str) -> bool:
    """Whether a resolver's answer leads to ``ip`` and nowhere else in its family, nor to loopback."""
    own = ipaddress.ip_address(ip)
    addresses = {_unmapped(ipaddress.ip_address(a)) for a in found}
    return own in addresses and not any(a != own and (a.version == own.version or a.is_loopback) for a in addresses)


def _names(hostname: str) -> frozenset[str]:
    """The names to care for, in lower case: the host's own and its short form."""
    name = _lower(hostname)
    if not name or _UNWRITABLE.search(name) or _is_reserved(name):
        return frozenset()
    short = name.partition(".")[0]
    return frozenset({name} if not short or short.isdecimal() or _is_reserved(short) else {name, short})


def _lower(name: str) -> str:
    """ASCII lower case, as resolvers compare; str.lower() would take the Kelvin sign for a k."""
    return name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _is_reserved(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.startswith("localhost.")
    return True


def _mentions(text: str, hostname: str) -> bool:
    names = _names(hostname)
    return any(address is not None and names & held for address, held in map(_parse, text.split("\n")))


def _fields(line: str) -> Iterator[re.Match[str]]:
    return _FIELD.finditer(line, 0, len(line.partition("#")[0]))


def _parse(line: str) -> tuple[Address | None, frozenset[str]]:
    """The address and the names (in lower case) of a line; no address where the resolver would skip it."""
    words = [match[2] for match in _fields(line)]
    try:
        address = _unmapped(ipaddress.ip_address(words[0]))
    except (IndexError, ValueError):
        return None, frozenset()
    return address, frozenset(_lower(word) for word in words[1:])


def _unmapped(address: Address) -> Address:
    """``::ffff:10.0.0.1`` as 10.0.0.1, which is what glibc makes of it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _without(line: str, names: frozenset[str]) -> Iterator[str]:
    """The line less ``names``, each with the blanks before it; nothing if no name is left."""
    words = list(_fields(line))
    if all(_lower(match[2]) in names for match in words[1:]):
        return
    for match in reversed(words[1:]):
        if _lower(match[2]) in names:
            line = line[: match.start()] + line[match.end() :]
    yield line


def _append(text: str, line: str, original: str) -> str:
    """``text`` and one more line, with the line ends that the file has."""
    end = "\r\n" if "\r\n" in original else "\n"
    return f"{text}{'' if not text or text.endswith(chr(10)) else end}{line}{end}"
