"""``--metrics-file FILE``: the state of this node, in Prometheus' text format (docs/metrics.md has the names)."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap import __version__, timeouts
from bootstrap.files.output import Output
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Phase
from bootstrap.run.timeline import STARTING, Timeline

_PREFIX = "ray_bootstrap_"
_OF_HEAD_ONLY = (Phase.LEFT, Phase.LOST, Phase.REFUSED, Phase.FAILED)
"""Phases that only the head sees a node in."""
_PHASES = (STARTING, *(phase.value for phase in Phase if phase not in _OF_HEAD_ONLY))

_FIX = "--metrics-file=FILE in a folder of this machine that this user can write"
Values = Sequence[tuple[Mapping[str, str], float]]
Family = tuple[str, str, str, Values]
"""A metric: its type, its name, its meaning, its values with their labels."""


def families(
    identity: NodeIdentity | None, state: Mapping[str, Any], timeline: Timeline, now: float
) -> Iterator[Family]:
    """Yield this node's metrics.

    :param state: what the state file has (:class:`bootstrap.files.runtime_dir.RuntimeDir`).
    :param now: on the monotonic clock.
    """
    phase, ready = timeline.phases[-1], float(bool(state.get("ready")))
    if identity is not None:
        rank = state.get("rank")
        labels = {"version": __version__, "run": identity.run_id, "launcher": identity.launcher}
        labels |= {"role": identity.role.value, "rank": "" if rank is None else str(rank)}
        yield "info", "", "The run that this node is part of.", [(labels, 1)]
        yield "counter", "restarts", "Restarts of this run before this attempt.", [({}, identity.attempt)]
    in_phase = [({"phase": name}, float(name == phase.name)) for name in _PHASES]
    yield "gauge", "phase", "1 for the phase that this node is in, else 0.", in_phase
    spent = [({"phase": name}, seconds) for name, seconds in timeline.seconds(now).items()]
    yield "counter", "phase_seconds", "Seconds in each phase, up to when this file was written.", spent
    began = timeline.epoch + phase.begin
    yield "gauge", "phase_start_timestamp_seconds", "When the phase began, in seconds since the epoch.", [({}, began)]
    yield "gauge", "ready", "1 if Ray runs here and the cluster stands, else 0.", [({}, ready)]
    if "findings" in state:
        yield "gauge", "findings", "Findings of this node's preflight checks.", [({}, state["findings"])]
    if expected := state.get("expected", 0):
        present = state.get("seen", 1)
        yield "gauge", "nodes_expected", "Nodes that the run needs.", [({}, expected)]
    if expected and "status" not in state:  # at its end all nodes leave
        yield "gauge", "nodes_present", "Nodes whose agents are connected, the head's included.", [({}, present)]
        yield "gauge", "nodes_missing", "Nodes that are needed and not connected.", [({}, max(0, expected - present))]
    if "status" in state:
        yield "gauge", "exit_status", "The run's exit status; absent while it goes on.", [({}, state["status"])]


def render(found: Sequence[Family]) -> bytes:
    """Return metrics in the text format. :raises ImportError: if prometheus_client is missing."""
    from prometheus_client import core, generate_latest  # noqa: PLC0415 (20 ms, and only with the option)

    kinds: Mapping[str, tuple[Any, str]] = {
        "info": (core.InfoMetricFamily, "_info"),
        "counter": (core.CounterMetricFamily, "_total"),
        "gauge": (core.GaugeMetricFamily, ""),
    }

    class Found:
        def collect(self) -> Iterator[Any]:
            for kind, name, meaning, values in found:
                family, suffix = kinds[kind]
                metric = family((_PREFIX + name).rstrip("_"), meaning)
                for labels, value in values:
                    metric.add_sample(metric.name + suffix, labels, value)
                yield metric

    return bytes(generate_latest(Found()))


class Metrics:
    """Writes the file at each change of this node's state, and once more at the end.

    :param identity: returns who this node is, once that is known.
    :param state: what the state file has.
    """

    def __init__(
        self,
        path: Path,
        timeline: Timeline,
        identity: Callable[[], NodeIdentity | None],
        state: Mapping[str, Any],
        log: Log,
    ) -> None:
        self._timeline, self._identity, self._state = timeline, identity, state
        self._output = Output(path, lambda why: log.warn(f"--metrics-file cannot be written: {why}; fix: {_FIX}"))
        self._pending: asyncio.TimerHandle | None = None

    def write(self) -> None:
        """Write the present state, in a thread."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        now = list(families(self._identity(), self._state, self._timeline, time.monotonic()))
        self._output.put(lambda: render(now))

    def write_soon(self) -> None:
        """Do the same within :data:`timeouts.STATE_FILE_S`, for what changes often."""
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(timeouts.STATE_FILE_S, self.write)

    async def finish(self) -> None:
        """Write it for the last time; wait for that at most :data:`timeouts.SHARED_FOLDER_S`."""
        self.write()
        await self._output.flush(timeouts.SHARED_FOLDER_S)
