"""Trace files as a head writes them, for the tests of their drawing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

EPOCH = 1_763_840_000.0
"""Seconds; the traces begin here."""

Times = Sequence[tuple[str, float]]
"""Names with their ends, in seconds; each begins where the one before ends."""

HEAD: Times = [
    ("starting", 0.4),
    ("preparing", 1),
    ("starting-ray", 5),
    ("waiting", 8),
    ("running", 308),
    ("ending", 309),
]
HEAD_RAY: Times = [("", 0.6), ("import ray", 2.4), ("GCS", 3.4), ("raylet", 5)]


def worker(joined: float, gone: float = 308.6, *, late: float = 0.0) -> tuple[Times, Times]:
    """The phases of a worker whose Ray joined and that was gone at these moments, and what its Ray did."""
    begun = [("", late or 0.2), ("starting", late + 0.5), ("preparing", late + 1.1), ("searching", late + 1.2)]
    released = max(5.1, late + 1.3)
    phases = [*begun, ("waiting", released), ("starting-ray", joined), ("joined", 308.1), ("ending", gone)]
    return phases, [("", late + 0.6), ("import ray", late + 4), ("", max(late + 4, released)), ("raylet", joined)]


def spans(rank: int, times: Times, lane: int, **last: Any) -> list[dict[str, Any]]:
    """One node's events of a lane: 0 its phases, 1 its Ray; a pause has no name. ``last``: args of the last one."""
    events, start = [], 0.0
    for name, end in times:
        at = {"ts": round((EPOCH + start) * 1e6), "dur": round((end - start) * 1e6)}
        event = {"ph": "X", "name": name, "cat": ("phase", "ray")[lane], "pid": rank, "tid": lane, **at, "args": {}}
        events += [event] if name else []
        start = end
    events[-1]["args"] = last
    return events


def node(rank: int, phases: Times, ray: Times = (), name: str = "", **last: Any) -> list[dict[str, Any]]:
    """One node's events."""
    called = name or f"rank {rank} (node-{rank})" + ", head" * (rank == 0)
    named = {"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": called}}
    return [named, *spans(rank, phases, 0, **last), *(spans(rank, ray, 1) if ray else [])]


def trace(*nodes: list[dict[str, Any]], events: Sequence[Mapping[str, Any]] = (), **other: Any) -> bytes:
    """The file; ``other`` replaces facts of the run."""
    facts = {
        "format": "ray-bootstrap 1",
        "version": "0.1.0",
        "run": "job-1",
        "attempt": 0,
        "launcher": "slurm",
        "nodes": len(nodes),
        "status": 0,
        "source": "workload",
        "reason": "the workload ended with status 0",
        "clocks": {"1": {"offset_s": 0.0012, "uncertainty_s": 0.0004}},
        **other,
    }
    each = [event for one in nodes for event in one]
    return json.dumps({"displayTimeUnit": "ms", "otherData": facts, "traceEvents": [*each, *events]}).encode()


def quorum(at: float, name: str = "quorum") -> dict[str, Any]:
    """A moment of the whole run."""
    return {"ph": "i", "name": name, "s": "g", "pid": 0, "tid": 0, "ts": round((EPOCH + at) * 1e6)}


def usual() -> bytes:
    """Three nodes; rank 2 was last to join."""
    nodes = [node(0, HEAD, HEAD_RAY), node(1, *worker(6.9)), node(2, *worker(7.8, 308.9))]
    return trace(*nodes, events=[quorum(7.9)])
