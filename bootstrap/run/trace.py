"""``--trace FILE``: the phases of each node, in the Chrome trace event format (docs/trace.md)."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bootstrap import __version__, timeouts
from bootstrap.files.output import Output
from bootstrap.log import Log
from bootstrap.model import TRACE_FORMAT, NodeIdentity, Phase, Role, Span, Verdict
from bootstrap.preflight.folders import FIX_TRACE
from bootstrap.rollcall.member import Member
from bootstrap.run.timeline import Timeline

_AGENT, _RAY = 0, 1
"""The threads of a node: its phases; the steps of its Ray."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A node in the file; its times are in seconds on the head's monotonic clock."""

    rank: int
    name: str
    phases: Sequence[Span]
    steps: Sequence[Span]
    ended: float | None
    """When its last phase ended; None if it has not."""
    last: Mapping[str, object]
    """Arguments of the last phase."""


def events(row: Row, epoch: float, now: float, status: int | None = None) -> Iterator[Event]:
    """Yield a node's events.

    :param epoch: added to a time in the row it gives seconds since the epoch.
    :param now: the end of a phase that has none yet.
    :param status: the workload's, if it has ended.
    """

    def at(seconds: float) -> int:
        return round((epoch + seconds) * 1e6)

    def meta(what: str, tid: int, **args: object) -> Event:
        return {"ph": "M", "name": what, "pid": row.rank, "tid": tid, "args": args}

    def span(name: str, kind: str, tid: int, begin: float, end: float, args: Mapping[str, object]) -> Event:
        where = {"pid": row.rank, "tid": tid, "ts": at(begin), "dur": at(end) - at(begin)}
        return {"ph": "X", "name": name, "cat": kind, **where, "args": dict(args)}

    yield meta("process_name", _AGENT, name=row.name)
    yield meta("process_sort_index", _AGENT, sort_index=row.rank)
    yield meta("thread_name", _AGENT, name="agent")
    yield meta("thread_name", _RAY, name="Ray")
    ends = [*(each.begin for each in row.phases[1:]), now if row.ended is None else row.ended]
    for each, end in zip(row.phases, ends, strict=True):
        args: dict[str, object] = {}
        if each.name == Phase.RUNNING.value and status is not None:
            args["status"] = status
        if each is row.phases[-1]:
            args.update(row.last if row.ended is not None or row.last else {"unfinished": True})
        yield span(each.name, "phase", _AGENT, each.begin, max(each.begin, end), args)
    for step in row.steps:
        yield span(step.name, "ray", _RAY, step.begin, step.begin if step.end is None else step.end, {})


def row_of(member: Member) -> Row | None:
    """Return a worker's row; None if it was never admitted."""
    trail = member.trail
    if trail is None:
        return None
    last = {"lost": member.detail} if member.phase is Phase.LOST else {}
    ended = None if trail.ended is None else max([trail.ended, *(span.begin for span in trail.phases)])
    return Row(member.rank, member.name, trail.phases, trail.steps, ended, last)


class Trace:
    """Writes the file on the head, or on an attached node: at the quorum, and at the end.

    :param host: this node's name.
    :param identity: returns who this node is, once that is known.
    """

    def __init__(
        self, path: Path, timeline: Timeline, host: str, identity: Callable[[], NodeIdentity | None], log: Log
    ) -> None:
        self._timeline, self._host, self._identity, self._log = timeline, host, identity, log
        self._output = Output(path, lambda why: log.warn(f"--trace cannot be written: {why}; fix: {FIX_TRACE}"))
        self.members: Callable[[], Iterable[Member]] = tuple
        """Returns the other nodes."""

    def write(self, verdict: Verdict | None = None) -> None:
        """Write what is known so far, in a thread; with ``verdict`` if the run has ended. A worker writes nothing."""
        identity = self._identity()
        if identity is None or identity.role is Role.WORKER:
            return
        members = sorted(self.members(), key=lambda member: member.rank)
        document = self._document(identity, members, verdict)
        self._output.put(lambda: json.dumps(document).encode() + b"\n")

    async def finish(self, verdict: Verdict) -> None:
        """Write it for the last time; wait for that at most :data:`timeouts.SHARED_FOLDER_S`, and say where it is."""
        self.write(verdict)
        if await self._output.flush(timeouts.SHARED_FOLDER_S):
            self._log.say(f"when each node was in which phase: {self._output.path}; https://ui.perfetto.dev opens it")

    def _document(self, identity: NodeIdentity, members: Sequence[Member], verdict: Verdict | None) -> Event:
        timeline, now = self._timeline, time.monotonic()
        who = identity.role.value if identity.role is Role.DRIVER else "head"
        name = f"rank {identity.rank or 0} ({self._host}), {who}"
        own = Row(identity.rank or 0, name, timeline.phases, timeline.steps, None if verdict is None else now, {})
        status = verdict.status if verdict is not None and verdict.source == "workload" else None
        found = list(events(own, timeline.epoch, now, status))
        for row in filter(None, map(row_of, members)):
            found += events(row, timeline.epoch, now)
        if timeline.quorum is not None:
            where = {"pid": own.rank, "tid": _AGENT, "ts": round((timeline.epoch + timeline.quorum) * 1e6)}
            found.append({"ph": "i", "name": "quorum", "s": "g", **where})
        clocks = {
            str(member.rank): {"offset_s": member.trail.clock.seconds, "uncertainty_s": member.trail.clock.uncertainty}
            for member in members
            if member.trail is not None
        }
        about = {"format": TRACE_FORMAT, "version": __version__, "run": identity.run_id, "attempt": identity.attempt}
        about |= {"launcher": identity.launcher, "nodes": identity.size or 1 + len(members)}
        ended = dict.fromkeys(("status", "source", "reason")) if verdict is None else asdict(verdict)
        other = {**about, **ended, "clocks": clocks}
        return {"displayTimeUnit": "ms", "otherData": other, "traceEvents": found}
