"""Which of this machine's addresses is the one that the other nodes reach."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import NodeAddress
from bootstrap.settings import Settings

BRIDGES = (
    "docker",
    "br-",
    "veth",
    "virbr",
    "cni",
    "flannel",
    "cali",
    "cilium_",
    "vxlan.calico",
    "tunl",
    "podman",
    "lxcbr",
    "lxdbr",
    "cbr",
    "kube-",
)
"""Prefixes of interfaces that lead to containers or virtual machines of this host, not to other nodes."""

# RFC 5737 and RFC 3849: documentation addresses, never a neighbour's, so only the default route matches them.
_ANYWHERE = ("192.0.2.1", "2001:db8::1")


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
    return frozenset(_canonical(a) for i in (interfaces() if table is None else table) for a in i.addresses)


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


def resolve(name: str, timeout: float = 2.0) -> tuple[str, ...]:
    """The addresses of ``name``, in the resolver's order; none if it gives none within ``timeout`` seconds.

    getaddrinfo cannot be cancelled and a dead name server holds it for half a minute, so it is asked in a daemon
    thread, which ends by itself when the resolver gives up.
    """
    answers: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(tuple(dict.fromkeys(address.partition("%")[0] for address in look_up(name))))
        except (OSError, UnicodeError):
            answers.put(())

    threading.Thread(target=ask, name=f"resolve {name}", daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return ()


def matches(pattern: str, name: str) -> bool:
    """Whether NCCL_SOCKET_IFNAME=``pattern`` admits the interface ``name``.

    A comma list of prefixes; ``=`` in front makes them whole names, ``^`` in front of all excludes them
    (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname).
    """
    rest = pattern.strip()
    excluded = rest.startswith("^")
    rest = rest[1:] if excluded else rest
    exact = rest.startswith("=")
    items = [item for item in (part.strip() for part in rest.lstrip("=").split(",")) if item]
    if not items:
        return True
    hit = any(name == item.lstrip("=") if exact or item.startswith("=") else name.startswith(item) for item in items)
    return hit != excluded


def node_address(
    settings: Settings,
    host: Host,
    towards: str | None,
    *,
    table: Sequence[Interface] | None = None,
    route: Route = source_address,
    lookup: Resolve = resolve,
) -> NodeAddress:
    """The address under which others reach this node, and the interface that holds it.

    In this order: ``--node-ip``; POD_IP; the interfaces that ``--interface``, NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME
    admit; the source address of the route to ``towards`` (the head's name or address); that of the default route; the
    first interface that is up. IPv4 before IPv6; loopback and bridges only if there is nothing else.

    :raises IdentityError: if POD_IP is no address, or a pattern admits no interface that has an address.
    """
    table = interfaces() if table is None else table
    ip, source = _stated(settings, host, table) or _admitted(
        settings, host, towards, table=table, route=route, lookup=lookup
    )
    held = _holder(table, ip)
    return NodeAddress(
        ip=ip,
        interface=held.name if held else None,
        hostname=host.hostname,
        sources={
            "ip": source,
            "interface": f"holds {ip}" if held else f"no interface of this machine holds {ip}",
            "hostname": "gethostname",
        },
    )


def _stated(settings: Settings, host: Host, table: Sequence[Interface]) -> tuple[str, str] | None:
    """The address that the user or the platform gave outright."""
    for name, value in (("--node-ip", settings.node_ip), ("POD_IP", host.get("POD_IP"))):
        if value is None:
            continue
        try:
            ip = _canonical(value.strip())
        except ValueError:
            raise IdentityError(
                f"{name}={value!r} is no IP address",
                hint=f"unset {name}, or take it from the downward API's status.podIP",
            ) from None
        # Not an error: behind NAT the address that others use is on no interface here.
        foreign = ip not in own_addresses(table)
        return ip, f"{name} (which no interface of this machine holds: NAT?)" if foreign else name
    return None


def _admitted(
    settings: Settings, host: Host, towards: str | None, *, table: Sequence[Interface], route: Route, lookup: Resolve
) -> tuple[str, str]:
    """The address of the best interface that the pattern, if there is one, admits."""
    origin, pattern = _pattern(settings, host)
    admitted = [i for i in table if i.up and any(_usable(a) for a in i.addresses) and matches(pattern, i.name)]
    if pattern and not admitted:
        raise IdentityError(
            f"{origin}={pattern!r} admits no interface that is up and has an address; there are: {_listing(table)}",
            hint=f"correct or unset {origin}, or give --node-ip=ADDRESS",
        )
    # Who names docker0 or lo means it; `^lo` names nothing.
    named = bool(pattern) and not pattern.strip().startswith("^")
    wanted = admitted if named else [i for i in admitted if not _inward(i)]
    suffix = f" (of those that {origin}={pattern} admits)" if pattern else ""
    for source, address in _route_sources(towards, route, lookup):
        holder = _holder(wanted, address)
        if holder is not None and _usable(address):
            return _canonical(address), source + suffix
    for candidates, remark in ((wanted, ""), (admitted, ": a bridge, as there is nothing else")):
        # A stable sort: the kernel's order within each family.
        addresses = sorted((a for i in candidates for a in i.addresses if _global(a)), key=_is_v6)
        if addresses:
            holder = _holder(candidates, addresses[0])
            found = f"{origin}={pattern}" if pattern else "the first interface that is up"
            return _canonical(addresses[0]), found + (f" ({holder.name})" if holder else "") + remark
    return _loopback(admitted or table), "loopback, as no interface that is up has another address"


def _pattern(settings: Settings, host: Host) -> tuple[str, str]:
    """Who restricts the interfaces, and how: a pattern in NCCL's syntax, empty for none."""
    if settings.interface:
        return "--interface", settings.interface
    if nccl := host.get("NCCL_SOCKET_IFNAME"):
        return "NCCL_SOCKET_IFNAME", nccl
    gloo = host.get("GLOO_SOCKET_IFNAME") or ""
    # PyTorch takes whole names here, not prefixes: with `eth1` NCCL's rule would admit eth10 too.
    return "GLOO_SOCKET_IFNAME", gloo if not gloo or gloo.startswith(("^", "=")) else "=" + gloo


def _route_sources(towards: str | None, route: Route, lookup: Resolve) -> Iterator[tuple[str, str]]:
    """Source addresses worth trying, best first, each with where it comes from."""
    targets: Iterable[str] = ()
    if towards is not None:
        targets = (towards,) if is_address(towards) else sorted(lookup(towards), key=_is_v6)
    for target in targets:
        if address := route(target):
            yield f"the route to the head ({towards})", address
    for target in _ANYWHERE:
        if address := route(target):
            yield "the default route", address


def _usable(address: str) -> bool:
    """Whether an address can be one's own at all: link-local ones need a scope, which others do not have."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast)


def _global(address: str) -> bool:
    return _usable(address) and not ipaddress.ip_address(address).is_loopback


def _inward(interface: Interface) -> bool:
    """Whether an interface leads into this machine only."""
    return interface.name.startswith(BRIDGES) or not any(_global(a) for a in interface.addresses)


def _loopback(table: Sequence[Interface]) -> str:
    addresses = sorted((a for i in table for a in i.addresses if ipaddress.ip_address(a).is_loopback), key=_is_v6)
    return addresses[0] if addresses else "127.0.0.1"


def _holder(table: Sequence[Interface], ip: str) -> Interface | None:
    return next((i for i in table if _canonical(ip) in map(_canonical, i.addresses)), None)


def _listing(table: Sequence[Interface]) -> str:
    rows = (f"{i.name} ({', '.join(i.addresses) or 'no address'}{'' if i.up else ', down'})" for i in table)
    return "; ".join(rows) or "none"


def _is_v6(address: str) -> bool:
    return ":" in address


def _canonical(address: str) -> str:
    return str(ipaddress.ip_address(address))


def is_address(text: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
