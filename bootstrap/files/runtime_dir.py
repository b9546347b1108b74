"""The state file behind ``ray-bootstrap status``: small, replaced atomically, gone when the agent is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap.errors import PreflightFailed
from bootstrap.process.table import read_process

_TRIES = 5
OWN_AFFAIRS = ("started", "supervisor", "folder", "before", "starter", "session", "written")
"""Facts for who clears up behind a dead agent; nobody else's business."""


def folder() -> Path:
    """Of this user's agents on this machine."""
    return Path(f"/tmp/ray-bootstrap-{os.geteuid()}")  # noqa: S108 (checked to be ours before use)


def path_of(agent: int, kind: str) -> Path:
    """A file of an agent: ``json`` (its state), ``new``, ``token``.

    Containers that share /tmp have process ids in common, so the name has their namespace's number, too
    (pid_namespaces(7)).
    """
    return folder() / f"{_namespace()}-{agent}.{kind}"


def _namespace() -> int:
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _is_ours() -> bool:
    """Whether the folder is one, and our own. :raises OSError: if there is none."""
    status = folder().lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _made() -> bool:
    """Make the folder if it is missing; False if somebody else has put something in its place.

    Another agent that ends removes the folder when it is empty, at any moment.

    :raises OSError: if it cannot be made.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            folder().mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            return _is_ours()
    raise OSError(errno.ENOENT, "it vanishes again and again", str(folder()))


@dataclass
class StateFile:
    """FileDigests by one agent."""

    facts: dict[str, Any] = field(default_factory=dict)
    _pending: asyncio.TimerHandle | None = None
    path: Path = field(default_factory=lambda: path_of(os.getpid(), "json"))
    _off: bool = False

    def open(self) -> str:
        """Make the folder, and remove the files of agents that were killed together with their supervisors.

        :returns: why it cannot be made, in which case there is no state file.

        :raises PreflightFailed: if somebody else has put something in its place.
        """
        process = read_process(os.getpid())
        self.facts.update(pid=os.getpid(), started=process.started if process else 0, since=time.time())
        self.facts.update(supervisor=os.getppid())
        for facts in _states():
            if not _lives(facts) and not Path(f"/proc/{facts.get('supervisor')}").exists():
                remove_dead_agent(facts["pid"])
        try:
            ours = _made()
        except OSError as error:
            self._off = True
            return f"`ray-bootstrap status` will not see this run: {folder()}: {error.strerror}"
        if not ours:
            self._off = True
            raise PreflightFailed(f"{folder()} is not a folder of ours", hint=f"have its owner remove {folder()}")
        return ""

    def update(self, **facts: object) -> None:
        """Merge and replace; a full disk must not end a run, so that is not an error."""
        self._wait_no_more()
        self.facts.update(facts)
        if "phase" in facts:
            self.facts["since"] = time.time()
        with contextlib.suppress(OSError):
            self._write()

    def _write(self) -> None:
        temporary = self.path.with_suffix(".new")
        for _ in range(_TRIES):
            # Anew each time: another agent's end, or a cleaner of /tmp, may have removed the folder meanwhile.
            if self._off or not _made():
                return
            with contextlib.suppress(FileNotFoundError):
                temporary.write_text(json.dumps(self.facts))
                temporary.replace(self.path)
                return

    def soon(self, **facts: object) -> None:
        """As :meth:`update`, for what changes often: thousands of nodes make one file a second."""
        self.facts.update(facts)
        if self._pending is None and not self._off:
            self._pending = asyncio.get_running_loop().call_later(1.0, self.update)

    def _wait_no_more(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def remove(self) -> None:
        """At the end, for good; the folder too when it is empty."""
        self._wait_no_more()
        self._off = True
        with contextlib.suppress(OSError):
            if _is_ours():
                self.path.unlink(missing_ok=True)
                folder().rmdir()


def remove_dead_agent(agent: int) -> Mapping[str, Any]:
    """Remove the files of an agent that is dead and could not; returns what its state file said."""
    facts: Mapping[str, Any] = {}
    with contextlib.suppress(OSError):
        if _is_ours():
            facts = _read(path_of(agent, "json")) or {}
            for kind in ("json", "new", "token"):
                path_of(agent, kind).unlink(missing_ok=True)
            folder().rmdir()
    return facts


def running() -> list[Mapping[str, Any]]:
    """The states of this user's live agents on this machine, the newest first."""
    return sorted(filter(_lives, _states()), key=lambda facts: -facts["since"])


def _states() -> list[Mapping[str, Any]]:
    """All state files that agents have left that we could see."""
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        paths = list(folder().glob(f"{_namespace()}-*.json")) if _is_ours() else []
    return [facts for facts in map(_read, paths) if facts]


def _lives(facts: Mapping[str, Any]) -> bool:
    process = read_process(facts["pid"])
    return process is not None and process.started == facts.get("started")


def _read(path: Path) -> Mapping[str, Any] | None:
    """What a state file says; None if it is none, whatever else it may be."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"pid": int, "since": float}
    return facts if isinstance(facts, dict) and all(type(facts.get(name)) is kinds[name] for name in kinds) else None
