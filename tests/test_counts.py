"""What a node costs, in counts that do not depend on how busy the machine is; the times are in benchmarks/.

tests/test_startup.py counts what is imported before the first child.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

NODES = 3
UNTIL_TOLD = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.1; done"]
ONE_AFTER_THE_OTHER = 1.5
"""Seconds between the nodes' starts, so that the head waits for a while."""


def ours(node: Node) -> list[psutil.Process]:
    """The node's processes that are neither Ray's nor the workload."""
    everything = [node.process.pid, *(p.pid for p in psutil.Process(node.process.pid).children(recursive=True))]
    found = []
    for pid in everything:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process = psutil.Process(pid)
            if any("bootstrap" in word for word in process.cmdline()[:4]):
                found.append(process)
    return found


def wakeups(processes: list[psutil.Process]) -> int:
    """How often their threads have waited for something until now."""
    statuses = [path.read_text() for p in processes for path in Path(f"/proc/{p.pid}/task").glob("*/status")]
    lines = [line for text in statuses for line in text.splitlines() if line.startswith("voluntary_ctxt_switches")]
    return sum(int(line.split()[1]) for line in lines)


def test_processes_questions_and_wakeups(site: Site) -> None:
    nodes = []
    begun = time.monotonic()
    for rank in range(NODES):
        nodes.append(site.rank(rank, NODES, workload=UNTIL_TOLD))
        nodes[-1].says("is up at" if rank == 0 else "waiting until its Ray is up")
        time.sleep(ONE_AFTER_THE_OTHER)
    nodes[0].says("up", where="out")
    waited = time.monotonic() - begun
    for node in nodes:
        node.is_in("running" if node is nodes[0] else "joined")

    # The supervisor, the standby and the agent; what imported Ray is gone.
    assert [len(ours(node)) for node in nodes] == [3] * NODES
    # GCS is asked once at first, once a second, and when the roll call has news: hello, starting, joined.
    assert (site.folder / "cluster" / "asked").stat().st_size <= 1 + waited + 3 * (NODES - 1)

    before, seconds = [wakeups(ours(node)) for node in nodes], 3.0
    time.sleep(seconds)
    rates = [(wakeups(ours(node)) - count) / seconds for node, count in zip(nodes, before, strict=True)]
    assert max(rates) <= 5, f"{rates} a second"

    (site.folder / "go").touch()
    assert [node.wait() for node in nodes] == [0] * NODES
