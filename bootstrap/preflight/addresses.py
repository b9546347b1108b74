"""Checks of ports, the node address and the node's name."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterator

from bootstrap import hosts, network, ray_node
from bootstrap.model import Role
from bootstrap.node import Node
from bootstrap.preflight.finding import Finding
from bootstrap.settings import fixed_ports, flag

HEAD_ONLY = ("gcs_port", "dashboard_port", "ray_client_server_port", "rollcall_port")
RAY_WORKER_PORTS = (10002, 19999)
"""What ``ray start`` takes when nobody says otherwise."""


def ports(node: Node) -> Iterator[Finding]:
    """The user's own ports: free, and not ones that the kernel may give away; a free one was chosen for the others."""
    head = node.identity.role is Role.HEAD
    chosen = {n: port for n, port in fixed_ports(node.settings).items() if head or n not in HEAD_ONLY}
    taken = {name: port for name, port in chosen.items() if not ray_node.is_free(port)}
    held = _holders(set(taken.values())) if taken else {}
    for name, port in taken.items():
        pid, who = held.get(port, (0, "another process (run as root to see which)"))
        if pid == os.getpid():  # the roll call is open before the node is inspected
            continue
        if port not in held and port < 1024:
            who += ", or needs root as all below 1024 do"
        remedy = f"{flag(name)}=PORT with a free one, or end that process; ss -ltnp 'sport = :{port}' shows it"
        yield Finding("ports", f"{flag(name)}={port} is held by {who}", remedy)
    yield from _said_twice(node)
    yield from _given_away(node, chosen)


def _holders(wanted: Collection[int]) -> dict[int, tuple[int, str]]:
    """Who holds these TCP ports, as far as this user may know; listeners go before connections."""
    import psutil  # noqa: PLC0415 (25 ms, and only when something is wrong)

    held: dict[int, tuple[int, str]] = {}
    try:
        table = psutil.net_connections("tcp")
        for entry in sorted(table, key=lambda entry: entry.status != psutil.CONN_LISTEN):
            port = entry.laddr.port if entry.laddr else 0
            if port in wanted and entry.pid and port not in held:
                held[port] = (entry.pid, _process(entry.pid))
    except psutil.Error:  # a Mac's kernel tells root only
        pass
    return held


def _process(pid: int) -> str:
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        return f"pid {pid} ({process.name()}, user {process.username()})"
    except psutil.Error:
        return f"pid {pid}"


def _said_twice(node: Node) -> Iterator[Finding]:
    """One of Ray's standard ports that is also one of the user's: Ray would stop with a traceback."""
    seen: dict[int, str] = {}
    for name, port in _ray_ports(node).items():
        if port in seen:
            message = f"port {port} is {flag(seen[port])} and {flag(name)}"
            yield Finding("ports", message, f"{flag(name)}=PORT or {flag(seen[port])}=PORT with another one")
        seen[port] = name


def _ray_ports(node: Node) -> dict[str, int]:
    return {name: port for name, port in node.ports.items() if not name.endswith("worker_port")}


def _given_away(node: Node, chosen: dict[str, int]) -> Iterator[Finding]:
    """Ports that the kernel hands to outgoing connections: free now, perhaps not when Ray binds them (ip(7))."""
    words = (node.host.read("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    reserved = (node.host.read("/proc/sys/net/ipv4/ip_local_reserved_ports") or "").strip()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or reserved:
        return  # who reserves ports knows of the matter
    low, high = map(int, words)
    inside = {name: port for name, port in chosen.items() if low <= port <= high}
    if inside:
        named = ", ".join(f"{flag(name)}={port}" for name, port in inside.items())
        listed = ",".join(map(str, sorted(inside.values())))
        message = f"{named}: the kernel gives ports {low}-{high} to outgoing connections, so it may be taken at times"
        remedy = f"a port below {low}; or as root: sysctl -w net.ipv4.ip_local_reserved_ports={listed}"
        yield Finding("ports", message, remedy, fatal=False)


def worker_ports(node: Node) -> Iterator[Finding]:
    """The range for Ray's worker processes: wide enough, and free of Ray's other ports, which Ray would refuse."""
    settings, cpus = node.settings, node.resources.cpus
    if any(arg.startswith("--worker-port-list") for arg in settings.ray_start_arg):
        return
    low, high = settings.min_worker_port or RAY_WORKER_PORTS[0], settings.max_worker_port or RAY_WORKER_PORTS[1]
    given, move = f"--min-worker-port={low} --max-worker-port={high}", "--min-worker-port=LOW --max-worker-port=HIGH"
    if (width := high - low + 1) < cpus + 1:
        message = f"{given} has room for {width} processes; {cpus} CPUs make {cpus} workers and a driver, actors more"
        yield Finding("worker-ports", message, f"--max-worker-port={low + max(2 * cpus, 100)} or higher")
    for name, port in _ray_ports(node).items():
        if low <= port <= high:
            message = f"{flag(name)}={port} lies in the range of Ray's workers, {low}-{high}"
            yield Finding("worker-ports", message, f"{flag(name)}=PORT outside of it; or move that: {move}")


def node_address(node: Node) -> Iterator[Finding]:
    """Loopback leads every other node to itself."""
    address = node.address
    if node.several and ipaddress.ip_address(address.ip).is_loopback:
        source = address.sources.get("ip", "the only one found")
        remedy = "--node-ip=ADDRESS or --interface=NAME; `ip -brief address` lists them"
        yield Finding(
            "node-address", f"the node address is {address.ip} ({source}), which no other node reaches", remedy
        )


def _leads_to(found: Collection[str], ip: str) -> bool:
    """Whether a resolver's answer has ``ip`` and nothing that could be tried instead of it."""
    own, answers = ipaddress.ip_address(ip), {ipaddress.ip_address(address) for address in found}
    return own in answers and not any(a.version == own.version or a.is_loopback for a in answers - {own})


def own_name(node: Node) -> Iterator[Finding]:
    """Gloo connects its peers through the address that each node's own name resolves to."""
    name, ip = node.address.hostname, node.address.ip
    # One node alone is its own peer, whatever its name means; and with the variable Gloo asks for no name.
    if not node.several or node.host.get("GLOO_SOCKET_IFNAME") or ipaddress.ip_address(ip).is_loopback:
        return
    found = network.resolve(name)
    if not _leads_to(found, ip):
        message = f"{name!r} resolves to {', '.join(found) or 'nothing'}, not to {ip}: Gloo would not connect"
        instead = f"export GLOO_SOCKET_IFNAME={node.address.interface or 'INTERFACE'}"
        repaired = "" if node.settings.hosts == "off" else f"a run puts it into {hosts.FILE} if it may; or "
        remedy = f"{repaired}as root: echo '{ip} {name}' >> {hosts.FILE}; or {instead}"
        yield Finding("own-name", message, remedy, fatal=False)
