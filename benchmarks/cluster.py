"""From start to ready, and from the workload's end to the last node's: contenders side by side.

    sudo .venv/bin/python benchmarks/cluster.py ready --nodes 1 2 4 --rounds 5 --save benchmarks/results/ready.json
    sudo .venv/bin/python benchmarks/cluster.py ready --nodes 2 --late 0:5 --only ray-bootstrap floor
    sudo .venv/bin/python benchmarks/cluster.py release --nodes 2 --rounds 1
    sudo .venv/bin/python benchmarks/cluster.py head-loss --nodes 2 --rounds 1
    sudo .venv/bin/python benchmarks/cluster.py idle --nodes 2
    sudo .venv/bin/python benchmarks/cluster.py traffic --nodes 2 --only ray-bootstrap "ray-bootstrap, TLS"

Runs on hosts made of namespaces (bootstrap/namespaces/), so it needs root. The contenders run in turn, A B C A B C, so
that a drift of the machine meets all of them alike; ratios are taken round by round, to the floor or else to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from contenders import CONTENDERS, ENVIRONMENT, RIVALS
from hosts import Hosts, make_hosts, wait_for

REPOSITORY = Path(__file__).parent.parent
MOST = 180.0
"""Seconds for anything to happen."""


@dataclass
class Cluster:
    """One contender's processes on its hosts."""

    hosts: Hosts
    processes: list[subprocess.Popen[Any]]
    begun: float
    """Epoch seconds at which the last node was started."""

    def stamp(self, name: str) -> float:
        """When the workload wrote the file ``name``."""
        path = self.hosts.shared / name
        wait_for(
            lambda: path.exists() and path.read_text().endswith("\n"), timeout=MOST, what=f"{name} of the workload"
        )
        return float(path.read_text())

    def ended(self, ranks: Sequence[int]) -> Iterator[float]:
        """Epoch seconds at which each of these nodes' launchers was gone."""
        gone: dict[int, float] = {}

        def look() -> bool:
            for rank in ranks:
                if rank not in gone and self.processes[rank].poll() is not None:
                    gone[rank] = time.time()
            return len(gone) == len(ranks)

        wait_for(look, timeout=MOST, what="end of the nodes")
        return (gone[rank] for rank in ranks)


def launch(name: str, nodes: int, workload: Sequence[str], late: tuple[int, float] | None, base: Path) -> Cluster:
    """Start a contender on fresh hosts; ``late`` is a rank and the seconds by which it starts after the others."""
    visible = [str(REPOSITORY), sys.prefix, sys.base_prefix]
    hosts = make_hosts(nodes, base=base, visible=visible, shm_size="512m")
    addresses = [host.ip for host in hosts]
    order = sorted(range(nodes), key=lambda rank: late is not None and rank == late[0])
    processes: dict[int, subprocess.Popen[Any]] = {}
    for rank in order:
        if late is not None and rank == late[0]:
            time.sleep(late[1])
        argv = CONTENDERS[name](rank, addresses, workload)
        # As a container's entrypoint: what the launcher leaves behind goes with it.
        processes[rank] = hosts[rank].popen_as_pid1(argv, env=ENVIRONMENT, cwd=str(REPOSITORY))
    return Cluster(hosts, [processes[rank] for rank in range(nodes)], time.time())


def shell(seconds: float, then: str = "true") -> list[str]:
    """The workload: says when it starts, runs ``then``, waits, says when it ends."""
    stamp = "date +%s.%N > /shared/{0}.new && mv /shared/{0}.new /shared/{0}"
    return ["sh", "-c", f"{stamp.format('started')}; {then}; sleep {seconds}; {stamp.format('ended')}"]


def ready(name: str, nodes: int, late: tuple[int, float] | None, base: Path) -> dict[str, float]:
    """Seconds from the last node's start to the workload's start; to a task's end on every node; to the dashboard."""
    cluster = launch(name, nodes, shell(600, then=f"{sys.executable} {Path(__file__).with_name('use.py')}"), late, base)
    try:
        stamps = {"ready": "started", "a task on every node": "used", "dashboard": "dashboard"}
        return {what: cluster.stamp(stamp) - cluster.begun for what, stamp in stamps.items()}
    finally:
        cluster.hosts.close()


def release(name: str, nodes: int, _late: object, base: Path) -> dict[str, float]:
    """Seconds from the workload's end to the end of each node's launcher."""
    cluster = launch(name, nodes, shell(3), None, base)
    try:
        end = cluster.stamp("ended")
        gone = [at - end for at in cluster.ended(range(nodes))]
        statuses = [process.returncode for process in cluster.processes]
        return {"head gone": gone[0], "last worker gone": max(gone[1:] or gone), "worst status": max(statuses)}
    finally:
        cluster.hosts.close()


def head_loss(name: str, nodes: int, _late: object, base: Path) -> dict[str, float]:
    """Seconds from the death of everything on the head to the end of the last worker's launcher."""
    cluster = launch(name, nodes, shell(600), None, base)
    try:
        cluster.stamp("started")
        time.sleep(2)
        killed = time.time()
        # What a machine that is lost takes along: everything of that node.
        for process in cluster.hosts[0].leftovers():
            with contextlib.suppress(ProcessLookupError):  # gone with another one
                os.kill(process.pid, signal.SIGKILL)
        return {"last worker gone": max(at - killed for at in cluster.ended(range(1, nodes)))}
    finally:
        cluster.hosts.close()


LAUNCHERS = ("-m bootstrap ", "bootstrap.raynode.child_main", "symmetric-run", "/inline.sh", "/floor.sh", "/ray start")
"""Marks of the contenders' own processes in a command line; everything else is Ray's own or the workload."""


def idle(name: str, nodes: int, _late: object, base: Path) -> dict[str, float]:
    """PSS of everything that is neither Ray's own process nor the workload, and its CPU over the minute before."""
    cluster = launch(name, nodes, shell(600), None, base)
    try:
        cluster.stamp("started")
        time.sleep(5)
        before = [_launcher(host) for host in cluster.hosts]
        time.sleep(60)
        after = [_launcher(host) for host in cluster.hosts]
        megabytes = [sum(pss for pss, _ in host.values()) / 1024 for host in after]
        cpu = [
            sum(host[pid][1] - first.get(pid, (0, 0))[1] for pid in host)
            for host, first in zip(after, before, strict=True)
        ]
        ticks = os.sysconf("SC_CLK_TCK")
        return {
            "MB on the head": megabytes[0],
            "MB on a worker": max(megabytes[1:] or megabytes),
            "CPU % of a core": max(cpu) / ticks / 60 * 100,
            "processes": max(len(host) for host in after),
        }
    finally:
        cluster.hosts.close()


def _launcher(host: Any) -> dict[int, tuple[int, int]]:
    """PID → (PSS in kB, CPU in ticks) of the launcher's processes on a host."""
    found = {}
    for process in host.leftovers():
        if any(mark in process.cmdline for mark in LAUNCHERS):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            found[process.pid] = (pss, int(fields[11]) + int(fields[12]))
    return found


def traffic(name: str, nodes: int, _late: object, base: Path) -> dict[str, float]:
    """Milliseconds of a call to an actor on another node, calls per second if all are sent first, MB/s of a fetch."""
    workload = shell(600, then=f"{sys.executable} {Path(__file__).with_name('traffic.py')}")
    cluster = launch(name, nodes, workload, None, base)
    try:
        figures = {"call (ms)": "call", "calls per second": "burst", "fetch (MB/s)": "fetch"}
        return {what: cluster.stamp(file) for what, file in figures.items()}
    finally:
        cluster.hosts.close()


MEASURES = {"ready": ready, "release": release, "head-loss": head_loss, "idle": idle, "traffic": traffic}


def main() -> None:
    """Run what was asked for, print every sample and a summary."""
    parser = argparse.ArgumentParser(description="Compare ways to bring up a Ray cluster.")
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--nodes", type=int, nargs="+", default=[2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(RIVALS))
    parser.add_argument("--late", help="RANK:SECONDS by which a node starts after the others")
    parser.add_argument("--save", type=Path, help="add the samples to this JSON file")
    asked = parser.parse_args()
    late = (int(asked.late.split(":")[0]), float(asked.late.split(":")[1])) if asked.late else None

    rows: list[dict[str, Any]] = []
    for nodes in asked.nodes:
        for turn in range(asked.rounds):
            for name in asked.only:
                with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as folder:
                    values = MEASURES[asked.measure](name, nodes, late, Path(folder) / "hosts")
                rows.append({"measure": asked.measure, "late": asked.late, "nodes": nodes, "round": turn, "name": name})
                rows[-1] |= {key: round(value, 3) for key, value in values.items()}
                print(json.dumps(rows[-1]), flush=True)
    if asked.save:
        asked.save.parent.mkdir(exist_ok=True)
        old = json.loads(asked.save.read_text()) if asked.save.exists() else []
        asked.save.write_text("[\n" + ",\n".join(json.dumps(row) for row in [*old, *rows]) + "\n]\n")
    print("\n".join(summary(rows)))


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A Markdown table: median and range of every figure, and the ratio to the floor or the first, round by round."""
    known = {"measure", "late", "nodes", "round", "name"}
    names = list(dict.fromkeys(row["name"] for row in rows))
    base = "floor" if "floor" in names else names[0]
    yield f"| nodes | figure | contender | median | range | ÷ {base} |"
    yield "|---|---|---|---|---|---|"
    for nodes in dict.fromkeys(row["nodes"] for row in rows):
        mine = [row for row in rows if row["nodes"] == nodes]
        for figure in dict.fromkeys(key for row in mine for key in row if key not in known):
            floors = {row["round"]: row[figure] for row in mine if row["name"] == base and figure in row}
            for name in names:
                samples = {row["round"]: row[figure] for row in mine if row["name"] == name and figure in row}
                spread = f"{min(samples.values()):.2f}–{max(samples.values()):.2f}"
                ratios = [value / floors[turn] for turn, value in samples.items() if floors.get(turn)]
                ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
                middle = statistics.median(samples.values())
                yield f"| {nodes} | {figure} | {name} | {middle:.2f} | {spread} | {ratio} |"


if __name__ == "__main__":
    main()
