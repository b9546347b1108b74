"""What listens on a host, and what SECURITY.md says about it."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hosts import Host

SECURITY = Path(__file__).parent.parent / "SECURITY.md"
ALL, NODE, LOOPBACK = "all addresses", "node's address", "loopback"

_NUMBERS = re.compile(r"(?<!\S)(\d+)(?:–(\d+))?")
_QUOTED = re.compile(r"`([^`]+)`")
_PATHS = re.compile(r"`((?:POST )?/[^`]*)`")
_FREE = range(7001, 7100)
"""For the rows whose port is any free one: the test gives their option one of these."""


@dataclass(frozen=True)
class Row:
    """A line of SECURITY.md's table."""

    name: str
    head_only: bool
    option: str | None
    ports: range
    given: bool
    """Whether its port is one that the test chose, because the table names none."""
    bound: frozenset[str]
    protocol: str
    with_token: str
    without: str

    @property
    def always(self) -> bool:
        """Whether it listens as long as the node runs."""
        return ", while " not in self.name

    @property
    def asked(self) -> list[str]:
        """What a stranger asks this port: HTTP paths or a method of gRPC."""
        if self.protocol == "HTTP":
            return [path for path in _REQUESTS if self.with_token != "metrics" or path.startswith("/")]
        return [_METHODS[self.name]] if self.protocol == "gRPC" else []

    def answers(self, token: bool) -> set[str]:
        """Those that the table says are answered."""
        if self.protocol == "gRPC":
            assert self.with_token == "refused"
            return set() if token else {*self.asked}
        if self.with_token == self.without == "metrics":
            return {*self.asked}
        return {*_PATHS.findall(self.with_token if token else self.with_token + self.without)}


@functools.cache
def table() -> list[Row]:
    """The rows of "What listens where"."""
    free = iter(_FREE)
    return [_row([cell.strip() for cell in line.strip("|").split("|")], free) for line in lines()[2:]]


@functools.cache
def lines() -> list[str]:
    """The lines of that table, its head too."""
    section = SECURITY.read_text().partition("\n## What listens where\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")]


def _row(cells: Sequence[str], free: Iterator[int]) -> Row:
    name, node, port, bound, protocol, with_token, without = cells
    option = next((word for word in _QUOTED.findall(port) if word.startswith("--")), None)
    numbers = _NUMBERS.search(port)
    first = int(numbers[1]) if numbers else next(free)
    ports = range(first, int(numbers[2] or first) + 1) if numbers else range(first, first + 1)
    scopes = frozenset(scope for scope in (ALL, NODE, LOOPBACK) if scope in bound)
    assert scopes, f"{name}: bound to {bound!r}"
    assert node in ("head", "every node"), f"{name}: on {node!r}"
    assert numbers or option, f"{name}: neither a port nor an option in {port!r}"
    return Row(name, node == "head", option, ports, not numbers, scopes, protocol, with_token, without)


def options(rows: Iterable[Row]) -> list[str]:
    """The options for the ports that the table does not name."""
    return [f"{row.option}={row.ports.start}" for row in rows if row.given]


def reserve(host: Host, rows: Iterable[Row]) -> None:
    """Keep the kernel from giving the table's ports to outgoing connections of this host (ip-sysctl(7))."""
    ports = ",".join(str(row.ports.start) for row in rows)
    host.run(["sh", "-c", f"echo {ports} > /proc/sys/net/ipv4/ip_local_reserved_ports"])


def listening(host: Host, rows: Sequence[Row]) -> set[tuple[str, frozenset[str]]]:
    """Who listens on this host, by name (a port that no row has: its number), and to which addresses it is bound."""
    found: dict[int, set[str]] = {}
    for line in host.run(["ss", "-Hltn"]).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.setdefault(int(port), set()).add(_scope(address.strip("[]").removeprefix("::ffff:"), host))
    names = {port: next((row.name for row in rows if port in row.ports), f"port {port}") for port in found}
    return {(names[port], frozenset(scopes)) for port, scopes in found.items()}


def _scope(address: str, host: Host) -> str:
    return {"*": ALL, "0.0.0.0": ALL, "::": ALL, "127.0.0.1": LOOPBACK, "::1": LOOPBACK, host.ip: NODE}[address]


def answers(asker: Host, ip: str, host: Host, rows: Sequence[Row]) -> dict[str, set[str]]:
    """What the ports of these rows answer to ``asker``, who has no token or a wrong one, by name of the row."""
    asked = [(row, request) for row in rows for request in row.asked]
    at = {row.name: f"{ip}:{min(port for port in host.sockets() if port in row.ports)}" for row in rows}
    calls = json.dumps([(row.protocol, at[row.name], request) for row, request in asked])
    statuses = json.loads(asker.run([sys.executable, "-c", _ASK, calls], timeout=120).stdout)
    answered: dict[str, set[str]] = {row.name: set() for row, _ in asked}
    for (row, request), said in zip(asked, statuses, strict=True):
        answered[row.name] |= set() if _REFUSALS.issuperset(said) else {request}
    return answered


_REQUESTS = (
    "/",
    "/api/authentication_mode",
    "/api/gcs_healthz",
    "/api/healthz",
    "/api/jobs/",
    "/api/local_raylet_healthz",
    "/api/v0/actors",
    "/api/version",
    "/logs/",
    "POST /api/job_agent/jobs/",
    "POST /api/jobs/",
    "POST /get_or_create_runtime_env",
)
"""What a stranger asks every HTTP port."""
_METHODS = {
    "GCS": "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "Ray Client server": "/ray.rpc.RayletDriver/ClusterInfo",
    "raylet": "/ray.rpc.NodeManagerService/GetNodeStats",
    "raylet, object manager": "/ray.rpc.ObjectManagerService/Pull",
    "dashboard agent, gRPC": "/ray.rpc.LogService/ListLogs",
    "worker processes: tasks, actors, drivers": "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
}
"""One of the methods of each gRPC port in the table."""
_REFUSALS = {401, 403, 404, 405, "UNAUTHENTICATED"}
_ASK = """
import grpc, json, sys, urllib.error, urllib.request

def http(address, path, headers):
    method, path = path.split() if " " in path else ("GET", path)
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(f"http://{address}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code

def rpc(address, method, headers):
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=30, metadata=[(k.lower(), v) for k, v in headers.items()])
        except grpc.RpcError as error:
            return error.code().name
    return "OK"

ask, heads = {"HTTP": http, "gRPC": rpc}, ({}, {"Authorization": "Bearer guessed"})
print(json.dumps([[ask[kind](to, what, head) for head in heads] for kind, to, what in json.loads(sys.argv[1])]))
"""
