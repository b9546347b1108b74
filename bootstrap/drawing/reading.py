"""Read a trace file, whose format docs/trace.md has: Chrome's trace events, and the run's facts in ``otherData``."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap.errors import UsageError
from bootstrap.model import TRACE_FORMAT
from bootstrap.parsers import quoted

_MAX_MICROSECONDS = 1e17
"""The year 5138."""
_WRITE_ONE = "`ray-bootstrap --trace FILE -- WORKLOAD` writes one, at the quorum and at the end"


@dataclass(frozen=True, slots=True)
class Span:
    """What a node did for some time. Times are in seconds since the first moment of the trace, by the head's clock."""

    name: str
    start: float
    end: float
    lost: str = ""
    """Why the head counted the node as lost at the end of this span; empty: it did not."""
    unfinished: bool = False
    """It was not over when the trace was written."""

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Node:
    """A node's spans. Within ``phases``, and within ``ray``, they are in order and do not overlap."""

    rank: int
    label: str
    phases: tuple[Span, ...]
    ray: tuple[Span, ...]
    uncertainty: float = 0.0
    """Seconds by which its clock's offset to the head's may be wrong."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A run as its head recorded it."""

    run: str
    attempt: int
    launcher: str
    size: int | None
    status: int | None
    """None if the run was not over."""
    reason: str
    nodes: tuple[Node, ...]
    """By rank; the first is the head, rank 0."""
    marks: tuple[tuple[str, float], ...]
    """Moments of the whole run, such as the quorum."""


def read(path: str) -> Trace:
    """Return the trace in this file, or for ``-`` in standard input. :raises UsageError: saying what is wrong."""
    source = "standard input" if path == "-" else path
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError([f"{source}: {error.strerror}"], hint=_WRITE_ONE) from None
    return parse(raw, source)


def parse(raw: bytes, source: str) -> Trace:
    """Return the trace in these bytes. :raises UsageError: quoting what was found, and saying what was expected."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        begins = quoted(raw[:60].decode(errors="replace"), 40)
        fault = f"not JSON ({error}): its {len(raw)} bytes begin with {begins}; expected a trace, in Chrome's format"
        raise UsageError([f"{source}: {fault}"], hint=_WRITE_ONE) from None
    facts = document.get("otherData") if isinstance(document, dict) else None
    if not isinstance(facts, dict) or "format" not in facts:
        what = f"a list of {len(document)}" if isinstance(document, list) else "JSON"
        fault = f"{what} without otherData.format, so not ours (`ray timeline` writes such); expected {TRACE_FORMAT!r}"
        hint = f"https://ui.perfetto.dev opens any Chrome trace; {_WRITE_ONE}"
        raise UsageError([f"{source}: {fault}"], hint=hint)
    if (found := facts["format"]) != TRACE_FORMAT:
        by = f"written by ray-bootstrap {_clean(facts.get('version', '?'))}"
        hint = "draw it with the version that wrote it: pip install ray-bootstrap==VERSION"
        raise UsageError([f"{source}: format {quoted(str(found))}, {by}; expected {TRACE_FORMAT!r}"], hint=hint)
    try:
        return _trace(document, facts)
    except (ValueError, RecursionError) as error:
        raise UsageError([f"{source}: {error}"], hint="use the file as the head wrote it") from None


def _trace(document: Mapping[str, Any], facts: Mapping[str, Any]) -> Trace:
    events, found = _expect(document, "traceEvents", list), _Found()
    for number, event in enumerate(events):
        try:
            _sort(event, found)
        except ValueError as error:
            raise ValueError(f"traceEvents[{number}]: {error}") from None
    if 0 not in found.phases:
        raise ValueError(f"none of its {len(events)} events is a phase of the head; expected one with pid 0")
    zero = min(span.start for each in (*found.phases.values(), *found.ray.values()) for span in each)
    nodes = (
        Node(
            rank,
            found.labels.get(rank, f"rank {rank}"),
            _in_order(phases, zero),
            _in_order(found.ray.get(rank, ()), zero),
            _uncertainty(facts.get("clocks"), rank),
        )
        for rank, phases in sorted(found.phases.items())
    )
    return Trace(
        run=_clean(facts.get("run", "?")),
        attempt=_integer(facts, "attempt") or 0,
        launcher=_clean(facts.get("launcher", "?")),
        size=_integer(facts, "nodes"),
        status=_integer(facts, "status"),
        reason=_clean(facts.get("reason") or "", 300),
        nodes=tuple(nodes),
        marks=tuple(sorted((name, max(0.0, at - zero)) for name, at in found.marks)),
    )


@dataclass(frozen=True)
class _Found:
    """The events by what they are, and by rank."""

    labels: dict[int, str] = field(default_factory=dict)
    phases: dict[int, list[Span]] = field(default_factory=dict)
    ray: dict[int, list[Span]] = field(default_factory=dict)
    marks: list[tuple[str, float]] = field(default_factory=list)


def _sort(event: Any, found: _Found) -> None:
    """Add an event to what was found; skip what this version does not know."""
    kind, rank, name = (_expect(event, *each) for each in (("ph", str), ("pid", int), ("name", str)))
    if rank < 0:
        raise ValueError(f"pid is {quoted(str(rank))}; expected a rank")
    arguments = event.get("args") if isinstance(event.get("args"), dict) else {}
    lane = {"phase": found.phases, "ray": found.ray}.get(str(event.get("cat")))
    if kind == "M" and name == "process_name":
        found.labels[rank] = _clean(_expect(arguments, "name", str))
    elif kind == "i":
        found.marks.append((_clean(name), _seconds(event, "ts")))
    elif kind == "X" and lane is not None:
        start, unfinished = _seconds(event, "ts"), arguments.get("unfinished") is True
        end, lost = start + _seconds(event, "dur"), _clean(arguments.get("lost") or "", 300)
        lane.setdefault(rank, []).append(Span(_clean(name), start, end, lost, unfinished))


def _in_order(spans: Iterable[Span], zero: float) -> tuple[Span, ...]:
    """Return the spans in order, with times from ``zero`` on; each begins no earlier than the one before ends."""
    ordered: list[Span] = []
    now = 0.0
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        start = max(now, span.start - zero)
        now = max(start, span.end - zero)
        ordered.append(Span(span.name, start, now, span.lost, span.unfinished))
    return tuple(ordered)


def _expect(found: Any, key: str, kind: type) -> Any:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key} is {quoted(json.dumps(value))}; expected {kind.__name__}")
    return value


def _seconds(event: Mapping[str, Any], key: str) -> float:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_MICROSECONDS:
        raise ValueError(f"{key} is {quoted(json.dumps(value))}; expected microseconds")
    return float(value) / 1e6


def _integer(facts: Mapping[str, Any], key: str) -> int | None:
    return None if facts.get(key) is None else int(_expect(facts, key, int))


def _uncertainty(clocks: Any, rank: int) -> float:
    entry = clocks.get(str(rank)) if isinstance(clocks, dict) else None
    value = entry.get("uncertainty_s") if isinstance(entry, dict) else None
    return float(value) if isinstance(value, float | int) and 0 <= value <= _MAX_MICROSECONDS else 0.0


def _clean(value: Any, longest: int = 60) -> str:
    """Return at most ``longest`` characters of a text, with escapes for what would steer a terminal or break XML."""
    text = str(value)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
