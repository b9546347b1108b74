"""A small cluster to be broken: real hosts, real Ray, and what a fault needs of them."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nvml
from cluster import AGENT
from hosts import Host, Hosts, wait_for

LAST_LINES = 15
"""What an on-call engineer has: the end of the head's output."""
GO = "/shared/go"
WORKLOAD = ["sh", "-c", f"until test -e {GO}; do sleep 0.1; done"]
"""Runs until :meth:`Lab.finish`."""
RUN = "a-run"


@dataclass(frozen=True)
class Special:
    """How one node is started, where it differs from the others."""

    options: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    before: Sequence[str] = ()
    """A program that executes the command."""
    rank: int | None = None
    """Another rank than its place."""
    size: int | None = None
    run: str = RUN


@dataclass
class Lab:
    """The hosts, and the agents that were started there; agent 0 is the head."""

    hosts: Hosts
    folder: Path
    agents: dict[int, subprocess.Popen[Any]] = field(default_factory=dict)
    mend: Callable[[], object] = lambda: None
    """Called once the head has said what is wrong, before the workload may end: undoes what keeps a node from ending,
    or awaits what else is to happen."""
    at_end: list[Callable[[], object]] = field(default_factory=list)
    """Called once all agents have ended."""
    begun: float = 0.0
    """The later of the last fault and the last node's start (time.monotonic())."""

    def start(
        self,
        *options: str,
        ranks: Sequence[int] | None = None,
        special: Mapping[int, Special] | None = None,
        slurm: bool = False,
        meeting: Sequence[str] = ("--shared-dir=/shared",),
    ) -> None:
        """Start the command on these hosts (all by default), with the same ``options`` and ``meeting`` point."""
        for rank in range(len(self.hosts)) if ranks is None else ranks:
            own = (special or {}).get(rank, Special())
            number, size = rank if own.rank is None else own.rank, own.size or len(self.hosts)
            who = [f"--rank={number}", f"--nodes={size}", f"--run-id={own.run}"]
            env = {"RAY_BOOTSTRAP_LATE_WAIT": "2s", **(self.slurm(number, size) if slurm else {}), **own.env}
            common = ["--num-cpus=1", "--object-store-memory=100Mi", *([] if slurm else who), *meeting]
            argv = [*own.before, *AGENT, *common, *options, *own.options, "--", *WORKLOAD]
            self.agents[rank] = self.hosts[rank].popen(argv, env=env)
        self.begun = time.monotonic()

    @staticmethod
    def slurm(rank: int, size: int) -> dict[str, str]:
        """The variables of an srun step on node-0 to node-<size - 1>; ``HOME`` is on no network file system."""
        names = f"node-[0-{size - 1}]" if size > 1 else "node-0"
        both = {"JOB_ID": "7", "STEP_ID": "0", "NODEID": str(rank), "PROCID": str(rank), "LOCALID": "0"}
        both |= {"STEP_NUM_NODES": str(size), "STEP_NODELIST": names, "JOB_NODELIST": names, "NTASKS": str(size)}
        return {f"SLURM_{name}": value for name, value in both.items()}

    def fault(self, rank: int, *argv: str, env: Mapping[str, str] | None = None) -> None:
        """Run a command on that host that breaks something."""
        self.hosts[rank].run(argv, env=env)
        self.begun = time.monotonic()

    def broken_now(self) -> None:
        """Note that the fault happened just now."""
        self.begun = time.monotonic()

    def drop(self, rank: int, *rules: str) -> None:
        """Let the firewall of that host drop (or ``reject``) incoming packets that match a rule of nft(8)."""
        ready = [rule if rule.split()[-1] in ("drop", "reset") else f"{rule} drop" for rule in rules]
        lines = "\n".join(ready)
        chain = f"table inet lab {{ chain in {{ type filter hook input priority 0;\n{lines}\n}}\n}}\n"
        (self.hosts.shared / "lab.nft").write_text(chain)
        self.fault(rank, "nft", "-f", "/shared/lab.nft")
        (self.hosts.shared / "lab.nft").unlink()

    def nvml(self, description: str) -> dict[str, str]:
        """Return the variables with which NVML says what ``description`` does (tests/nvml.py), on every host."""
        made = nvml.environment(description, self.hosts.shared, {})
        folder = self.hosts.shared / "nvml"
        if not folder.exists():
            folder.mkdir()
            (folder / "libnvidia-ml.so.1").write_bytes((nvml.library_folder() / "libnvidia-ml.so.1").read_bytes())
        return {**made, "LD_LIBRARY_PATH": "/shared/nvml", "NVML_STUB": "/shared/nvml.txt"}

    def munged(self, *ranks: int) -> None:
        """Start munged on these hosts, with one key."""
        key = self.hosts.shared / "munge.key"
        key.write_bytes(b"k" * 64)
        key.chmod(0o400)
        for rank in ranks:
            self.fault(rank, "mkdir", "-m", "755", "-p", "/run/munge")
            files = [f"--{name}-file=/run/munge/munge.{name}" for name in ("log", "pid", "seed")]
            self.hosts[rank].popen(["munged", "--foreground", "--force", "--key-file=/shared/munge.key", *files])
            ready = ["sh", "-c", "until test -S /run/munge/munge.socket.2; do sleep 0.05; done"]
            self.hosts[rank].run(ready)

    def says(self, rank: int, pattern: str, seconds: float = 60) -> None:
        """Wait until that rank's agent has said this."""
        wait_for(lambda: re.search(pattern, self.err(rank)), seconds, f"{pattern!r} from rank {rank}")

    def err(self, rank: int) -> str:
        """Return what that rank's agent has said so far."""
        return str(self.hosts[rank].err(self.agents[rank]))

    def tail(self) -> str:
        """Return the head's last lines."""
        return "\n".join(self.err(0).splitlines()[-LAST_LINES:])

    def named_after(self, pattern: str, limit: float) -> float:
        """Return the seconds from the fault until the head's last lines match; wait up to ``limit`` for it."""
        wait_for(lambda: re.search(pattern, self.tail(), re.DOTALL), limit, f"{pattern!r} in the head's last lines")
        return time.monotonic() - self.begun

    def finish(self) -> None:
        """Let the workload end."""
        (self.hosts.shared / "go").touch()

    def statuses(self, limit: float = 45) -> tuple[int, ...]:
        """Wait until all agents have ended; return their statuses as a shell shows them."""
        wait_for(lambda: all(a.poll() is not None for a in self.agents.values()), limit, "the end of all agents")
        found = [self.agents[rank].returncode for rank in sorted(self.agents)]
        return tuple(128 - status if status < 0 else status for status in found)

    def process(self, rank: int, name: str) -> int:
        """Wait for a process of that host with ``name`` in its command line; return its process id here."""

        def found() -> list[int]:
            host: Host = self.hosts[rank]
            return [p.pid for p in host.pids() if name in p.cmdline.split(" --", 1)[0]]

        return int(wait_for(found, 30, f"{name} on rank {rank}")[0])

    def kill(self, rank: int, name: str, signum: int) -> None:
        """Signal that process of that host."""
        os.kill(self.process(rank, name), signum)
        self.begun = time.monotonic()
