"""Names, addresses and interfaces of this machine, from the kernel and the resolver."""

import contextlib
import ipaddress
import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import timeouts
from bootstrap.process.bounded import TimedOut, run_bounded


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and its addresses."""

    name: str
    up: bool
    addresses: tuple[str, ...]
    """IPv4 and IPv6, without zone."""


Route = Callable[[str], "str | None"]
"""A peer's address → the source address for it, such as :func:`source_address`."""
Resolve = Callable[[str], Sequence[str]]
"""A host name → its addresses, such as :func:`look_up` or :func:`resolve`."""


def interfaces() -> tuple[Interface, ...]:
    """Return the interfaces of this network namespace, in the kernel's order."""
    import psutil  # noqa: PLC0415 (25 ms)

    stats = psutil.net_if_stats()
    return tuple(
        Interface(
            name=name,
            up=name in stats and stats[name].isup,
            addresses=tuple(a.address.partition("%")[0] for a in held if a.family in (socket.AF_INET, socket.AF_INET6)),
        )
        for name, held in psutil.net_if_addrs().items()
    )


def own_addresses(table: Sequence[Interface] | None = None) -> frozenset[str]:
    """Return every address of this machine's interfaces, loopback included, in canonical form."""
    return frozenset(canonical(a) for i in (interfaces() if table is None else table) for a in i.addresses)


def interface_of(address: str) -> str | None:
    """Return the name of the interface that holds this address; None if none does."""
    return next((each.name for each in interfaces() if address in each.addresses), None)


def source_address(towards: str) -> str | None:
    """Return the source address for packets to ``towards`` (an address); None without a route.

    Connecting a UDP socket makes the kernel look up the route but sends no packet.
    """
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return address.partition("%")[0]


def look_up(name: str) -> list[str]:
    """Return the addresses of a host name, IPv4 and IPv6 (with its zone), in the resolver's order; may block.

    :raises OSError: if the name has no address now (socket.gaierror).
    :raises UnicodeError: if DNS cannot encode the name, such as a label of more than 63 characters.
    """
    addresses = [sockaddr for *_, sockaddr in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    scoped = (f"{its[0]}%{its[3]}" if len(its) == 4 and its[3] else str(its[0]) for its in addresses)
    return list(dict.fromkeys(scoped))


def resolve(name: str, timeout: float = timeouts.RESOLVE_S) -> tuple[str, ...]:
    """Return the addresses of ``name`` in the resolver's order; none if it gives none within ``timeout`` seconds.

    getaddrinfo(3) cannot be cancelled, and a dead name server holds it for half a minute.
    """
    try:
        found = run_bounded(timeout, lambda: look_up(name))
    except (TimedOut, OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(address.partition("%")[0] for address in found))


def listening_user(address: str, port: int) -> int | None:
    """Return the uid of whoever listens at this address of this machine; None if that cannot be seen.

    From /proc/net/tcp (proc_pid_net(5)): addresses are words in the machine's order, state 0A is LISTEN.
    """
    family, table = (socket.AF_INET6, "tcp6") if ":" in address else (socket.AF_INET, "tcp")
    packed = socket.inet_pton(family, address)
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    exact = b"".join(word[:: 1 if sys.byteorder == "big" else -1] for word in words).hex().upper()
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), Path(f"/proc/net/{table}").open() as lines:
        for _, local, _, state, *rest in (line.split() for line in itertools.islice(lines, 1, None)):
            if state == "0A" and local.endswith(f":{port:04X}"):
                found[local.partition(":")[0]] = int(rest[3])
    return found.get(exact, found.get("0" * len(exact)))


def reason(error: Exception) -> str:
    """Return why a connection failed, without the number and the address that asyncio adds: ``connection refused``."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number is not None and number > 0 else str(error)


def is_address(text: str) -> bool:
    """Return whether ``text`` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(text: str) -> bool:
    """Return whether a name or an address, without a look-up, means the machine that reads it."""
    return text == "localhost" or (is_address(text) and ipaddress.ip_address(text).is_loopback)


def short_name(name: str) -> str:
    """Return the first label of a host name, in lower case."""
    return name.partition(".")[0].lower()


def without_zone(addresses: Iterable[str]) -> set[str]:
    """Return the canonical addresses, without the zone (``%eth0``) of link-local ones."""
    return {canonical(address.partition("%")[0]) for address in addresses}


def canonical(address: str) -> str:
    """Return the canonical spelling of an address; an IPv6 zone stays.

    :raises ValueError: if it is not an address.
    """
    return str(ipaddress.ip_address(address))
