"""When this node entered each phase, and how long its Ray's steps took: for ``--trace`` and ``--metrics-file``."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bootstrap.model import Phase, Span

STARTING = "starting"
"""From the start of the process that the launcher sees to the agent's line: the interpreter and its imports."""


@dataclass
class Timeline:
    """This node's time on the monotonic clock, in seconds: a clock that is set during the run moves nothing.

    :param started: when the process that the launcher sees was started.
    """

    started: float = field(default_factory=time.monotonic)
    epoch: float = field(default_factory=lambda: time.time() - time.monotonic())
    """Added to a time here it gives seconds since the epoch: the difference of the two clocks at one moment."""
    phases: list[Span] = field(default_factory=list)
    """Each ends where the next one begins."""
    steps: list[Span] = field(default_factory=list)
    """Steps beside the phases, each with an end: ``import ray``, ``GCS``, ``raylet``, ``verdict``."""
    quorum: float | None = None
    """When the head's quorum was reached, as far as this node knows."""
    _follow: Callable[[Sequence[Span]], None] | None = None
    _unsaid: list[Span] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin(Span(STARTING, self.started))

    def enter(self, phase: Phase) -> None:
        """Begin a phase, unless this node is already in it."""
        if self.phases[-1].name != phase.value:
            self._begin(Span(phase.value, time.monotonic()))
            self._say()

    def add(self, step: str, begin: float, end: float | None = None) -> None:
        """Add a step from ``begin`` to ``end``, or to now; a follower hears of it with the next phase."""
        span = Span(step, begin, max(begin, time.monotonic() if end is None else end))
        self.steps.append(span)
        self._unsaid.append(span)

    def follow(self, hear: Callable[[Sequence[Span]], None]) -> None:
        """Call ``hear`` with all spans so far, and from now on with the new ones at each change of phase."""
        self._follow, self._unsaid = hear, [*self.phases, *self.steps]
        self._say()

    def seconds(self, now: float) -> dict[str, float]:
        """Return how long this node has been in each phase, by its name."""
        ends = [*(span.begin for span in self.phases[1:]), now]
        spent: dict[str, float] = {}
        for span, end in zip(self.phases, ends, strict=True):
            spent[span.name] = spent.get(span.name, 0.0) + end - span.begin
        return spent

    def _begin(self, phase: Span) -> None:
        self.phases.append(phase)
        self._unsaid.append(phase)

    def _say(self) -> None:
        if self._follow is not None:
            self._follow(self._unsaid)
            self._unsaid = []
