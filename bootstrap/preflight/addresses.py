"""Checks of ports, the node address and the node's name."""

import ipaddress
import os
from collections.abc import Collection, Iterator

from bootstrap import net
from bootstrap.files.runtime_dir import run_of
from bootstrap.files.secret import uses_tls
from bootstrap.model import Role
from bootstrap.node import hosts_file
from bootstrap.node.inspection import Node
from bootstrap.preflight.finding import Finding
from bootstrap.raynode import ports as ray_ports
from bootstrap.settings import fixed_ports, flag

_LONGEST_LABEL = 63
"""Characters between two dots of a name in DNS (RFC 1035, 2.3.4)."""
_LONGEST_FOR_GLOO = 63
"""Gloo (PyTorch 2.13) calls gethostname(2) with room for HOST_NAME_MAX, 64 bytes, the NUL included."""
_RAYS_TARGET = "8.8.8.8"
"""Ray replaces 127.0.0.1 by the source address of the route there (get_node_ip_address in its services.py)."""


def ports(node: Node) -> Iterator[Finding]:
    """Check that the user's ports are free, and that the kernel does not hand them out; the agent chose the others."""
    chosen = _chosen(node)
    taken = {name: port for name, port in chosen.items() if not ray_ports.is_free(port)}
    held = _holders(set(taken.values())) if taken else {}
    for name, port in taken.items():
        pid, who = held.get(port, (0, "another process (hidden from this user)"))
        if not pid and port < 1024:
            who += ", or needs root, as every port below 1024 does"
        remedy = f"{flag(name)}=PORT with a free one, or stop that process; ss -ltnp 'sport = :{port}' shows it"
        if own := run_of(pid):
            who, remedy = f"this user's run {own!r}, {who}", f"for another run beside it: {flag(name)}=PORT"
        yield Finding("ports", f"{flag(name)}={port} is held by {who}", remedy, own_run=bool(own))
    yield from _ephemeral(node, chosen)


def _chosen(node: Node) -> dict[str, int]:
    """Return the ports that the user chose and that this node will bind, by field name."""
    head_only = () if node.identity.role is Role.HEAD else (*ray_ports.HEAD_ONLY, "rollcall_port")
    return {name: port for name, port in fixed_ports(node.settings).items() if name not in head_only}


def _holders(wanted: Collection[int]) -> dict[int, tuple[int, str]]:
    """Return which processes hold these TCP ports, as far as this user may see; listeners go before connections.

    :returns: for each such port the process id, and who that is, as text for people.
    """
    import psutil  # noqa: PLC0415 (25 ms, and only if a port is taken)

    held: dict[int, tuple[int, str]] = {}
    for entry in sorted(psutil.net_connections("tcp"), key=lambda entry: entry.status != psutil.CONN_LISTEN):
        port = entry.laddr.port if entry.laddr else 0
        if port in wanted and entry.pid and port not in held:
            held[port] = entry.pid, _process(entry.pid)
    return held


def _process(pid: int) -> str:
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        return f"pid {pid} ({process.name()}, user {process.username()})"
    except psutil.Error:
        return f"pid {pid}"


def _ephemeral(node: Node, chosen: dict[str, int]) -> Iterator[Finding]:
    """Yield a warning about ports that the kernel hands to outgoing connections: free now, maybe not later (ip(7))."""
    handed_out = ray_ports.ephemeral(node.host)
    inside = {name: port for name, port in chosen.items() if port in handed_out}
    if inside:
        named = ", ".join(f"{flag(name)}={port}" for name, port in inside.items())
        listed = ",".join(map(str, sorted(inside.values())))
        low, high = min(handed_out), max(handed_out)
        message = f"{named}: a connection may hold it when Ray starts, as the kernel hands out ports {low}-{high}"
        yield Finding("ports", message, f"a port below {low}; or {_reserve(node, listed)}", fatal=False)


def _reserve(node: Node, ports: str) -> str:
    """Return what to type so that the kernel hands out none of these ports, nor of those reserved before."""
    reserved = ",".join(filter(None, [ray_ports.reserved_ports(node.host), ports]))
    return f"as root: sysctl -w net.ipv4.ip_local_reserved_ports={reserved}"


def worker_ports(node: Node) -> Iterator[Finding]:
    """Check that the range for Ray's workers is wide enough, and holds no port that Ray refuses or the kernel takes."""
    settings, cpus = node.settings, node.resources.cpus
    if any(arg.startswith("--worker-port-list") for arg in settings.ray_start_arg):
        return
    span = ray_ports.workers(settings, node.host)
    low, high, width = span.start, span.stop - 1, len(span)
    given, move = f"--min-worker-port={low} --max-worker-port={high}", "--min-worker-port=LOW --max-worker-port=HIGH"
    if width < cpus + 1:
        message = f"{given} has {width} ports; {cpus} CPUs need {cpus + 1} (a worker each, and a driver), actors more"
        yield Finding("worker-ports", message, f"--max-worker-port={low + max(2 * cpus, 100)} or higher")
    for name, port in _chosen(node).items():
        if port in span:
            message = f"{flag(name)}={port} is inside the range of Ray's workers, {low}-{high}"
            yield Finding("worker-ports", message, f"{flag(name)}=PORT outside the range; or move the range: {move}")
    handed_out = ray_ports.ephemeral(node.host)
    if inside := len(handed_out.intersection(span)):
        message = (
            f"{given}: a connection may hold {inside} of these {width} ports when a worker process binds one,"
            f" as the kernel hands out ports {min(handed_out)}-{max(handed_out)}"
        )
        instead = 'securityContext: {sysctls: [{name: net.ipv4.ip_local_port_range, value: "32768 60999"}]}'
        remedy = f"in the pod: {instead}" if node.in_pod else _reserve(node, f"{low}-{high}")
        yield Finding("worker-ports", message, f"{remedy}; or move the range: {move}", fatal=False)


def node_address(node: Node) -> Iterator[Finding]:
    """Check that the node address is not loopback, which no other node reaches, and that Ray can bind it here."""
    address, remedy = node.address, "--node-ip=ADDRESS or --interface=NAME; `ip -brief address` lists them"
    given = f"the node address is {address.ip} ({address.sources.get('ip', 'the only one found')})"
    if ipaddress.ip_address(address.ip).is_loopback:
        if node.multi_node:
            yield Finding("node-address", f"{given}, which no other node can reach", remedy)
        elif uses_tls(node.secret, node.settings) and (instead := net.source_address(_RAYS_TARGET)):
            message = f"{given}, for which Ray takes {instead}: the TLS certificate would name another address"
            yield Finding("node-address", message, remedy)
    elif address.interface is None:
        yield Finding("node-address", f"{given}: Ray may not be able to bind it", remedy, fatal=False)


def host_name(node: Node) -> Iterator[Finding]:
    """Check the length of this node's name: the kernel permits 64 bytes, DNS 63 in a label, gethostname's callers less.

    Measured with a name of 64 bytes. If it is one label, Ray's dashboard agent ends on Python's codec for DNS names
    (socket.getfqdn), and the raylet with it. With a dot in it Ray works, and only Gloo refuses ("File name too long").
    """
    name = node.address.hostname
    longest = max(len(os.fsencode(label)) for label in name.split("."))
    remedy = "give the pod a shorter `hostname:`, or setHostnameAsFQDN: false"
    if not node.in_pod:
        remedy = "as root: hostname SHORTER; or docker run --hostname=SHORTER"
    if longest > _LONGEST_LABEL:
        message = (
            f"the host name {name!r} has {longest} characters without a dot, and DNS allows {_LONGEST_LABEL}:"
            " Ray's dashboard agent ends on it, and the raylet with it"
        )
        yield Finding("host-name", message, remedy)
    elif len(os.fsencode(name)) > _LONGEST_FOR_GLOO and not node.host.get("GLOO_SOCKET_IFNAME"):
        message = f"the host name {name!r} has {len(name)} characters, and Gloo takes {_LONGEST_FOR_GLOO} at most"
        instead = f"export GLOO_SOCKET_IFNAME={node.address.interface or 'INTERFACE'}"
        yield Finding("host-name", message, f"{instead}; or {remedy}", fatal=False)


def own_name(node: Node) -> Iterator[Finding]:
    """Check that this node's name resolves to its address: Gloo connects its peers through it."""
    name, ip = node.address.hostname, node.address.ip
    # With the variable Gloo needs no name, and a node on loopback has no peers.
    if node.host.get("GLOO_SOCKET_IFNAME") or ipaddress.ip_address(ip).is_loopback:
        return
    found = net.resolve(name)
    if not hosts_file.leads_to(found, ip):
        message = f"{name!r} resolves to {', '.join(found) or 'nothing'}, not to {ip}: Gloo could not connect"
        instead = f"export GLOO_SOCKET_IFNAME={node.address.interface or 'INTERFACE'}"
        repaired = "" if node.settings.hosts == "off" else f"a run adds it to {hosts_file.FILE} if permitted; or "
        remedy = f"{repaired}as root: echo '{ip} {name}' >> {hosts_file.FILE}; or {instead}"
        yield Finding("own-name", message, remedy, fatal=False)
