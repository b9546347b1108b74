"""``up``: start the agent behind the shell, return when the cluster stands, and leave the agent there."""

import contextlib
import dataclasses
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from bootstrap import timeouts
from bootstrap.errors import Stopped, UsageError
from bootstrap.files import runtime_dir
from bootstrap.files.runtime_dir import AGENT_LOG
from bootstrap.host import Host
from bootstrap.launch.foreground import check_address_space, supervise_agent
from bootstrap.launchers import attached
from bootstrap.model import Phase
from bootstrap.process import signals, table
from bootstrap.run.caller import Caller
from bootstrap.settings import Settings
from bootstrap.switches import Switches

STARTERS = (
    "slurmstepd",
    "mpirun",
    "mpiexec",
    "mpiexec.hydra",
    "orterun",
    "orted",
    "prterun",
    "prted",
    "hydra_pmi_proxy",
    "flux-shell",
    "pbs_mom",
    "sge_shepherd",
)
"""Names of the processes by which launchers start a program on a node (/proc/PID/comm). When that ends, they end what
it has left: ``proctrack`` of Slurm (https://slurm.schedmd.com/proctrack_plugins.html), and the others alike."""


def up(settings: Settings, host: Host, switches: Switches) -> int:
    """Start or join the cluster, and return while the agent stays.

    :returns: on the head 0 once the quorum stands; on a worker the run's status at its end, or with ``--detach`` 0 once
        it has joined; the error's status if it does not come to that.
    :raises UsageError: where the agent could not stay, or with a workload.
    """
    faults = list(_impossible(settings, switches))
    if faults:
        raise UsageError(faults, hint="docs/scripts.md has scripts that go on after `ray-bootstrap up`")
    check_address_space()
    # A shell that has used a cluster, perhaps an earlier one of the same script, has its address; `up` starts a Ray.
    env = {name: value for name, value in host.env.items() if name not in attached.ROW.any_of}
    return _Start(settings, dataclasses.replace(host, env=env), detach=switches.detach).wait()


def _impossible(settings: Settings, switches: Switches) -> Iterator[str]:
    """Yield a fault for each reason why the agent cannot stay behind."""
    if settings.workload:
        yield "up takes no workload: it returns when the cluster stands; put the command after it, or leave `up` out"
    if settings.attach != "auto":
        yield f"--attach={settings.attach} with up: that Ray is up; leave out one of them"
    for state in runtime_dir.running():
        same = settings.rank == state.get("rank") if settings.rank is not None else settings.role == state.get("role")
        if same and settings.run_id is not None and settings.run_id == state.get("run_id"):
            what = f"run {settings.run_id!r} is up here already ({state.get('role')}, pid {state['pid']})"
            yield f"{what}; `ray-bootstrap env` uses it, `ray-bootstrap down` ends it"
    parent = table.read_process(os.getppid()) if os.getppid() else None
    if os.getpid() == 1:
        what = "`ray-bootstrap up` is PID 1: everything ends with it when it returns"
        yield f"{what}; start a shell: bash -c 'ray-bootstrap up && python train.py; ray-bootstrap down --status $?'"
    elif parent is not None and parent.name in STARTERS:
        what = f"{parent.name} (pid {parent.pid}) started `ray-bootstrap up`: it ends everything here when that returns"
        yield f"{what}; without `up`, `srun ray-bootstrap` stays; or start a script that calls `up` and then goes on"
    elif parent is None and not switches.detach:
        yield "a process outside of this container called `ray-bootstrap up`, so its end cannot be seen; add --detach"


class _Start:
    """The agent's processes as they start, as ``up`` sees them."""

    def __init__(self, settings: Settings, host: Host, *, detach: bool) -> None:
        self._ready, tell = os.pipe()
        caller = _caller(tell, detach=detach)
        runtime = runtime_dir.make()
        self._log = runtime.path / AGENT_LOG if detach and not runtime.fault else None
        # Opened once: after the run's end any user may take the folder's name.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._log_fd = log = None if self._log is None else os.open(self._log, flags, 0o600)
        self._supervisor = os.fork()
        if self._supervisor == 0:
            _leave_shell(log, {tell, caller.command, caller.shell, runtime.lock})
            os._exit(supervise_agent(settings, host, runtime, caller=caller))
        os.close(tell)
        self._shown = 0

    def wait(self) -> int:
        """Return 0 when the agent says so, or the status with which it ends; forward signals meanwhile."""
        # The kernel sends SIGIO when there is something to read (fcntl(2), F_SETOWN).
        fcntl.fcntl(self._ready, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._ready, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        waited = signals.forwarded() | {signal.SIGCHLD, signal.SIGIO}
        while True:
            if self._is_ready():
                self._follow()
                if self._log is not None:
                    print(f"ray-bootstrap: the agent stays; its log is {self._log}", file=sys.stderr)
                return 0
            ended, wait_status = os.waitpid(self._supervisor, os.WNOHANG)
            self._follow()
            if ended:
                return table.exit_status(wait_status)
            received = signal.sigtimedwait(waited, timeouts.FOLLOW_LOG_S if self._log else timeouts.UP_LOOK_AGAIN_S)
            if received is not None and received.si_signo not in (signal.SIGCHLD, signal.SIGIO):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._supervisor, received.si_signo)

    def _is_ready(self) -> bool:
        try:
            return bool(os.read(self._ready, 1))
        except BlockingIOError:
            return False

    def _follow(self) -> None:
        """Show what a detached agent has logged meanwhile."""
        while self._log_fd is not None and (new := os.pread(self._log_fd, 65536, self._shown)):
            self._shown += len(new)
            with contextlib.suppress(OSError):
                os.write(2, new)


def _caller(ready: int, *, detach: bool) -> Caller:
    """Return what the agent is to know of this process and its parent. :raises Stopped: if that has just ended."""
    phases = (Phase.RUNNING, Phase.JOINED) if detach else (Phase.RUNNING,)
    command, pid = os.pidfd_open(os.getpid()), os.getppid()
    if detach:
        return Caller(phases, ready, command)
    parent = table.read_process(pid)
    name = f"{parent.name if parent else '?'} (pid {pid})"
    with contextlib.suppress(ProcessLookupError):
        shell = os.pidfd_open(pid)
        if os.getppid() == pid:  # or it has ended, and another process may have its number
            return Caller(phases, ready, command, shell, name)
    raise Stopped(signal.SIGHUP, f"{name}, which called `ray-bootstrap up`, has ended")


def _leave_shell(log: int | None, kept: set[int]) -> None:
    """Enter a session of its own, without the shell's terminal and descriptors but standard error.

    :param log: takes the place of standard error.
    :param kept: descriptors that stay open.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd, source in ((0, null), (1, null), (2, 2 if log is None else log)):
        os.dup2(source, fd)
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)
