"""The state file behind ``ray-bootstrap status``: small, replaced atomically, gone when the agent is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap.errors import PreflightFailed
from bootstrap.process import read_process


def folder() -> Path:
    """Of this user's agents on this machine."""
    return Path(f"/tmp/ray-bootstrap-{os.geteuid()}")  # noqa: S108 (checked to be ours before use)


@dataclass
class StateFile:
    """Written by one agent, as ``PID.json``."""

    facts: dict[str, Any] = field(default_factory=dict)
    _pending: asyncio.TimerHandle | None = None
    path: Path = field(default_factory=lambda: folder() / f"{os.getpid()}.json")

    def open(self) -> None:
        """Make the folder. :raises PreflightFailed: if somebody else has put something in its place."""
        with contextlib.suppress(FileExistsError):
            folder().mkdir(mode=0o700)
        status = folder().lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PreflightFailed(f"{folder()} is not a folder of ours", hint=f"have its owner remove {folder()}")
        process = read_process(os.getpid())
        self.facts.update(pid=os.getpid(), started=process.started if process else 0, since=time.time())

    def update(self, **facts: object) -> None:
        """Merge and replace; a full disk must not end a run, so that is not an error."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self.facts.update(facts)
        if "phase" in facts:
            self.facts["since"] = time.time()
        temporary = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(self.facts))
            temporary.replace(self.path)

    def soon(self, **facts: object) -> None:
        """As :meth:`update`, for what changes often: thousands of nodes make one file a second."""
        self.facts.update(facts)
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(1.0, self.update)

    def remove(self) -> None:
        """At the end; the folder too when it is empty."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            folder().rmdir()


def bury(agent: int) -> Mapping[str, Any]:
    """Remove the state file of an agent that is dead and could not; returns what it said."""
    file = StateFile(path=folder() / f"{agent}.json")
    try:
        facts: Mapping[str, Any] = json.loads(file.path.read_text())
    except (OSError, ValueError):
        facts = {}
    file.remove()
    return facts


def running() -> list[Mapping[str, Any]]:
    """The states of this user's live agents on this machine, the newest first."""
    found: list[Mapping[str, Any]] = []
    for path in folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads(path.read_text())
            process = read_process(int(facts["pid"]))
            if process is not None and process.started == facts["started"]:
                found.append(facts)
    return sorted(found, key=lambda facts: -float(facts["since"]))
