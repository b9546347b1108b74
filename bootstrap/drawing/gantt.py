"""What both forms of the chart share: the rows, and a time axis that leaves out the quiet parts of the workload.

The chart shows how a run came up and how it ended. A workload of hours would squeeze both to nothing, so the axis is
cut where nothing begins or ends on any node; the length of a cut is written there.
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
_MOST_CUTS = 5
_KEPT = 0.05
"""How much of a cut stays on each side, as a part of what is not cut."""
_MOST_LOST = 6
"""Lost nodes that are listed below the chart."""
_ROUND = tuple(factor * 10.0**power for power in range(-4, 12) for factor in (1, 2, 5))
"""Seconds between two ticks."""


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
    """Their first and last seconds; what lies between two pieces is cut out."""
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
        """Yield the left and right end of each part of the span: it has several if it continues behind a cut."""
        for start, end in self.pieces:
            if span.start < end and start < span.end:
                yield self.at(max(start, span.start)), self.at(min(end, span.end))

    def cuts(self) -> Iterator[tuple[float, str]]:
        """Yield the left edge of each cut, and how much time it leaves out."""
        for (_, before), (after, _) in itertools.pairwise(self.pieces):
            length = after - before
            yield self.at(before), f"{clock(length, 1.0 if length > 10 else 0.1)} cut"

    def ticks(self, spacing: float) -> Iterator[tuple[float, str]]:
        """Yield round moments and their texts, at least ``spacing`` apart; one in each piece if it has room."""
        seconds = sum(end - start for start, end in self.pieces)
        least = seconds * spacing / max(1.0, self.width - self.gap * (len(self.pieces) - 1))
        step = next(each for each in _ROUND if each >= least)
        free = -math.inf
        for start, end in self.pieces:
            moments = [(n * step, step) for n in range(math.ceil(start / step), math.floor(end / step) + 1)]
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
    """Return the axis over the whole trace, cut where the workload is quiet for longer than all the rest takes."""
    last, quiet = max(1e-3, *(span.end for span in steps.spans(trace))), _quiet(trace)
    rest = last - sum(end - start for start, end in quiet)
    cut = [(start, end) for start, end in quiet if end - start > rest]
    if len(cut) > _MOST_CUTS:
        cut = [(cut[0][0], cut[-1][1])]
    edges = [0.0]
    for start, end in cut:
        kept = min(max(_KEPT * rest, 1e-3), (end - start) / 3)
        edges += [start + kept, end - kept]
    edges.append(last)
    return Axis(tuple(zip(edges[::2], edges[1::2], strict=True)), width, gap)


def _quiet(trace: Trace) -> list[tuple[float, float]]:
    """Return the parts of the workload in which nothing begins or ends, and every node only waits or is up."""
    if (work := steps.workload(trace)) is None:
        return []
    busy: dict[float, int] = defaultdict(int)
    for span in steps.spans(trace):
        busy[span.start] += span.name not in steps.STILL
        busy[span.end] -= span.name not in steps.STILL
    moments = sorted(busy)
    now = itertools.accumulate(busy[moment] for moment in moments)
    pauses = [pause for pause, count in zip(itertools.pairwise(moments), now, strict=False) if not count]
    return [(start, end) for start, end in pauses if work.start <= start and end <= work.end]


def rows(trace: Trace) -> list[Row]:
    """Return the rows by rank: one for each node; of many, the head and remarkable nodes have their own."""
    nodes, own = trace.nodes, {0, *steps.slowest(trace), *(step.rank for step in steps.to_ready(trace))}
    groups: dict[object, list[Node]] = defaultdict(list)
    for node in nodes:
        course = [[(span.name, bool(span.lost), span.unfinished) for span in lane] for lane in (node.phases, node.ray)]
        alone = len(nodes) <= _EACH or node.rank in own
        groups[node.rank if alone else str(course)].append(node)
    return [_row(group) for group in groups.values()]


def _row(group: Sequence[Node]) -> Row:
    """Return the row of nodes with the same spans: their medians, which keep the order."""

    def median(lanes: Sequence[tuple[Span, ...]]) -> tuple[Span, ...]:
        return tuple(
            dataclasses.replace(
                same[0],
                start=statistics.median(span.start for span in same),
                end=statistics.median(span.end for span in same),
            )
            for same in zip(*lanes, strict=True)
        )

    first, last = group[0].rank, group[-1].rank
    ranks = f"ranks {first}-{last}" if last - first < len(group) else f"{len(group)} of ranks {first}-{last}"
    label = group[0].label if len(group) == 1 else f"{ranks}, median"
    return Row(label, median([node.phases for node in group]), median([node.ray for node in group]), len(group))


def notes(trace: Trace) -> Iterator[str]:
    """Yield what the chart alone does not say: which nodes were lost and why, which are missing, doubtful clocks."""
    lost = [(node, span) for node in trace.nodes for span in node.phases if span.lost]
    for node, span in lost[:_MOST_LOST]:
        yield f"{node.label}: lost at {clock(span.end, 0.1)}: {span.lost}"
    if len(lost) > _MOST_LOST:
        yield f"and {len(lost) - _MOST_LOST} more nodes lost"
    if trace.size is not None and trace.size > len(trace.nodes):
        yield f"{len(trace.nodes)} of {trace.size} nodes are in the trace; the head never saw the others"
    doubtful = max(trace.nodes, key=lambda node: node.uncertainty)
    if doubtful.uncertainty >= steps.DOUBTFUL_S:
        yield f"clocks: {doubtful.label} may be off by {doubtful.uncertainty:.2g} s, the others by less"


def title(trace: Trace) -> str:
    """Return what the run was and how it ended, in one line."""
    attempt = f", attempt {trace.attempt}" if trace.attempt else ""
    size = trace.size or len(trace.nodes)
    status = "still running when this was written" if trace.status is None else f"status {trace.status}"
    end = ", ".join([status] * (status not in trace.reason) + [trace.reason] * bool(trace.reason))
    return f"run {trace.run}{attempt} ({trace.launcher}), {size} {'node' if size == 1 else 'nodes'}: {end}"
