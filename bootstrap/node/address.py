"""The node address: the one of this machine's addresses that the other nodes reach."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import NodeAddress
from bootstrap.net import (
    Interface,
    Resolve,
    Route,
    canonical,
    interfaces,
    is_address,
    own_addresses,
    resolve,
    source_address,
)
from bootstrap.node.interfaces import Pattern
from bootstrap.settings import Settings

# fmt: off
BRIDGES = (
    "docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "cilium_", "vxlan.calico",
    "tunl", "podman", "lxcbr", "lxdbr", "cbr", "kube-",
)
# fmt: on
"""Prefixes of interfaces that lead to this host's containers or virtual machines, not to other nodes."""

# RFC 5737 and RFC 3849: documentation addresses, which no neighbour has, so only the default route matches them.
_ANYWHERE = ("192.0.2.1", "2001:db8::1")


MOST_OTHERS = 8
"""Maximum number of a node's other addresses."""


def node_address(
    settings: Settings,
    host: Host,
    towards: str | None,
    *,
    table: Sequence[Interface] | None = None,
    route: Route = source_address,
    lookup: Resolve = resolve,
) -> NodeAddress:
    """Return the address at which other nodes reach this one, and the interface that holds it.

    ``--node-ip`` goes first, then POD_IP. Otherwise only what ``--interface``, NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME
    selects counts: first the source address of the route to ``towards`` (the head's name or address),
    then that of the default route, then the first interface that is up. IPv4 goes before IPv6; loopback and bridges are
    the last resort.

    :raises IdentityError: if POD_IP is not an address, or the pattern selects no interface that has an address.
    """
    table = interfaces() if table is None else table
    ip, source = _given(settings, host, table) or _selected(
        settings, host, towards, table=table, route=route, lookup=lookup
    )
    held = _holder(table, ip)
    where = f"holds {ip}" if held else f"no interface of this machine holds {ip}"
    sources = {"ip": source, "interface": where, "hostname": "gethostname"}
    besides = tuple(i.name for i in table if i.up and not _inward(i) and i != held)
    return NodeAddress(ip, held.name if held else None, host.hostname, sources, besides)


def other_addresses(ip: str, table: Sequence[Interface] | None = None) -> tuple[str, ...]:
    """Return the addresses besides ``ip`` at which other nodes may reach this one: no loopback, bridge or link-local.

    There are none if ``ip`` is a loopback address: then all nodes are on this machine.
    """
    if not is_address(ip) or ipaddress.ip_address(ip).is_loopback:
        return ()
    try:
        outward = [i for i in (interfaces() if table is None else table) if i.up and not _inward(i)]
    except OSError:
        return ()
    found = (canonical(address) for interface in outward for address in interface.addresses if _global(address))
    return tuple(sorted({each for each in found if each != canonical(ip)}, key=_is_v6))[:MOST_OTHERS]


def _given(settings: Settings, host: Host, table: Sequence[Interface]) -> tuple[str, str] | None:
    """Return the address that the user or the platform gave, and its source."""
    for name, value in (("--node-ip", settings.node_ip), ("POD_IP", host.get("POD_IP"))):
        if value is None:
            continue
        try:
            ip = canonical(value.strip())
        except ValueError:
            raise IdentityError(
                f"{name}={value!r} is not an IP address",
                hint=f"unset {name}, or set it from status.podIP through the downward API",
            ) from None
        # Not an error: behind NAT no interface holds the address that other nodes use.
        foreign = ip not in own_addresses(table)
        return ip, f"{name} (on no interface of this machine: NAT?)" if foreign else name
    return None


def _selected(
    settings: Settings, host: Host, towards: str | None, *, table: Sequence[Interface], route: Route, lookup: Resolve
) -> tuple[str, str]:
    """Return the address of the best interface that the pattern, if there is one, selects, and its source."""
    origin, pattern = _pattern(settings, host)
    parsed = Pattern.parse(pattern, networks=origin == "--interface")
    selected = [i for i in map(parsed.narrow, table) if i.up and any(_usable(a) for a in i.addresses)]
    if pattern and not selected:
        raise IdentityError(
            f"{origin}={pattern!r} selects no interface that is up and has an address; there are: {_listing(table)}",
            hint=f"correct or unset {origin}, or give --node-ip=ADDRESS",
        )
    # A pattern that names docker0 or lo means it; `^lo` and a network name nothing.
    wanted = [i for i in selected if parsed.names_interface(i.name) or not _inward(i)]
    suffix = f" (among those that {origin}={pattern} selects)" if pattern else ""
    for source, address in _route_sources(towards, route, lookup):
        holder = _holder(wanted, address)
        if holder is not None and _usable(address):
            return canonical(address), source + suffix
    for candidates, remark in ((wanted, ""), (selected, ": a bridge, as no other interface has an address")):
        # The sort is stable, so it keeps the kernel's order within each family.
        addresses = sorted((a for i in candidates for a in i.addresses if _global(a)), key=_is_v6)
        if addresses:
            holder = _holder(candidates, addresses[0])
            found = f"{origin}={pattern}" if pattern else "the first interface that is up"
            return canonical(addresses[0]), found + (f" ({holder.name})" if holder else "") + remark
    return _loopback(selected or table), "loopback, as no interface that is up has another address"


def _pattern(settings: Settings, host: Host) -> tuple[str, str]:
    """Return the option or variable that restricts the interfaces, and its pattern; empty for none."""
    if settings.interface:
        return "--interface", settings.interface
    if nccl := host.get("NCCL_SOCKET_IFNAME"):
        return "NCCL_SOCKET_IFNAME", nccl
    gloo = host.get("GLOO_SOCKET_IFNAME") or ""
    # PyTorch takes whole names here, not prefixes: by NCCL's rule `eth1` would also select eth10.
    return "GLOO_SOCKET_IFNAME", gloo if not gloo or gloo.startswith(("^", "=")) else "=" + gloo


def _route_sources(towards: str | None, route: Route, lookup: Resolve) -> Iterator[tuple[str, str]]:
    """Yield the routes' source addresses, best first, each with its description."""
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
    """Return whether other nodes could use an address; a link-local one needs a zone, which differs on each node."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast)


def _global(address: str) -> bool:
    return _usable(address) and not ipaddress.ip_address(address).is_loopback


def _inward(interface: Interface) -> bool:
    """Return whether an interface leads only into this machine."""
    return interface.name.startswith(BRIDGES) or not any(_global(a) for a in interface.addresses)


def _loopback(table: Sequence[Interface]) -> str:
    addresses = sorted((a for i in table for a in i.addresses if ipaddress.ip_address(a).is_loopback), key=_is_v6)
    return addresses[0] if addresses else "127.0.0.1"


def _holder(table: Sequence[Interface], ip: str) -> Interface | None:
    return next((i for i in table if canonical(ip) in map(canonical, i.addresses)), None)


def _listing(table: Sequence[Interface]) -> str:
    rows = (f"{i.name} ({', '.join(i.addresses) or 'no address'}{'' if i.up else ', down'})" for i in table)
    return "; ".join(rows) or "none"


def _is_v6(address: str) -> bool:
    return ":" in address
