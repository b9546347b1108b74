"""The context that every step of a run receives, and how a run is stopped."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bootstrap import timeouts
from bootstrap.cgroup import OomCount
from bootstrap.errors import BootstrapError, Stopped
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Phase, Verdict
from bootstrap.process import table
from bootstrap.process.children import Children
from bootstrap.process.table import Process
from bootstrap.run.caller import Caller
from bootstrap.run.readiness import Readiness
from bootstrap.run.timeline import Timeline
from bootstrap.settings import Settings

if TYPE_CHECKING:
    from bootstrap.run.metrics import Metrics
    from bootstrap.run.trace import Trace

Tell = Callable[[Verdict, "BootstrapError | None"], Awaitable[None]]
"""Reports to the other nodes how the run ended, with the error of ray-bootstrap if one was the reason."""


Linger = Callable[[], Awaitable[None]]
"""Waits for nodes that come late, once this node has been cleaned up."""


async def _no_linger() -> None:
    """Do nothing: no node can come."""


async def _tell_none(_verdict: Verdict, _error: BootstrapError | None) -> None:
    """Do nothing: before the roll call no other node is connected."""


class Lifecycle:
    """The run's main task on this node, and how it is stopped.

    A run is one task, the *line*. Whatever ends it (a signal, a dead daemon, a lost node) records its reason and
    cancels the task; :mod:`bootstrap.run.shutdown` turns the reason into a verdict.
    """

    def __init__(self) -> None:
        self.identity: NodeIdentity | None = None
        """Who this node is, once that is known."""
        self.reason: BootstrapError | None = None
        """Why the line was cancelled; the first one wins."""
        self.force_stop = asyncio.Event()
        """Set by a second signal, which ends the grace."""
        self.daemon_exited = asyncio.Event()
        """Set when one of Ray's daemons on this node has ended."""
        self.on_signal: Callable[[int], None] | None = None
        """Passes a signal that does not stop the run on to the workload, once there is one."""
        self.tell: Tell = _tell_none
        self.oom_elsewhere: Sequence[str] = ()
        """What the kernel's OOM killer has done on other nodes, as they said when they left; on the head only."""
        self.warned_of_manifest = False
        self.linger: Linger = _no_linger
        self.hurry = asyncio.Event()
        """Set by a second signal, or the first one after the line's end: no more waiting for nodes that come late."""
        self._line: asyncio.Task[Verdict] | None = None
        self._signalled: dict[int | None, float] = {}
        """When each receiver got its first signal."""

    async def run(self, line: Coroutine[object, object, Verdict]) -> asyncio.Task[Verdict]:
        """Run the line until it returns, raises or is cancelled; return its task."""
        self._line = asyncio.ensure_future(line)
        await asyncio.wait([self._line])
        return self._line

    @property
    def running(self) -> bool:
        """Return whether the line is not at its end; it may have been cancelled."""
        return self._line is not None and not self._line.done()

    def stop(self, reason: BootstrapError, receiver: int | None = None) -> None:
        """Cancel the line for this reason, unless it is already ending; a second signal ends the grace.

        :param receiver: which process received the signal, if one is the reason: its pipe, or None for the agent.
        """
        is_second = isinstance(reason, Stopped) and self._is_second(reason, receiver)
        if is_second and (self.reason is not None or not self.running):
            self.hurry.set()
        # A signal is the reason also while the run ends by itself.
        if self.reason is None and (self.running or isinstance(reason, Stopped)):
            self.reason = reason
            if self._line is not None:
                self._line.cancel()
        elif is_second:
            self.force_stop.set()

    def seconds_since_signal(self) -> float:
        """Return the seconds since the first signal that was to stop the run; 0 if there was none."""
        return time.monotonic() - min(self._signalled.values()) if self._signalled else 0.0

    def _is_second(self, signalled: Stopped, receiver: int | None) -> bool:
        """Return whether this is another signal than the one that stopped the run, or the same once more.

        A launcher may signal every process, so the same signal arrives once from each receiver.
        """
        now = time.monotonic()
        first = self._signalled.setdefault(receiver, now)
        same = isinstance(self.reason, Stopped) and self.reason.status == signalled.status
        apart = timeouts.CTRL_C_AGAIN_S if signalled.signum == signal.SIGINT else timeouts.SAME_SIGNAL_S
        return not same or now - first >= apart


@dataclass(frozen=True)
class Context:
    """What every step of a run receives; its fields do not change during the run."""

    settings: Settings
    host: Host
    log: Log
    children: Children
    runtime: RuntimeDir
    oom: OomCount
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    check_only: bool = False
    """Whether the run is a check of all nodes: no Ray, no workload."""
    caller: Caller = field(default_factory=Caller)
    begun: float = field(default_factory=time.monotonic)
    readiness: Readiness = field(default_factory=Readiness)
    timeline: Timeline = field(default_factory=Timeline)
    trace: "Trace | None" = None
    """With ``--trace``."""
    metrics: "Metrics | None" = None
    """With ``--metrics-file``."""

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began on this node."""
        return time.monotonic() - self.begun

    def enter(self, phase: Phase, **facts: object) -> None:
        """Write this node's phase, with other ``facts``, to the state file for ``ray-bootstrap status``."""
        self.readiness.phase = phase
        self.timeline.enter(phase)
        self.set_state(phase=phase.value, **facts)

    def note_quorum(self) -> None:
        """Note that the head has reached its quorum; this node is ready as soon as its own Ray is in the cluster."""
        self.readiness.cluster_stands = True
        self.timeline.quorum = time.monotonic()
        self.set_state()
        if self.trace is not None:
            self.trace.write()

    def set_state(self, **facts: object) -> None:
        """Write ``facts`` to the state file, and whether this node is ready."""
        self.runtime.set_state(ready=self.readiness.update(self.settings.ready_port, self.log), **facts)
        if self.metrics is not None:
            self.metrics.write()

    def set_state_soon(self, **facts: object) -> None:
        """Do so within :data:`timeouts.STATE_FILE_S`, for facts that change often."""
        self.runtime.set_state_soon(**facts)
        if self.metrics is not None:
            self.metrics.write_soon()

    def note_processes(self, processes: Iterable[Process]) -> None:
        """Add processes to the manifest, in case all that could end them is killed."""
        noted = set(map(tuple, self.runtime.manifest.processes))
        if new := {(process.pid, process.started) for process in processes} - noted:
            self.note(processes=sorted(noted | new), pid_scope=table.pid_scope())

    def note(self, **changes: object) -> None:
        """Change fields of the manifest; call it before making what they name."""
        noted = self.runtime.note(dataclasses.replace(self.runtime.manifest, **changes))  # type: ignore[arg-type]
        if not noted and not self.runtime.fault and not self.lifecycle.warned_of_manifest:
            self.lifecycle.warned_of_manifest = True
            what = f"{self.runtime.path} cannot be written: nothing will clean up if this agent is killed"
            self.log.warn(f"{what}; fix: free space in {self.runtime.path.parent}")
