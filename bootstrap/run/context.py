"""What every step of a run is given, and how a run is stopped."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

from bootstrap import timeouts
from bootstrap.errors import BootstrapError, Stopped
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import Phase, Verdict
from bootstrap.process.children import Children
from bootstrap.settings import Settings

Tell = Callable[[Verdict, "BootstrapError | None"], Awaitable[None]]
"""Tells the other nodes how the run ended; with the error of ours, if one was the reason."""


async def _tell_none(_verdict: Verdict, _error: BootstrapError | None) -> None:
    """Before the roll call there is no other node to tell."""


class Lifecycle:
    """How the run on this node is stopped.

    A run is one task, the *line*. Whatever wants it to end (a signal, a dead daemon, a lost node) records its reason
    and cancels the task where it waits; :mod:`bootstrap.run.shutdown` makes it a verdict.
    """

    def __init__(self) -> None:
        self.reason: BootstrapError | None = None
        """Why the line was cancelled; the first one wins."""
        self.force_stop = asyncio.Event()
        """Set by a second signal: no more grace."""
        self.daemon_exited = asyncio.Event()
        """Set when one of Ray's daemons on this node has ended."""
        self.on_signal: Callable[[int], None] | None = None
        """Passes SIGUSR1 and SIGUSR2 on to the workload, once there is one."""
        self.tell: Tell = _tell_none
        self._line: asyncio.Task[Verdict] | None = None
        self._stopped_at = 0.0

    async def run(self, line: Coroutine[object, object, Verdict]) -> asyncio.Task[Verdict]:
        """Run the line to its end, whatever that is, and return it."""
        self._line = asyncio.ensure_future(line)
        await asyncio.wait([self._line])
        return self._line

    def stop(self, reason: BootstrapError) -> None:
        """End the line for this reason, unless it is ending already; a second signal takes the grace away."""
        now = time.monotonic()
        if self.reason is None and self._line is not None and not self._line.done():
            self.reason, self._stopped_at = reason, now
            self._line.cancel()
        elif isinstance(reason, Stopped):
            same = isinstance(self.reason, Stopped) and self.reason.status == reason.status
            if not (same and now - self._stopped_at < timeouts.SAME_SIGNAL_S):
                self.force_stop.set()


@dataclass(frozen=True)
class Context:
    """What every step of a run is given; none of it is replaced while the run lasts."""

    settings: Settings
    host: Host
    log: Log
    children: Children
    runtime: RuntimeDir
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the run began here."""
        return time.monotonic() - self.begun

    def enter(self, phase: Phase, **facts: object) -> None:
        """Note how far this node is, for ``ray-bootstrap status``."""
        self.runtime.set_state(phase=phase.value, **facts)

    def note(self, **changes: object) -> None:
        """Write down what will have to be removed, before it is made (fields of the manifest)."""
        self.runtime.note(dataclasses.replace(self.runtime.manifest, **changes))  # type: ignore[arg-type]
