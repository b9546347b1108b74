"""The folder of one agent on this machine, ``/tmp/ray-bootstrap.<random>``, mode 0700.

It holds the agent's state (for ``ray-bootstrap status``), the manifest of what must go, a copy of the token, and Ray's
own folder unless ``--temp-dir`` names one. The agent and its supervisor hold a lock on it (flock(2)) for as long as
they live, so that whoever gets the lock knows that both have ended. What stays after the run is Ray's logs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootstrap.files.manifest import Manifest

if TYPE_CHECKING:
    import asyncio

PARENT = Path("/tmp")  # noqa: S108 (each folder in it is made by us, under a random name, for us alone)
PREFIX = "ray-bootstrap."
_ATTEMPTS = 5
STATE, MANIFEST, TOKEN, RAY = "state.json", "manifest.json", "token", "ray"
"""What is in it, by name."""


@dataclass
class RuntimeDir:
    """The folder of this agent; where it could not be made, nothing is written, and ``fault`` says why."""

    path: Path
    fault: str = ""
    manifest: Manifest = field(default_factory=Manifest)
    state: dict[str, Any] = field(default_factory=dict)
    """What the agent has said about itself."""
    _pending: asyncio.TimerHandle | None = None

    @property
    def ray_dir(self) -> Path:
        """The default for Ray's ``--temp-dir``: short, as UNIX sockets' paths below it have at most 107 bytes."""
        return self.path / RAY

    def set_state(self, **facts: object) -> None:
        """Merge ``facts`` into the state file; a full disk must not end a run, so errors are ignored."""
        self._cancel_pending()
        self.state.update(facts)
        if "phase" in facts:
            self.state["since"] = time.time()
        self._write(STATE, self.state)

    def set_state_soon(self, **facts: object) -> None:
        """Do the same within a second, for what changes often."""
        import asyncio  # noqa: PLC0415 (the supervisor does without it)

        self.state.update(facts)
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(1.0, self.set_state)

    def note(self, manifest: Manifest) -> None:
        """Write down what must go, before it is made."""
        self.manifest = manifest
        self._write(MANIFEST, manifest.to_json())

    def write_token(self, token: bytes) -> Path | None:
        """Keep a copy of the token for Ray's processes; return its path, or None if it cannot be written."""
        return self.path / TOKEN if self._write(TOKEN, token) else None

    def close(self) -> None:
        """Write no more."""
        self._cancel_pending()
        self.fault = self.fault or "closed"

    def _cancel_pending(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _write(self, name: str, content: Mapping[str, Any] | bytes) -> bool:
        if self.fault:
            return False
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path, temporary = self.path / name, self.path / f".{name}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError:
            return False
        return True


def make() -> RuntimeDir:
    """Make this agent's folder and lock it; the lock is held until this process and those that it forks have ended."""
    for attempt in range(_ATTEMPTS):
        path = PARENT / f"{PREFIX}{secrets.token_hex(4)}"
        try:
            path.mkdir(mode=0o700)
            fd = _open(path)
        except OSError as error:
            if attempt + 1 < _ATTEMPTS and error.errno in (errno.EEXIST, errno.ENOENT):
                continue
            return _absent(error.strerror or str(error))
        if _lock(fd):  # else another agent is just taking it for that of a run that has ended
            return RuntimeDir(path)
        os.close(fd)
        with contextlib.suppress(OSError):
            path.rmdir()
    return _absent("its names are taken again and again")


def _absent(fault: str) -> RuntimeDir:
    return RuntimeDir(PARENT / f"{PREFIX}{secrets.token_hex(4)}", f"{PARENT}/{PREFIX}*: {fault}")


def running() -> list[Mapping[str, Any]]:
    """Return the states of this user's agents in this container that are alive, the newest first."""
    states = []
    for path in _candidates():
        with contextlib.suppress(OSError):
            fd = _open(path)
            try:
                if not _lock(fd, fcntl.LOCK_SH) and (state := _read_state(path)):
                    states.append(state)
            finally:
                os.close(fd)
    return sorted(states, key=lambda state: -state["since"])


@contextlib.contextmanager
def ended() -> Iterator[list[tuple[Path, Manifest]]]:
    """Hold the folders of this user's agents that have ended, the newest first, each with its manifest."""
    with contextlib.ExitStack() as held:
        found: list[tuple[float, Path, Manifest]] = []
        for path in _candidates():
            with contextlib.suppress(OSError):
                fd = _open(path)
                held.callback(os.close, fd)
                if _lock(fd):
                    found.append((os.fstat(fd).st_mtime, path, Manifest.load(path / MANIFEST)))
        yield [(path, manifest) for _, path, manifest in sorted(found, reverse=True, key=lambda entry: entry[0])]


def pid_namespace() -> int:
    """Return the number of this process's PID namespace (pid_namespaces(7)); containers may share /tmp, not this."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _candidates() -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in PARENT.iterdir() if path.name.startswith(PREFIX)]
    return []


def _open(path: Path) -> int:
    """Return a descriptor of a folder of ours. :raises OSError: if it is not one."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077 == 0:
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, "not a folder of this user's alone", str(path))


def _lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_state(path: Path) -> Mapping[str, Any] | None:
    """Return what a state file says; None if it is damaged, or of another container's agent."""
    try:
        state = json.loads((path / STATE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"pid": int, "since": float, "pid_namespace": int}
    if not isinstance(state, dict) or any(type(state.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return state if state["pid_namespace"] == pid_namespace() else None
