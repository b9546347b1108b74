"""The process that called ``up``: when ``up`` returns to it, and what its end means for the run."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from bootstrap import timeouts
from bootstrap.errors import BootstrapError, Stopped
from bootstrap.model import Phase

_FIX = "trap 'ray-bootstrap down --status $?' EXIT in that script; or up --detach, for a cluster that outlives it"


@dataclass
class Caller:
    """What an agent behind a shell knows of it; the default is an agent in the foreground, which has none."""

    phases: Collection[Phase] = ()
    """``up`` returns when this node enters one of them."""
    ready: int = -1
    """The end of a pipe: a byte in it lets ``up`` return."""
    command: int = -1
    """A pidfd of ``up``."""
    shell: int = -1
    """A pidfd of the process that called it; -1 if its end does not matter."""
    name: str = ""
    """That process in words."""
    _stop: Callable[[BootstrapError], None] = field(default=lambda _reason: None, repr=False)

    def watch(self, stop: Callable[[BootstrapError], None]) -> None:
        """Stop the run when the calling process ends, or when ``up`` ends before it has returned."""
        self._stop = stop
        for pidfd, what in (
            (self.shell, f"{self.name}, which called `ray-bootstrap up`, has ended without `ray-bootstrap down`"),
            (self.command, "`ray-bootstrap up` was killed before it returned"),
        ):
            if pidfd >= 0:
                asyncio.get_running_loop().add_reader(pidfd, self._ended, pidfd, what)

    def end_of_stay(self) -> str:
        """Return in words what a cluster without a workload waits for."""
        if not self.phases:
            return "it is stopped"
        return "`ray-bootstrap down`" + (f", or until {self.name} ends" if self.name else "")

    def note(self, phase: Phase) -> None:
        """Let ``up`` return if this phase is one that it waits for."""
        if phase not in self.phases or self.ready < 0:
            return
        asyncio.get_running_loop().remove_reader(self.command)
        with contextlib.suppress(BrokenPipeError):  # it has been killed, and its caller may live on
            os.write(self.ready, b"\n")
        os.close(self.ready)
        self.ready = -1

    def _ended(self, pidfd: int, what: str) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(pidfd)
        # Whoever ends a job signals all of its processes: the agent's own signal is the reason then, if it comes soon.
        reason = Stopped(signal.SIGHUP, what)
        reason.hint = _FIX if pidfd == self.shell else ""
        loop.call_later(timeouts.DAEMON_OR_SIGNAL_S, self._stop, reason)
