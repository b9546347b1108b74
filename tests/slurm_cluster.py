"""A real Slurm on the hosts of :mod:`hosts`: slurmd on each but the last, which has slurmctld and submits the jobs.

All of it lives in the hosts and in one folder of the tests: its own munge key and slurm.conf, state and spool on the
hosts' own /run, and for each host a folder in the freezer's hierarchy of control groups (proctrack/cgroup, as on most
sites), which goes with it. This machine's own Slurm and munge, if it has them, are not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hosts import Host, Hosts, make_hosts, transcripts, wait_for

CPUS, MEMORY = 4, 4000
"""Of a node, in slurm.conf: what this machine really has does not matter (config_overrides)."""
SECONDS = 150.0
"""For a job with four Ray nodes on a slow machine."""
_PYTHON = {str(Path(__file__).parent.parent), sys.prefix, sys.base_prefix, *filter(None, sys.path)}

_PREPARE = """
set -e
mkdir -p /run/munge /run/slurm/state /run/slurm/spool
(umask 077 && cat "$0/munge.key" >/run/munge/key)
# A folder of its own in the freezer's hierarchy is this host's whole hierarchy.
mount -t tmpfs rb-cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/freezer
mount -t cgroup -o freezer rb-freezer /sys/fs/cgroup/freezer
mkdir -p "/sys/fs/cgroup/freezer/$1"
mount --bind "/sys/fs/cgroup/freezer/$1" /sys/fs/cgroup/freezer
"""
_OPEN = """
set -e
closed=$0 n=0
for folder; do n=$((n + 1)); mkdir "/run/open-$n"; mount --rbind "$folder" "/run/open-$n"; done
mount -t tmpfs -o mode=755 rb-open "$closed"
n=0
for folder; do n=$((n + 1)); mkdir -p "$folder"; mount --rbind "/run/open-$n" "$folder"; done
"""
"""Puts an empty folder in the place of one that other users may not enter, with only these of its folders in it."""
_FORGET = """
mkdir "$0/freezer" && mount -t cgroup -o freezer rb-freezer "$0/freezer"
find "$0/freezer/$1" -depth -type d -exec rmdir {} +
"""
_CONF = """\
ClusterName=test
SlurmctldHost={controller.name}({controller.ip})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
PlugStackConfig={folder}/plugstack.conf
ReturnToService=2
MailProg=/bin/true
# Two settings that sites have and that a script must not depend on.
KillOnBadExit=1
WaitTime=5
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


@dataclass(repr=False)
class Slurm:
    """A Slurm that is up."""

    hosts: Hosts
    folder: Path
    """Seen by all hosts at this very path; the jobs run in ``folder/jobs``."""
    before: dict[str, tuple[frozenset[int], frozenset[int]]] = field(default_factory=dict)
    """What runs and listens on each host without any job."""

    def __repr__(self) -> str:
        return f"<Slurm on {len(self.hosts)} hosts>"

    @property
    def nodes(self) -> list[Host]:
        """Those with a slurmd."""
        return list(self.hosts)[:-1]

    @property
    def controller(self) -> Host:
        """The one with slurmctld, where jobs are submitted."""
        host: Host = self.hosts[-1]
        return host

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """One of Slurm's commands, on the controller; its standard output."""
        return self.controller.run(argv, env={**self.env, **(env or {})}).stdout

    @property
    def env(self) -> dict[str, str]:
        """With it Slurm's commands find their configuration."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def submit(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """``sbatch`` with these words; the job's number."""
        return self.run("sbatch", "--parsable", f"--chdir={self.folder}/jobs", *argv, env=env).strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "--oneliner", "show", "job", number)))

    def wait(self, number: str, *states: str, seconds: float = SECONDS) -> dict[str, str]:
        """The job, as soon as it is in one of these states; by default in one that ends it, on all its nodes."""
        wanted = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
        job = {}

        def reached() -> bool:
            job.update(self.job(number))
            return job["JobState"] in wanted

        wait_for(reached, timeout=seconds, what=f"{' or '.join(wanted)} of job {number}")
        return job

    def output(self, number: str) -> str:
        """What the job has written so far."""
        files = list((self.folder / "jobs").glob(f"*-{number}.out"))
        return files[0].read_text(errors="replace") if files else ""

    def prints(self, number: str, text: str, times: int = 1, seconds: float = SECONDS) -> None:
        """Wait until the job has written ``text``; the end of the job ends the wait."""

        def there() -> bool:
            return self.output(number).count(text) >= times or self.job(number)["JobState"] in ("FAILED", "COMPLETED")

        wait_for(there, timeout=seconds, what=f"{text!r} in the output of job {number}")
        assert self.output(number).count(text) >= times, self.output(number)

    def nothing_runs(self, seconds: float = 10) -> None:
        """No process and no port of a job on any node; Slurm's own need a moment, after a lost link some tries more."""
        try:
            wait_for(lambda: not self._more(), timeout=seconds)
        except TimeoutError:
            raise AssertionError(f"a job left running: {self._more()}") from None

    def nothing_left(self) -> None:
        """Nor a socket file or shared-memory file; of Ray's folders only the logs."""
        self.nothing_runs()
        kept = re.compile(r"/tmp/ray-bootstrap\.[^/]*/(ray/session_[^/]*(/logs/.*)?|(result|setup)\.json)|/tmp/home.*")
        for host in self.hosts:
            files = host.run(["find", "/dev/shm", "/shared", "/tmp", "-xdev", "-not", "-type", "d"]).stdout.split()
            left = [name for name in files if not kept.fullmatch(name)]
            assert not left, f"{host.name}: {left}"

    def tidy(self) -> None:
        """For a test that kills an agent, which could then not clear up."""
        for host in self.nodes:
            host.run(["sh", "-c", "rm -rf /tmp/ray*"])

    def processes(self, host: Host) -> list[str]:
        """The command lines of what a job has running on this host."""
        pids, _ = self.before[host.name]
        return [p.cmdline for p in host.leftovers() if p.pid not in pids]

    def crash(self, host: Host) -> None:
        """Kills all that runs on this host for jobs, and stops its slurmd until ``repair``."""
        for process in host.leftovers():
            if process.pid not in self.before[host.name][0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            elif process.cmdline.startswith("slurmd "):
                os.kill(process.pid, signal.SIGSTOP)

    def repair(self, host: Host) -> None:
        """Lets slurmd on this host continue, and waits until all nodes can take jobs."""
        for process in host.leftovers():
            if process.cmdline.startswith("slurmd "):
                os.kill(process.pid, signal.SIGCONT)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Waits until all nodes are up, and without a job."""
        idle = ["idle"] * len(self.nodes)
        try:
            wait_for(lambda: _states(self) == idle, timeout=60, what="slurmd idle on all nodes")
        except TimeoutError as error:
            logs = "\n".join(f"--- {title}\n{text}" for title, text in self.transcripts())
            raise RuntimeError(f"{error}: {_states(self)}\n{logs}") from None

    def empty(self) -> None:
        """Ends all jobs and removes their output."""
        self.run("scancel", "--user=root")
        wait_for(lambda: not self.run("squeue", "--noheader"), timeout=60, what="an empty queue")
        for file in (self.folder / "jobs").iterdir():
            file.unlink()

    def _more(self) -> list[object]:
        left = {host.name: (self.processes(host), host.sockets() - self.before[host.name][1]) for host in self.hosts}
        return [(name, *more) for name, more in left.items() if any(more)]

    def transcripts(self) -> Iterator[tuple[str, str]]:
        """(title, end of the text) of each job's output and of the daemons' logs, for the report of a failed test."""
        for path in sorted((self.folder / "jobs").glob("*.out")):
            yield path.name, path.read_text(errors="replace")[-6000:]
        for title, text in transcripts(self.hosts):
            if "slurm" in title:
                yield title, text[-2000:]


@contextlib.contextmanager
def slurm_on_hosts(base: Path, nodes: int = 4, conf: str = "") -> Iterator[Slurm]:
    """Starts the hosts and a Slurm on them, which see this repository and Python; ends with everything gone.

    ``conf`` are further lines of slurm.conf; of a setting that is there twice Slurm takes the last.
    """
    folder = base / "slurm"
    (folder / "jobs").mkdir(parents=True)
    (folder / "plugstack.conf").touch()
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(uuid.uuid4().bytes * 8)
    base.chmod(0o755)
    (folder / "jobs").chmod(0o1777)  # for all users, as a scratch folder is
    visible = [*_PYTHON, str(base)]
    mine = f"rb-{uuid.uuid4().hex}"
    try:
        with make_hosts(nodes + 1, base=base / "hosts", visible=visible) as hosts:
            for host in hosts:
                host.run(["sh", "-c", _PREPARE, str(folder), f"{mine}/{host.name}"])
                open_to_all(host, visible)
            slurm = Slurm(hosts, folder)
            name_the_hosts(slurm)
            _start(slurm, conf)
            yield slurm
    finally:
        subprocess.run(["unshare", "--mount", "sh", "-c", _FORGET, str(folder), mine], check=False, capture_output=True)


def open_to_all(host: Host, folders: Iterable[str]) -> None:
    """Lets every user of a host reach these folders: an interpreter may lie below /root."""
    below: dict[str, list[str]] = {}
    for folder in sorted({form for path in folders if Path(path).is_dir() for form in (path, os.path.realpath(path))}):
        closed = (str(p) for p in reversed(Path(folder).parents) if not p.stat().st_mode & stat.S_IXOTH)
        # A host has a /tmp and a /run of its own, where all are open.
        if (first := next(closed, None)) and not first.startswith(("/tmp/", "/run/")):
            below.setdefault(first, []).append(folder)
    for closed_folder, needed in below.items():
        host.run(["sh", "-c", _OPEN, closed_folder, *needed])


def name_the_hosts(slurm: Slurm, own: Mapping[int, str] | None = None) -> None:
    """Writes every host's /etc/hosts anew: the names of the others, as each site has them, and ``own`` (by number)."""
    for host in slurm.hosts:
        others = [f"{other.ip} {other.name}" for other in slurm.hosts if other is not host]
        mine = [f"{own[host.index]} {host.name}"] if own and host.index in own else []
        # In place: a bind mount shows the file, not the name.
        (host.base / "hosts").write_text("\n".join(["127.0.0.1 localhost", *mine, *others, ""]))


def _start(slurm: Slurm, more: str) -> None:
    lines = [f"NodeName={n.name} NodeAddr={n.ip} CPUs={CPUS} RealMemory={MEMORY} State=UNKNOWN" for n in slurm.nodes]
    conf = slurm.folder / "slurm.conf"
    text = _CONF.format(controller=slurm.controller, folder=slurm.folder, nodes="\n".join(lines))
    conf.write_text(f"{text}{more}\n")
    (slurm.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
    files = [f"--{name}=/run/munge/{name}" for name in ("pid-file", "log-file", "seed-file")]
    for host in slurm.hosts:
        host.popen(["munged", "--foreground", "--force", "--num-threads=1", "--key-file=/run/munge/key", *files])
    for host in slurm.hosts:
        wait_for(lambda host=host: host.run(["munge", "-n"], check=False).returncode == 0, timeout=30, what="munged")  # type: ignore[misc]
    slurm.controller.popen(["slurmctld", "-D", "-i", "-f", str(conf)])
    for host in slurm.nodes:
        host.popen(["slurmd", "-D", "-f", str(conf)])
    slurm.wait_until_idle()
    for host in slurm.hosts:
        slurm.before[host.name] = (frozenset(p.pid for p in host.leftovers()), host.sockets())


def _states(slurm: Slurm) -> list[str]:
    try:
        return slurm.run("sinfo", "--Node", "--partition=main", "--noheader", "--format=%T").split()
    except RuntimeError:  # slurmctld does not answer yet
        return []
