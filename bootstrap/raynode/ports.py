"""The TCP ports that Ray gets on this node: the user's, Ray's standard ones, or others that stay free meanwhile.

Ray binds its agents' ports seconds after ``ray start`` has returned, and its raylet ends with an agent that cannot bind
its own. So a port is drawn from where the kernel draws none, just before the start, and claimed against other agents.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Container, Iterator

from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.settings import Settings, fixed_ports

HEAD_ONLY = ("gcs_port", "dashboard_port", "ray_client_server_port")
WORKERS = range(10002, 20000)
"""For Ray's worker processes, when nobody says otherwise (``ray start --min-worker-port``, ``--max-worker-port``)."""
_STANDARD = {"gcs_port": 6379, "dashboard_port": 8265, "ray_client_server_port": 10001}
_AGENT_HTTP = 52365
_AGENT_PORTS = ("metrics_export_port", "dashboard_agent_grpc_port", "runtime_env_agent_port")
"""Of Ray's two Python agents on each node. Left open, the raylet waits until they are imported and have bound some."""
_OPTIONAL = ("object_manager_port", "node_manager_port", "min_worker_port", "max_worker_port")
"""Left to Ray unless the user says: their daemons bind what is free and tell it."""
_POOL = (range(20000, 30000), range(61000, 65536))
"""Beside Linux's ephemeral ports (32768-60999 by default) and the 30000-32767 of Kubernetes' Services (NodePort)."""


def workers(settings: Settings) -> range:
    """The ports of Ray's worker processes."""
    return range(settings.min_worker_port or WORKERS.start, (settings.max_worker_port or WORKERS.stop - 1) + 1)


def ephemeral(host: Host) -> range:
    """The ports that the kernel gives to outgoing connections (ip(7)); empty where it does not say."""
    words = (host.read("/proc/sys/net/ipv4/ip_local_port_range") or "").split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return range(0)
    return range(int(words[0]), int(words[1]) + 1)


def is_free(port: int) -> bool:
    """Whether somebody could listen on this TCP port, on all addresses, now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


_claims: dict[int, socket.socket] = {}


def claim(port: int) -> bool:
    """Whether no other agent has chosen this port; if so it is ours until this process ends.

    Two jobs may start on a node in the same instant. The claim is an abstract UNIX socket (unix(7)): its name has the
    TCP port's own scope, the network namespace, and goes with its process.
    """
    if port in _claims:
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0ray-bootstrap/port/{port}")
    except OSError as error:
        mark.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _claims[port] = mark
    return True


def choose(settings: Settings, role: Role, host: Host) -> dict[str, int]:
    """Option name → port: the user's; else Ray's standard one if it is free, else another one that is.

    Those of Ray's agents are fixed too, so that the raylet need not wait for them (ray_announce.py). Ray refuses a port
    that two of its components, or one and the range of its workers, have in common (node.py).

    :raises PreflightFailed: if none is left to choose from.
    """
    avoid = {*fixed_ports(settings).values(), *workers(settings)}
    others = _others(avoid, ephemeral(host))
    standard = {name: port for name, port in _STANDARD.items() if role is Role.HEAD or name not in HEAD_ONLY}
    standard["dashboard_agent_listen_port"] = _AGENT_HTTP
    ports: dict[str, int] = {}
    for name in (*standard, *_AGENT_PORTS, *_OPTIONAL):
        port = getattr(settings, name)
        if port is None and name not in _OPTIONAL:
            port = standard.get(name)
            if port is None or port in avoid or not is_free(port) or not claim(port):
                port = next((port for port in others if is_free(port) and claim(port)), None)
                if port is None:
                    raise _none_left(settings, name)
        if port is not None:
            ports[name] = port
            avoid.add(port)
    return ports


def _others(avoid: Container[int], given_away: Container[int]) -> Iterator[int]:
    """The pool's ports from a random one on, those last that the kernel may give away first."""
    pool = list(itertools.chain(*_POOL))
    start = int.from_bytes(os.urandom(4), "big") % len(pool)
    pool = [port for port in pool[start:] + pool[:start] if port not in avoid]
    yield from (port for port in pool if port not in given_away and port not in avoid)
    yield from (port for port in pool if port in given_away and port not in avoid)


def _none_left(settings: Settings, name: str) -> PreflightFailed:
    span, flag = workers(settings), "--" + name.replace("_", "-")
    pool = " and ".join(f"{ports.start}-{ports.stop - 1}" for ports in _POOL)
    return PreflightFailed(
        f"no port is left for {flag}: none of {pool} is free and outside of the workers' {span.start}-{span.stop - 1}",
        hint=f"{flag}=PORT, or another range of --min-worker-port and --max-worker-port",
    )
