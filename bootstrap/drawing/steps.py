"""Where the seconds went: the longest of each step, and the steps that the start of the workload waited for."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bootstrap.drawing.reading import Node, Span, Trace
from bootstrap.model import Phase

DOUBTFUL_S = 0.05
"""A clock is mentioned if its uncertainty is at least this."""
_BRIEF_S = 0.05
"""Shorter steps are left out of the line on the critical path."""
_WAITS = (Phase.SEARCHING, Phase.WAITING, Phase.WAITING_FOR_DASHBOARD)
_UP = (Phase.JOINED, Phase.RUNNING)
STILL = frozenset(phase.value for phase in (*_WAITS, *_UP))
"""Phases in which a node does nothing but wait, or be up."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of one node and its seconds; ``median`` is that of all nodes with this step."""

    name: str
    seconds: float
    rank: int
    median: float = 0.0


def workload(trace: Trace) -> Span | None:
    """Return the head's span of the workload, or None if it never began."""
    return next((span for span in trace.nodes[0].phases if span.name == Phase.RUNNING), None)


def spans(trace: Trace) -> Iterator[Span]:
    """Yield what all nodes did."""
    for node in trace.nodes:
        yield from (*node.phases, *node.ray)


def longest(trace: Trace) -> list[Step]:
    """Return each step of the node that took longest for it, in the order in which the steps first began."""
    found: dict[str, list[tuple[float, int]]] = {}
    by_rank = ((span, node.rank) for node in trace.nodes for span in (*node.phases, *node.ray))
    for span, rank in sorted(by_rank, key=lambda each: each[0].start):
        if span.name != Phase.JOINED:  # as long as the workload
            found.setdefault(span.name, []).append((span.seconds, rank))
    return [
        Step(name, *max(each, key=lambda one: (one[0], -one[1])), statistics.median(seconds for seconds, _ in each))
        for name, each in found.items()
    ]


def slowest(trace: Trace) -> set[int]:
    """Return the ranks that took clearly longer for some step than the median of the nodes."""
    return {step.rank for step in longest(trace) if step.seconds > 1.2 * step.median + _BRIEF_S}


def to_ready(trace: Trace) -> list[Step]:
    """Return the critical path to the workload's start, or to the end if it never began, in order.

    Walks back from there: a head that waits was waiting for the last node that joined before; a worker that searches
    or waits was waiting for the head, as long as that was not ready itself.
    """
    head, work = trace.nodes[0], workload(trace)
    node, now = head, work.start if work else head.phases[-1].end
    steps: list[Step] = []
    while span := _before(node, now):
        joined = _last_joined(trace, span, now) if node is head and span.name == Phase.WAITING else None
        if joined:
            other, when = joined
            steps.append(Step("quorum" if work else span.name, now - when, head.rank))
            node, now = other, when
            continue
        leads = _before(head, now) if node is not head and span.name in _WAITS else None
        if leads and (leads.name not in _WAITS or leads.start > span.start):
            when = now if leads.name not in _WAITS else leads.start
            steps.append(Step(span.name, now - when, node.rank))
            node, now = head, when
            continue
        steps.extend(_parts(node, span, now))
        now = span.start
    if now > 0:
        steps.append(Step("began late", now, node.rank))
    return steps[::-1]


def _before(node: Node, now: float) -> Span | None:
    """Return the phase in which the node was right before this moment."""
    return next((span for span in reversed(node.phases) if span.start < now), None)


def _last_joined(trace: Trace, waited: Span, now: float) -> tuple[Node, float] | None:
    """Return the worker that joined last while the head waited, and when."""
    joined = (
        (node, span.start)
        for node in trace.nodes[1:]
        for span in node.phases
        if span.name in _UP and waited.start < span.start <= now
    )
    return max(joined, key=lambda each: each[1], default=None)


def _parts(node: Node, span: Span, now: float) -> Iterator[Step]:
    """Yield the parts of a span up to ``now``, the last one first: the start of Ray is split into what Ray did."""
    until = min(now, span.end)
    for part in reversed(node.ray) if span.name == Phase.STARTING_RAY else ():
        start, end = max(part.start, span.start), min(part.end, until)
        if start < end:
            yield Step(span.name, until - end, node.rank)
            yield Step(part.name, end - start, node.rank)
            until = start
    yield Step(span.name, until - span.start, node.rank)


def in_words(trace: Trace) -> Iterator[str]:
    """Yield a line on the way in, and one on the way out."""
    work, shown = workload(trace), [step for step in to_ready(trace) if step.seconds >= _BRIEF_S]
    path = ", ".join(f"{step.name} {step.seconds:.1f} s" + f" (rank {step.rank})" * bool(step.rank) for step in shown)
    final = trace.nodes[0].phases[-1]
    never = f"{'not ready yet' if final.unfinished else 'never ready, over'} after {final.end:.1f} s"
    ready = f"ready after {work.start:.1f} s" if work else never
    yield f"{ready}: {path}" if path else ready
    last = max(trace.nodes, key=lambda node: node.phases[-1].end)
    if work and not work.unfinished:
        out = last.phases[-1].end - work.end
        yield f"the workload took {work.seconds:.1f} s; {out:.1f} s later the last node was gone (rank {last.rank})"


def table(trace: Trace) -> Iterator[tuple[str, str, str, str]]:
    """Yield the headings, then for each step the longest time, the median of the nodes, and who took longest."""
    labels = {node.rank: node.label for node in trace.nodes}
    yield "where the seconds went", "longest", "median", "on"
    for step in longest(trace):
        name = "workload" if step.name == Phase.RUNNING else step.name
        yield name, f"{step.seconds:.2f} s", f"{step.median:.2f} s", labels[step.rank]
