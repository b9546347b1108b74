"""Children: started in sessions of their own, reaped once and in one place, ended by process id, never by name.

The agent makes itself a *child subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER): Ray's daemons, whose starter ends, become
its children, and so does everything that the workload leaves behind. "Ours" is therefore exactly "below us in the
process tree", also for a process that called setsid(2), changed its title or cleared its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_AGAIN = 0.05
"""Seconds between looks at the process table during teardown; a grandchild's end sends us no signal."""

Stream = IO[bytes] | int | None


def become_subreaper() -> None:
    """Orphans below this process become its children instead of those of PID 1."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(frozen=True, slots=True)
class Process:
    """One entry of the process table; ``started`` tells it from a later process with the same id."""

    pid: int
    ppid: int
    state: str
    name: str
    started: int


def read_process(pid: int) -> Process | None:
    """The entry of ``pid`` from /proc/PID/stat (proc_pid_stat(5)), or None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 (thousands of them)
            head, _, tail = stat.read().rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    return Process(pid, int(fields[1]), fields[0], head.partition("(")[2], int(fields[19]))


def descendants(root: int) -> list[Process]:
    """Every living process below ``root``, parents first; zombies are not alive."""
    children: dict[int, list[Process]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (process := read_process(int(entry.name))):
            children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    parents = [root]
    while parents:
        for process in children.get(parents.pop(), ()):
            parents.append(process.pid)
            if process.state not in "ZX":
                found.append(process)
    return found


def send(process: Process, signum: int) -> None:
    """Signal exactly this process: a pidfd cannot come to mean another one that got the same id since."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        fd = os.pidfd_open(process.pid)
        try:
            now = read_process(process.pid)
            if now is not None and now.started == process.started:
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def socket_files(processes: Sequence[Process]) -> list[str]:
    """The UNIX socket files that ``processes`` hold: what stays behind in the file system when they are killed."""
    held: set[str] = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    held.add(os.readlink(fd.path))  # noqa: PTH115 (many)
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:  # noqa: PTH123
            rows = [row.split(maxsplit=7) for row in table]
    except OSError:
        return []
    return [row[7].rstrip("\n") for row in rows if len(row) == 8 and row[7][0] == "/" and f"socket:[{row[6]}]" in held]


def kill_descendants(root: int) -> int:
    """SIGKILL everything below ``root`` and reap it, until nothing is left; returns how many there were.

    Orphans of what was killed become children of ``root`` (a subreaper), so looking again finds them.
    """
    killed: set[int] = set()
    while victims := descendants(root):
        for process in victims:
            send(process, signal.SIGKILL)
            killed.add(process.pid)
        reap_strangers()
        signal.sigtimedwait([signal.SIGCHLD], _LOOK_AGAIN)
    reap_strangers()
    return len(killed)


def reap_strangers() -> None:
    """Collect every child that has ended; only for a process that waits for none of them by itself."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def exit_status(wait_status: int) -> int:
    """A shell's view of a wait status: the exit code, or 128 + the signal's number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


@dataclass(slots=True)
class Child:
    """A child of the agent, leader of its own session and process group."""

    pid: int
    exited: asyncio.Future[int]
    """Its status, 128 + n for signal n."""

    def signal(self, signum: int) -> None:
        """Signal its whole process group; one that has ended is left alone (its id may be another's by now)."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signum)


class Children:
    """All processes below the agent. The only place that waits for processes, so nobody's status is lost."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, Child] = {}
        self._watched: dict[int, int] = {}
        become_subreaper()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start ``argv``; None for a stream means ours.

        :raises OSError: as execvpe(3): FileNotFoundError, PermissionError, and so on.
        """
        popen = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        popen.returncode = 0  # else its destructor would wait for the process, and take the status from us
        child = Child(popen.pid, self._loop.create_future())
        self._known[child.pid] = child
        return child

    def watch(self, process: Process, on_exit: Callable[[], None]) -> None:
        """Call ``on_exit`` when ``process`` has ended, whoever's child it is (pidfd_open(2): it becomes readable)."""
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._loop.call_soon(on_exit)
            return

        def ended() -> None:
            self._unwatch(process.pid)
            on_exit()

        self._watched[process.pid] = fd
        self._loop.add_reader(fd, ended)

    def _unwatch(self, pid: int) -> None:
        fd = self._watched.pop(pid)
        self._loop.remove_reader(fd)
        os.close(fd)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                child = self._known.pop(pid, None)
                if child is not None and not child.exited.done():
                    child.exited.set_result(exit_status(wait_status))

    def alive(self) -> list[Process]:
        """Everything below the agent that lives."""
        return descendants(os.getpid())

    async def end(self, child: Child, grace: float) -> int:
        """SIGTERM to the child's group, SIGKILL after ``grace`` seconds; returns its status."""
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGCONT)
        await asyncio.wait([child.exited], timeout=grace)
        child.signal(signal.SIGKILL)
        return await child.exited

    async def end_all(self, grace: float) -> list[Process]:
        """SIGTERM to everything below us, SIGKILL after ``grace`` seconds; returns what had to be killed."""
        for pid in list(self._watched):
            self._unwatch(pid)
        for process in self.alive():
            send(process, signal.SIGTERM)
        deadline = self._loop.time() + grace
        while (remaining := self.alive()) and self._loop.time() < deadline:  # noqa: ASYNC110 (no event to await)
            await asyncio.sleep(_LOOK_AGAIN)
        killed = remaining
        while remaining:
            for process in remaining:
                send(process, signal.SIGKILL)
            await asyncio.sleep(_LOOK_AGAIN)
            remaining = self.alive()
        return killed
