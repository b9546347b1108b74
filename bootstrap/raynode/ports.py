"""The TCP ports for Ray on this node: the user's, Ray's defaults, or others that stay free until Ray binds them.

Ray binds its agents' ports seconds after ``ray start`` has returned, and a raylet exits if its agent cannot bind its
port. So each port is chosen just before the start, outside the kernel's ephemeral range, and claimed against other
agents. The ports of Ray's workers are a range, which the raylet hands out as long as it runs.
"""

import errno
import itertools
import os
import socket
from collections.abc import Collection, Container, Iterator

from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.settings import Settings, fixed_ports

HEAD_ONLY = ("gcs_port", "dashboard_port", "ray_client_server_port")
WORKERS = range(10002, 20000)
"""For Ray's worker processes by default (``ray start --min-worker-port``, ``--max-worker-port``)."""
_WORKER_POOL, _ENOUGH_WORKERS = range(1024, 20000), 1000
"""Where they move if the kernel hands out ports of the default range, and the least width there. From 20000 on are the
roll call's ports and those of :data:`_POOL`; Ray refuses a port below 1024."""
_STANDARD = {"gcs_port": 6379, "dashboard_port": 8265, "ray_client_server_port": 10001}
_AGENT_HTTP = 52365
_AGENT_PORTS = ("metrics_export_port", "dashboard_agent_grpc_port", "runtime_env_agent_port")
"""Of Ray's two Python agents on each node. Unless they are fixed, the raylet waits for the agents to start and bind."""
_OPTIONAL = ("object_manager_port", "node_manager_port")
"""Left to Ray unless the user sets them: its daemons bind free ports and report them."""
_POOL = (range(20000, 30000), range(61000, 65536))
"""Outside Linux's ephemeral ports (32768-60999 by default) and Kubernetes' NodePorts (30000-32767)."""


def workers(settings: Settings, host: Host) -> range:
    """Return the ports of Ray's workers: the user's, else Ray's default, or others that the kernel does not hand out.

    The raylet gives a worker process a port that is free then; if a connection takes it first, the process fails.
    """
    if settings.min_worker_port and settings.max_worker_port:
        return range(settings.min_worker_port, settings.max_worker_port + 1)
    handed_out = ephemeral(host)
    if handed_out.isdisjoint(WORKERS):
        return WORKERS
    taken = {*handed_out, *fixed_ports(settings).values(), *_STANDARD.values()}
    widest = max(_gaps(_WORKER_POOL, taken), key=len)
    return widest if len(widest) >= _ENOUGH_WORKERS else WORKERS


def _gaps(ports: range, taken: Collection[int]) -> Iterator[range]:
    """Yield the ranges of ``ports`` between those that are ``taken``; they may be empty."""
    start = ports.start
    for port in sorted({port for port in taken if port in ports} | {ports.stop}):
        yield range(start, port)
        start = port + 1


def ephemeral(host: Host) -> frozenset[int]:
    """Return the ports that the kernel hands to outgoing connections (ip(7)); empty if unknown."""
    words = (host.read("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return frozenset()
    return frozenset(range(int(words[0]), int(words[1]) + 1)).difference(*_reserved(host))


def _reserved(host: Host) -> Iterator[range]:
    """Yield the ports that the administrator has reserved (ip_local_reserved_ports): ``8080,9148-9150``."""
    for part in reserved_ports(host).split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal() and (last.isdecimal() or not dash):
            yield range(int(first), int(last or first) + 1)


def reserved_ports(host: Host) -> str:
    """Return the ports that the kernel does not hand out although they are in its range, as it lists them."""
    return (host.read("/proc/sys/net/ipv4/ip_local_reserved_ports") or "").strip()


def is_free(port: int) -> bool:
    """Return whether a process could listen on this TCP port now, on all addresses."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


_claims: dict[int, socket.socket] = {}
_CLAIMED_MAX = 64
"""Free ports that are left to whoever has claimed them; after so many, a neighbour must have claimed them all."""


def claim(port: int) -> bool:
    """Claim a port until this process ends; return False if another agent has claimed it.

    Two jobs may start on a node in the same instant. The claim is an abstract UNIX socket (unix(7)): its name has the
    same scope as the TCP port, the network namespace, and disappears with the process. Any user can claim any port, so
    a claim is advice; if it cannot be made, the port counts as unclaimed.
    """
    if port in _claims:
        return True
    try:
        mark = socket.socket(socket.AF_UNIX)
    except OSError:
        return True
    try:
        mark.bind(f"\0ray-bootstrap/port/{port}")
    except OSError as error:
        mark.close()
        return error.errno != errno.EADDRINUSE
    _claims[port] = mark
    return True


def choose(settings: Settings, role: Role, host: Host) -> dict[str, int]:
    """Return the ports by field name: the user's, else Ray's default if it is free, else another free one.

    It fixes the ports of Ray's agents too, so that the raylet need not wait for them (prefill.py). Ray refuses a port
    that two of its components share, or that lies in the range of its workers (node.py).

    :raises PreflightFailed: if no port is free.
    """
    span = workers(settings, host)
    avoid = {*fixed_ports(settings).values(), *span}
    others = _others(avoid, ephemeral(host))
    standard = {name: port for name, port in _STANDARD.items() if role is Role.HEAD or name not in HEAD_ONLY}
    standard["dashboard_agent_listen_port"] = _AGENT_HTTP
    ports: dict[str, int] = {}
    passed = itertools.count()
    for name in (*standard, *_AGENT_PORTS, *_OPTIONAL):
        port = getattr(settings, name)
        if port is None and name not in _OPTIONAL:
            port = standard.get(name)
            if port is None or port in avoid or not is_free(port) or not claim(port):
                port = next((p for p in others if is_free(p) and (claim(p) or next(passed) >= _CLAIMED_MAX)), None)
                if port is None:
                    raise _none_left(span, name)
        if port is not None:
            ports[name] = port
            avoid.add(port)
    if span != WORKERS or settings.min_worker_port:
        ports.update(min_worker_port=span.start, max_worker_port=span.stop - 1)
    return ports


def _others(avoid: Container[int], ephemeral_ports: Container[int]) -> Iterator[int]:
    """Yield the pool's ports from a random one on, ephemeral ones last; ``avoid`` may grow meanwhile."""
    pool = list(itertools.chain(*_POOL))
    start = int.from_bytes(os.urandom(4), "big") % len(pool)
    pool = [port for port in pool[start:] + pool[:start] if port not in avoid]
    yield from (port for port in pool if port not in ephemeral_ports and port not in avoid)
    yield from (port for port in pool if port in ephemeral_ports and port not in avoid)


def _none_left(span: range, name: str) -> PreflightFailed:
    flag = "--" + name.replace("_", "-")
    pool = " and ".join(f"{ports.start}-{ports.stop - 1}" for ports in _POOL)
    return PreflightFailed(
        f"no free port for {flag}: all of {pool} are taken or in the workers' range {span.start}-{span.stop - 1}",
        hint=f"{flag}=PORT, or move the workers' range: --min-worker-port=LOW --max-worker-port=HIGH",
    )
