"""Names, addresses and interfaces of this machine, as the kernel and the resolver tell them."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootstrap import timeouts
from bootstrap.process.bounded import TimedOut, run_bounded


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and the addresses that it holds."""

    name: str
    up: bool
    addresses: tuple[str, ...]
    """IPv4 and IPv6, without scope."""


Route = Callable[[str], "str | None"]


Resolve = Callable[[str], Sequence[str]]


def interfaces() -> tuple[Interface, ...]:
    """The interfaces of this machine (of its network namespace), in the kernel's order."""
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
    """Every address that an interface of this machine holds, loopback too, in canonical form."""
    return frozenset(canonical(a) for i in (interfaces() if table is None else table) for a in i.addresses)


def source_address(towards: str) -> str | None:
    """The address that this machine would send from to reach ``towards`` (an address); None without a route.

    Connecting a UDP socket makes the kernel look up the route and sends no packet.
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
    """The addresses of a host name, IPv4 and IPv6 (with its scope), in the system's order; takes the resolver's time.

    :raises OSError: if it has none now (socket.gaierror).
    :raises UnicodeError: if no name server could have it, such as a label of more than 63 letters.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    addresses = [sockaddr for *_, sockaddr in found]
    scoped = (f"{its[0]}%{its[3]}" if len(its) == 4 and its[3] else str(its[0]) for its in addresses)
    return list(dict.fromkeys(address for address in scoped))


def resolve(name: str, timeout: float = timeouts.RESOLVE_S) -> tuple[str, ...]:
    """Return the addresses of ``name`` in the resolver's order; none if it gives none within ``timeout`` seconds.

    getaddrinfo(3) cannot be cancelled, and a dead name server holds it for half a minute.
    """
    try:
        found = run_bounded(timeout, lambda: look_up(name))
    except (TimedOut, OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(address.partition("%")[0] for address in found))


def is_address(text: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def canonical(address: str) -> str:
    """Return the one spelling of an address."""
    return str(ipaddress.ip_address(address))
