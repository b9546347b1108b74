"""Agents on the hosts of :mod:`hosts`, started with the same command line on each, as a launcher would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hosts import Host, Hosts, wait_for

AGENT = (sys.executable, "-m", "bootstrap")
SECONDS = 90.0
"""For anything on this machine, which is slow at times; what matters is asserted by the order of events."""

COUNT = """
import os, sys, ray
ray.init(log_to_driver=False, logging_level="error")
alive = [node for node in ray.nodes() if node["Alive"]]
print("nodes", len(alive), "address", os.environ["RAY_ADDRESS"], flush=True)
sys.exit(int(sys.argv[1]))
"""
"""A workload that uses the cluster and ends with the status that it is given."""


@dataclass
class Agents:
    """The agents of one run, by rank, and when each of them ended."""

    hosts: Sequence[Host]
    processes: list[subprocess.Popen[Any]]
    ended: dict[int, float] = field(default_factory=dict)

    def wait(self, ranks: Iterable[int] | None = None, seconds: float = SECONDS) -> list[int]:
        """The exit statuses of these ranks (all of them by default), in their order."""
        wanted = list(range(len(self.processes))) if ranks is None else list(ranks)

        def done() -> bool:
            for rank in wanted:
                if self.processes[rank].poll() is not None:
                    self.ended.setdefault(rank, time.monotonic())
            return all(rank in self.ended for rank in wanted)

        wait_for(done, timeout=seconds)
        return [self.processes[rank].returncode for rank in wanted]

    def err(self, rank: int) -> str:
        """What this rank's agent has said so far."""
        return self.hosts[rank].err(self.processes[rank])

    def out(self, rank: int) -> str:
        """What this rank's workload has written so far."""
        return self.hosts[rank].out(self.processes[rank])

    def says(self, rank: int, text: str, seconds: float = SECONDS) -> None:
        """Wait until this rank's agent has said ``text``."""
        wait_for(lambda: text in self.err(rank), timeout=seconds)

    def prints(self, rank: int, text: str, seconds: float = SECONDS) -> None:
        """Wait until the workload, on this rank, has printed ``text``."""
        wait_for(lambda: text in self.out(rank), timeout=seconds)

    def kill_at_once(self, rank: int, *names: str) -> float:
        """Kill these of ``supervisor``, ``standby`` and ``agent``, so that none sees another's end; returns when."""
        ours = [p.pid for p in self.hosts[rank].pids() if " -m bootstrap " in p.cmdline]
        chain = dict(zip(("supervisor", "standby", "agent"), ours, strict=True))
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for name in names:
                os.kill(chain[name], signum)
        return time.monotonic()

    def signal(self, rank: int, signum: int) -> float:
        """Send a signal to the agent as the launcher sees it; returns when."""
        self.processes[rank].send_signal(signum)
        return time.monotonic()


def start(
    hosts: Sequence[Host],
    *options: str,
    workload: Sequence[str] = (),
    run: str = "a-run",
    size: int | None = None,
    env: Mapping[str, str] | None = None,
    agent: Sequence[str] = AGENT,
    extra: Mapping[int, Sequence[str]] | None = None,
) -> Agents:
    """The same command on all hosts, numbered in their order; ``extra`` are options of one rank alone."""
    size = len(hosts) if size is None else size
    tail = ["--", *workload] if workload else []

    def argv(rank: int) -> list[str]:
        identity = [f"--rank={rank}", f"--nodes={size}", f"--run-id={run}", "--num-cpus=1"]
        return [*agent, *identity, "--object-store-memory=100Mi", *options, *(extra or {}).get(rank, ()), *tail]

    return Agents(hosts, [host.popen(argv(i), env=env) for i, host in enumerate(hosts)])


def rendezvous(name: str, hosts: Hosts) -> list[str]:
    """Options for one back end; the ``dns`` one needs ``make_hosts(dns=…)`` to serve ``head.ray.test``."""
    return {
        "file": ["--shared-dir=/shared"],
        "dns": ["--rendezvous=dns", "--head-address=head.ray.test"],
        "static": [f"--head-address={hosts[0].ip}"],
    }[name]


def nothing_left(hosts: Sequence[Host], *, shared: bool = True, end: bool = False) -> None:
    """No process, port, socket file or shared-memory file; of Ray's folder only the logs, beside the result; no
    rendezvous record.

    ``shared=False`` leaves the folder that all see out: the run goes on elsewhere, or its head was switched off.
    ``end=True``: there is the record of the end, for a rank that has not come.
    """
    records = hosts[0].run(["find", "/shared", "-type", "f", "-name", "end-*"]).stdout.splitlines()
    assert len(records) == end, records
    for host in hosts:
        assert host.leftovers() == []
        assert host.sockets() == frozenset()
        folders = ["/dev/shm", "/tmp", *(["/shared"] if shared else [])]
        found = host.run(["find", *folders, "-xdev", "-mindepth", "1"]).stdout.splitlines()
        # What a host sees of the machine's own /tmp (the checkout, perhaps, and pytest's folders) is mounted there.
        mounts = [line.split()[1] for line in host.read("/proc/self/mounts").splitlines()]
        foreign = {name for name in found if any(f"{mount}/".startswith(f"{name}/") for mount in mounts)}
        ends = "|/shared/ray-bootstrap-[0-9]+(/end-[^/]*)?" if end else ""
        ours = r"/tmp/ray-bootstrap\.[^/]*(/result\.json|/ray(/session_[^/]*(/logs(/.*)?)?)?)?"
        kept = re.compile(ours + "|/tmp/home.*" + ends)
        assert [name for name in found if name not in foreign and not kept.fullmatch(name)] == []
