"""What both forms of the chart share: the rows, and a time axis that leaves out the workload's quiet middle.

The chart is about the way in and the way out. A workload of hours would squeeze both to nothing, so the axis is cut
where nothing begins or ends on any node; what is cut out has its length written there.
"""

import dataclasses
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootstrap.drawing import steps
from bootstrap.drawing.reading import Node, Span, Trace

_EACH = 16
"""Up to so many nodes have a row each."""
_MOST_OWN, _MOST_LOST, _MOST_GROUPS = 12, 6, 8
"""Rows of single nodes, of lost ones among these, and of groups, among more nodes than that."""
_MUCH = 3.0
"""A pause of the workload is cut if it is longer than all the rest, another one if it is this many times as long."""
_MOST_TICKS = 100
_KEPT = 0.05
"""This part of the rest stays on each side of a cut."""
_MOST_CUTS = 5
_ROUND = tuple(factor * 10.0**power for power in range(-4, 9) for factor in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Row:
    """A node, or the median of several that did the same."""

    label: str
    phases: tuple[Span, ...]
    ray: tuple[Span, ...]
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Axis:
    """Time from left to right, in a form's own unit of length."""

    pieces: tuple[tuple[float, float], ...]
    """Seconds from and to; what lies between two of them is cut out."""
    width: float
    gap: float
    """The width of a cut."""

    def at(self, seconds: float) -> float:
        """Return where this moment is; one that is cut out is in the middle of the cut."""
        scale = (self.width - self.gap * (len(self.pieces) - 1)) / sum(end - start for start, end in self.pieces)
        left = 0.0
        for start, end in self.pieces:
            if seconds < start:
                return max(0.0, left - self.gap / 2)
            if seconds <= end:
                return left + (seconds - start) * scale
            left += (end - start) * scale + self.gap
        return self.width

    def stretches(self, span: Span) -> Iterator[tuple[float, float]]:
        """Yield from where to where the span is drawn: more than once if it goes on behind a cut."""
        for start, end in self.pieces:
            if span.start < end and start < span.end:
                yield self.at(max(start, span.start)), self.at(min(end, span.end))

    def cuts(self) -> Iterator[tuple[float, str]]:
        """Yield for each cut where its left edge is, and the time that it leaves out."""
        for (_, before), (after, _) in itertools.pairwise(self.pieces):
            length = after - before
            yield self.at(before), f"{clock(length, 1.0 if length > 10 else 0.1)} cut"

    def ticks(self, spacing: float) -> Iterator[tuple[float, str]]:
        """Yield where a round moment is, and its text, at least ``spacing`` apart; one in each piece if it has room."""
        seconds = sum(end - start for start, end in self.pieces)
        least = seconds * spacing / max(1.0, self.width - self.gap * (len(self.pieces) - 1))
        step = next((each for each in _ROUND if each >= least), _ROUND[-1])
        free = -math.inf
        for start, end in self.pieces:
            first, last = math.ceil(start / step), math.floor(end / step)
            moments = [(number * step, step) for number in range(first, min(last, first + _MOST_TICKS) + 1)]
            for moment, precision in moments or [(start, step / 10)]:
                if (x := self.at(moment)) >= free:
                    free = x + spacing * 0.999
                    yield x, clock(moment, precision)


def clock(seconds: float, step: float = 1.0) -> str:
    """Return a moment as ``9.5 s`` or ``1:02:03``, as exactly as multiples of ``step`` need."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if seconds < 120:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds, digits), 60)
    hours, minutes = divmod(int(minutes), 60)
    last = f"{rest:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours}:{minutes:02}:{last}" if hours else f"{minutes}:{last}"


def axis(trace: Trace, width: float, gap: float) -> Axis:
    """Return the axis over the whole trace."""
    pauses, work = _pauses(trace), steps.workload(trace)
    last = max(1e-3, *(span.end for span in steps.spans(trace)))
    quiet = [each for each in pauses if work and work.start <= each[0] and each[1] <= work.end]
    rest = last - sum(end - start for start, end in quiet)
    cut = [each for each in quiet if each[1] - each[0] > rest]
    if len(cut) > _MOST_CUTS or sum(end - start for start, end in quiet if end - start <= rest) > _MUCH * rest:
        cut = [(quiet[0][0], quiet[-1][1])]  # too much happened: what was lost meanwhile is written below the chart
    still = max((each for each in pauses if each not in quiet), key=lambda each: each[1] - each[0], default=(0.0, 0.0))
    if (length := still[1] - still[0]) > _MUCH * (rest - length):
        cut, rest = sorted([*cut, still]), rest - length
    edges = [0.0]
    for start, end in cut:
        kept = min(max(_KEPT * rest, 1e-3), (end - start) / 3)
        edges += [start + kept, end - kept]
    edges.append(last)
    return Axis(tuple(zip(edges[::2], edges[1::2], strict=True)), width, gap)


def _pauses(trace: Trace) -> list[tuple[float, float]]:
    """Return from when to when nothing begins or ends, and no node does anything but wait or be up."""
    busy: dict[float, int] = defaultdict(int, {0.0: 0})
    for span in steps.spans(trace):
        busy[span.start] += span.name not in steps.STILL
        busy[span.end] -= span.name not in steps.STILL
    moments = sorted(busy)
    now = itertools.accumulate(busy[moment] for moment in moments)
    return [pause for pause, count in zip(itertools.pairwise(moments), now, strict=False) if not count]


def rows(trace: Trace) -> list[Row]:
    """Return the rows by rank: of each node, or among many of the head, of the remarkable ones, and of the others."""
    nodes = trace.nodes
    if len(nodes) <= _EACH:
        return [_row(node) for node in nodes]
    remarkable = {0, *steps.slowest(trace), *(step.rank for step in steps.to_ready(trace))}
    remarkable |= set([node.rank for node in nodes if _lost(node)][:_MOST_LOST])
    own = [node for node in nodes if node.rank in remarkable][:_MOST_OWN]
    shown = {node.rank for node in own}
    alike: dict[object, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.rank not in shown:
            alike[tuple((s.name, s.lost, s.unfinished) for s in (*node.phases, *node.ray)), len(node.ray)].append(node)
    groups = sorted(alike.values(), key=len, reverse=True)[:_MOST_GROUPS]
    ordered = sorted([*groups, *([node] for node in own)], key=lambda group: group[0].rank)
    return [_row(group[0]) if len(group) == 1 else _median(group) for group in ordered]


def _lost(node: Node) -> bool:
    return any(span.lost for span in node.phases)


def _row(node: Node) -> Row:
    return Row(node.label, node.phases, node.ray)


def _median(group: Sequence[Node]) -> Row:
    """Return the median of nodes with the same spans. Medians of what is in order are in order."""

    def lane(lanes: Sequence[tuple[Span, ...]]) -> tuple[Span, ...]:
        return tuple(
            dataclasses.replace(
                same[0],
                start=statistics.median(span.start for span in same),
                end=statistics.median(span.end for span in same),
            )
            for same in zip(*lanes, strict=True)
        )

    first, last = group[0].rank, group[-1].rank
    label = (
        f"{len(group)} of ranks {first}-{last}, median"
        if last - first >= len(group)
        else f"ranks {first}-{last}, median"
    )
    return Row(label, lane([n.phases for n in group]), lane([n.ray for n in group]), len(group))


def hidden(trace: Trace, drawn: Sequence[Row]) -> int:
    """Return how many nodes have no row and no part in one."""
    return len(trace.nodes) - sum(row.nodes for row in drawn)


def notes(trace: Trace, drawn: Sequence[Row]) -> Iterator[str]:
    """Yield what the chart alone does not say: nodes that are lost, missing or not drawn, and doubtful clocks."""
    lost = [(node, span) for node in trace.nodes for span in node.phases if span.lost]
    for node, span in lost[:_MOST_LOST]:
        yield f"{node.label}: lost at {clock(span.end, 0.1)}: {span.lost}"
    if len(lost) > _MOST_LOST:
        yield f"and {len(lost) - _MOST_LOST} more nodes lost"
    if trace.size is not None and trace.size > len(trace.nodes):
        yield f"{len(trace.nodes)} of {trace.size} nodes are in the trace; the head never saw the others"
    if more := hidden(trace, drawn):
        yield f"{more} more nodes, each unlike the others, are not drawn"
    doubtful = max(trace.nodes, key=lambda node: node.uncertainty)
    if doubtful.uncertainty >= steps.DOUBTFUL_S:
        yield f"clocks: {doubtful.label} may be off by {doubtful.uncertainty:.2g} s, the others by less"


def title(trace: Trace) -> str:
    """Return what the run was and how it ended, in a line."""
    attempt = f", attempt {trace.attempt}" if trace.attempt else ""
    size = trace.size or len(trace.nodes)
    ended = "still running when this was written" if trace.status is None else f"status {trace.status}"
    told = [ended] * (ended not in trace.reason) + [trace.reason] * bool(trace.reason)
    return f"run {trace.run}{attempt} ({trace.launcher}), {size} {'node' if size == 1 else 'nodes'}: {', '.join(told)}"
