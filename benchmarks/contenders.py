"""What is compared: each contender's command line on each node, for the same workload, Ray and options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
Command = Callable[[int, Sequence[str], Sequence[str]], list[str]]
"""(rank, addresses of all nodes, workload) → argv."""

RAY = str(Path(sys.executable).with_name("ray"))


def ours(rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """This program, with the rendezvous that the inline bash uses: a shared folder."""
    identity = [f"--rank={rank}", f"--nodes={len(addresses)}", "--run-id=bench", "--shared-dir=/shared"]
    resources = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=104857600"]
    return [sys.executable, "-m", "bootstrap", *identity, *resources, "--", *workload]


def ours_with_tls(rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """The same, with a certificate for each node; both have a token."""
    argv = ours(rank, addresses, workload)
    return [*argv[:3], "--tls=required", *argv[3:]]


def ours_with_records(rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """The same as the first, with the trace and the metrics."""
    argv = ours(rank, addresses, workload)
    return [*argv[:3], "--trace=/shared/trace.json", "--metrics-file=/tmp/metrics.prom", *argv[3:]]


def inline_bash(rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """See inline.sh."""
    return ["bash", str(HERE / "inline.sh"), str(rank), str(len(addresses)), sys.executable, *workload]


def symmetric_run(_rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """``ray symmetric-run``, which comes with Ray; it knows the head's address from its command line."""
    resources = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=104857600"]
    head = f"{addresses[0]}:6379"
    return [RAY, "symmetric-run", "--address", head, "--min-nodes", str(len(addresses)), *resources, "--", *workload]


def floor(rank: int, addresses: Sequence[str], workload: Sequence[str]) -> list[str]:
    """See floor.sh."""
    known = [str(rank), str(len(addresses)), sys.executable, addresses[0], addresses[rank]]
    return ["bash", str(HERE / "floor.sh"), *known, *workload]


CONTENDERS: dict[str, Command] = {
    "ray-bootstrap": ours,
    "inline bash": inline_bash,
    "symmetric-run": symmetric_run,
    "floor": floor,
    "ray-bootstrap, TLS": ours_with_tls,
    "ray-bootstrap, records": ours_with_records,
}
RIVALS = tuple(name for name in CONTENDERS if not name.startswith("ray-bootstrap, "))
"""Those that are compared if none are named."""

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
