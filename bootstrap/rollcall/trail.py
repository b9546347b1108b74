"""When a node was in which phase, as its agent says and as the head sees it; ``--trace`` draws it.

A node's times travel as microseconds from the moment when it stamped its hello, which the head knows on its own clock,
give or take :attr:`Trail.clock`'s uncertainty: so no clock that is set during the run, here or there, moves a span.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bootstrap.model import Phase, Span
from bootstrap.rollcall.offset import Offset
from bootstrap.rollcall.wire import Message, number

MOST_SPANS, LONGEST_NAME = 64, 40
"""Spans that the head keeps of each node, and the characters of a name."""
_EARLIEST_S = 7 * 86400.0
"""How long before its hello a node can have begun."""
_ENDING = (Phase.LEFT, Phase.FAILED)


def to_message(spans: Iterable[Span], stamped: float) -> Message:
    """Return the message with these spans; ``stamped`` is when this node stamped its hello, on the spans' clock."""

    def microseconds(time: float) -> int:
        return round((time - stamped) * 1e6)

    said = []
    for span in spans:
        row: dict[str, str | int] = {"name": span.name, "begin": microseconds(span.begin)}
        said.append(row if span.end is None else {**row, "end": microseconds(span.end)})
    return {"t": "spans", "spans": said}


@dataclass(slots=True)
class Trail:
    """What the head knows of a node's time, in seconds on the event loop's clock."""

    clock: Offset
    greeted: float
    """When the node stamped its hello."""
    _said: list[Span] = field(default_factory=list)
    _seen: list[Span] = field(default_factory=list)
    ended: float | None = None
    """When its connection ended, and with it the agent; None while it lasts, and if the head closed it."""

    def note(self, phase: Phase, now: float) -> None:
        """Note the phase that the head has this node in."""
        if phase not in (Phase.LOST, Phase.REFUSED) and len(self._seen) < MOST_SPANS:
            self._seen.append(Span((Phase.ENDING if phase in _ENDING else phase).value, now))

    def hear(self, message: Message, now: float) -> None:
        """Keep the spans that this node reports, up to MOST_SPANS. :raises ValueError: if they are malformed."""
        rows = message.get("spans")
        if not isinstance(rows, list):
            raise ValueError("spans without a list of them")
        for row in rows[: MOST_SPANS - len(self._said)]:
            self._said.append(self._span(row, now))

    def _span(self, row: object, now: float) -> Span:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(name, str) or not name.isprintable():
            raise ValueError("a span without a valid name")
        begin = self._time({"t": "spans", **row}, "begin", now)
        return Span(name[:LONGEST_NAME], begin, self._time({"t": "spans", **row}, "end", now) if "end" in row else None)

    def _time(self, row: Message, name: str, now: float) -> float:
        """Return a time, which can be neither days before the hello nor later than now."""
        return min(now, self.greeted + max(-_EARLIEST_S, number(row, name) / 1e6))

    @property
    def phases(self) -> list[Span]:
        """Return this node's phases in order: those that it reported, or else those that the head saw."""
        said = [span for span in self._said if span.end is None]
        return sorted(said or self._seen, key=lambda span: span.begin)

    @property
    def steps(self) -> list[Span]:
        """Return the steps that it reported: spans with an end of their own."""
        return [span for span in self._said if span.end is not None and span.end >= span.begin]
