"""How far a `ray start` is that takes long: importing Ray, starting, registering, with what Ray says meanwhile."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.process.table import Process
from bootstrap.raynode.starter import Starter
from bootstrap.raynode.telling import Telling

Report = Callable[[str], None]
"""Passes on how far this node is."""


class Progress:
    """Reports each change once the start takes long, and at once when Ray says why; a fast start says nothing."""

    def __init__(self, starter: Starter, ray_dir: Path, report: Report) -> None:
        self._starter, self._report = starter, report
        self._telling = Telling(starter, ray_dir)
        self._begun = time.monotonic()
        self._stage = self._reported = ""

    def look(self, daemons: Sequence[Process]) -> None:
        """Look how far it is, given Ray's daemons that run by now; call it about twice a second."""
        now = time.monotonic()
        if self._starter.versions is None:
            self._stage = import_stage(now - self._starter.began)
        elif any(daemon.name == "raylet" for daemon in daemons):
            self._stage = "registering with GCS"
        else:
            self._stage = "no raylet yet"
        if (took := now - self._begun) < timeouts.QUIET_START_S:
            return
        self._telling.look()
        slow = took >= timeouts.SLOW_START_S or self._telling.lines
        if slow and (detail := self.describe()) not in ("", self._reported):
            self._reported = detail
            self._report(detail)

    def describe(self) -> str:
        """Return how far it is, and the lines in which Ray says why, if it does."""
        return "; ".join(filter(None, [self._stage, *self._telling.lines]))


def import_stage(seconds: float) -> str:
    """Return for how long Ray is being imported, in few different texts; empty while that is usual."""
    if seconds < timeouts.SLOW_START_S:
        return ""
    passed = timeouts.SLOW_START_S
    while passed * 2 <= seconds:
        passed *= 2
    return f"importing Ray for {passed:g} s (a cold image, or a slow file system?)"


async def until_released(released: asyncio.Future[str], starter: Starter, report: Report) -> str:
    """Return GCS's address once the head releases this node; report meanwhile if the import of Ray takes long.

    :raises RayStartFailed: at once if Ray cannot be imported, which the release would not mend.
    """
    importing: asyncio.Future[Any] = asyncio.ensure_future(starter.ready())
    try:
        said = ""
        while not (importing.done() or released.done()):
            took = time.monotonic() - starter.began
            if (stage := import_stage(took)) not in ("", said):
                report(said := stage)
            due = timeouts.SLOW_START_S
            while due <= took:
                due *= 2
            await asyncio.wait({importing, released}, timeout=due - took, return_when=asyncio.FIRST_COMPLETED)
        if not released.done():
            await importing
        return await asyncio.shield(released)
    finally:
        importing.cancel()
