"""The agent's children: each starts in its own session, is reaped in one place, and ends with its descendants."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bootstrap import timeouts
from bootstrap.process import table
from bootstrap.process.table import Process

Stream = IO[bytes] | int | None


@dataclass(slots=True)
class Child:
    """A child of the agent that leads its own session and process group."""

    pid: int
    exited: asyncio.Future[int]
    """Its exit status; 128 + n if signal n killed it."""
    wait_status: int | None = None
    """As waitpid(2) returned it, which distinguishes a signal from an exit status above 128; None until then."""

    def signal(self, signum: int) -> None:
        """Signal its process group, unless the child has ended: its id may have been reused."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # sudo may have changed its user
                os.killpg(self.pid, signum)


class Children:
    """All processes below the agent. Only this class reaps processes, so that no exit status is lost.

    :param oom_score_adj: of every child (proc_pid_oom_score_adj(5)), which passes it on to its own; above the agent's,
        so that the kernel's OOM killer ends a child first, and the agent says so.
    """

    def __init__(self, oom_score_adj: int | None = None) -> None:
        self._oom_score_adj = oom_score_adj
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, Child] = {}
        self._watched: dict[int, int] = {}
        self._reaped: dict[int, int] = {}
        """The wait statuses of watched processes that were our children."""
        table.become_subreaper()
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
        """Start ``argv`` and return the child; a stream of None is inherited from the agent.

        :raises OSError: as execvpe(3) does: FileNotFoundError, PermissionError, and so on.
        """
        popen = subprocess.Popen(
            argv, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds, start_new_session=True
        )
        popen.returncode = 0  # otherwise Popen's destructor would reap the process and lose its status
        if self._oom_score_adj is not None:
            with contextlib.suppress(OSError):  # it has ended, or changed its user
                Path(f"/proc/{popen.pid}/oom_score_adj").write_text(str(self._oom_score_adj))
        child = Child(popen.pid, self._loop.create_future())
        self._known[child.pid] = child
        return child

    def watch(self, process: Process, on_exit: Callable[[int | None], None]) -> None:
        """Call ``on_exit`` when ``process`` has ended, even if it is not our child (pidfd_open(2)).

        :param on_exit: takes the wait status, or None if it is unknown: another parent has already reaped the process,
            or the kernel hides the status of another parent's zombie.
        """
        try:
            fd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            self._loop.call_soon(on_exit, None)
            return

        def ended() -> None:
            self._reap()  # the loop may call this before it handles SIGCHLD
            self._unwatch(process.pid)
            on_exit(self._reaped.pop(process.pid) if process.pid in self._reaped else _zombie_status(process))

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
                if pid in self._watched:
                    self._reaped[pid] = wait_status
                child = self._known.pop(pid, None)
                if child is not None and not child.exited.done():
                    child.wait_status = wait_status
                    child.exited.set_result(table.exit_status(wait_status))

    def alive(self) -> list[Process]:
        """Return every living process below the agent."""
        return table.descendants(os.getpid())

    def below(self, child: Child) -> list[Process]:
        """Return the child, if it lives, and every living process below it."""
        itself = table.read_process(child.pid) if not child.exited.done() else None
        return [*([itself] if itself else []), *table.descendants(child.pid)]

    async def end_all(
        self, grace: float, last_look: Callable[[Sequence[Process]], None] = lambda _frozen: None
    ) -> list[Process]:
        """Send SIGTERM to every process below the agent, SIGKILL after ``grace`` seconds; return the survivors.

        :param last_look: called with the processes about to be killed, after SIGSTOP, when they create no more files.
        """
        for pid in list(self._watched):
            self._unwatch(pid)
        for process in self.alive():
            table.send(process, signal.SIGTERM)
        deadline = self._loop.time() + grace
        while (remaining := self.alive()) and self._loop.time() < deadline:
            await asyncio.sleep(timeouts.PROCESS_TABLE_LOOK_AGAIN_S)
        for process in remaining:
            table.send(process, signal.SIGSTOP)
        last_look(remaining)
        deadline = self._loop.time() + timeouts.KILL_S
        # A process that forks and exits escapes the look at /proc, but not waitid(2): we are its subreaper.
        while (remaining or table.has_children()) and self._loop.time() < deadline:
            for process in remaining:
                table.send(process, signal.SIGKILL)
            table.kill_group_of_ended_child()
            await asyncio.sleep(timeouts.PROCESS_TABLE_LOOK_AGAIN_S)
            remaining = self.alive()
        return remaining


def _zombie_status(process: Process) -> int | None:
    """Return the wait status of another parent's zombie; None if it is unknown."""
    now = table.read_process(process.pid)
    return now.wait_status if now is not None and now.started == process.started else None
