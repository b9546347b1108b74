"""The runtime directory of one agent on this machine, ``/tmp/ray-bootstrap.<random>``, mode 0700.

It holds the agent's state (for ``ray-bootstrap status``), the manifest, a copy of the token, the certificate and its
key, and Ray's folder unless ``--temp-dir`` names another one. The agent and its supervisor hold a lock on it (flock(2))
while they live: a process that gets the lock knows that both have ended. After the run only the result and Ray's logs
stay.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.files import ownership
from bootstrap.files.manifest import Manifest
from bootstrap.process.table import pid_namespace, read_process

PARENT = Path("/tmp")  # noqa: S108 (we make each folder in it, mode 0700, under a random name)
PREFIX = "ray-bootstrap."
STATE, MANIFEST, TOKEN, RAY = "state.json", "manifest.json", "token", "ray"
AGENT_LOG = "agent.log"
"""The lines of an agent that has no terminal."""
SETUP_ENV, SETUP = "setup.env", "setup.json"
TLS_CERTIFICATE, TLS_KEY, TLS_CA = "tls.crt", "tls.key", "ca.crt"
"""Names of the files and the folder in it."""
OBSERVER, RESULT = "observer", "result.json"
"""The key by which this user's other processes observe the run; how it ended."""
PRIVATE = (TOKEN, TLS_CERTIFICATE, TLS_KEY, TLS_CA, SETUP_ENV, OBSERVER)
"""Those that Ray's processes, the commands of ``--setup`` and observers read."""
STAYS = (AGENT_LOG, SETUP, RESULT)
"""Those that stay beside Ray's logs when the run has ended, and go with them."""
_TRIES = 5
"""Names to try, since one may be taken."""


@dataclass
class RuntimeDir:
    """The runtime directory of this agent. If it could not be made, ``fault`` says why and all writes are skipped."""

    path: Path
    fault: str = ""
    manifest: Manifest = field(default_factory=Manifest)
    state: dict[str, Any] = field(default_factory=dict)
    """The content of the state file."""
    lock: int = -1
    """A descriptor of the folder, which holds its lock."""
    _pending: Any = None

    @property
    def ray_dir(self) -> Path:
        """Return the default ``--temp-dir``; short, since the path of a UNIX socket has at most 107 bytes."""
        return self.path / RAY

    def set_state(self, **facts: object) -> None:
        """Merge ``facts`` into the state file; ignore errors, since a full disk must not end a run."""
        self._cancel_pending()
        self.state.update(facts)
        if "phase" in facts:
            self.state["since"] = time.time()
        self._write(STATE, self.state)

    def set_state_soon(self, **facts: object) -> None:
        """Do the same within :data:`timeouts.STATE_FILE_S`, for facts that change often."""
        import asyncio  # noqa: PLC0415 (the supervisor does without it)

        self.state.update(facts)
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(timeouts.STATE_FILE_S, self.set_state)

    def note(self, manifest: Manifest) -> bool:
        """Write the manifest; call it before making what the manifest names."""
        self.manifest = manifest
        return self._write(MANIFEST, dataclasses.asdict(manifest))

    def write_private(self, name: str, content: bytes) -> Path | None:
        """Write a file for Ray's processes, mode 0600; return its path, or None if it cannot be written."""
        return self.path / name if self._write(name, content) else None

    def read(self, name: str, most: int) -> bytes:
        """Return at most so many bytes of a file. :raises OSError: if it cannot be read, or is not this user's own."""
        with (
            ownership.opened(self.path, closed=True) as folder,
            os.fdopen(ownership.open_file(name, dir_fd=folder), "rb") as file,
        ):
            return file.read(most)

    def close(self) -> None:
        """Ignore all later writes."""
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
        try:
            with ownership.opened(self.path) as folder:
                # Once a cleaner of /tmp has removed ours, any user may take its name.
                if self.lock >= 0 and not os.path.samestat(os.fstat(folder), os.fstat(self.lock)):
                    return False
                _write_atomically(folder, name, data)
            return True
        except OSError:
            return False


def _write_atomically(folder: int, name: str, data: bytes) -> None:
    temporary = f".{name}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def remove_files(path: Path, *names: str) -> None:
    """Remove these files, finished or not, from a runtime directory; what cannot be removed stays."""
    with contextlib.suppress(OSError), ownership.opened(path) as folder:
        for name in (*names, *(f".{name}" for name in names)):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)


def make() -> RuntimeDir:
    """Make and lock this agent's folder; the lock lasts until this process and its forks have ended."""
    for _ in range(_TRIES):
        # Two names: from the first one, a neighbour who watches the folder could tell the final one and take it.
        newborn, path = (PARENT / f"{dot}{PREFIX}{os.urandom(4).hex()}" for dot in (".", ""))
        lock = -1
        try:
            newborn.mkdir(mode=0o700)
            lock = os.open(newborn, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            newborn.rename(path)  # only once it is locked: an unlocked one looks like that of an ended run
            return RuntimeDir(path, lock=lock)
        except OSError as error:
            fault = f"{path}: {error.strerror}"
            if lock >= 0:
                os.close(lock)
            with contextlib.suppress(OSError):
                newborn.rmdir()
    return RuntimeDir(path, fault)


def running() -> list[Mapping[str, Any]]:
    """Return the states of this user's live agents in this container, newest first."""
    return [state for _, state in running_in()]


def running_in() -> list[tuple[Path, Mapping[str, Any]]]:
    """Return the same with the runtime directory of each."""
    live = ((path, read_state(path)) for path in locked())
    return sorted(((path, state) for path, state in live if state), key=lambda each: -each[1]["since"])


def locked() -> list[Path]:
    """Return the runtime directories of this user whose agents, or their supervisors, live."""
    return [path for path, fd in own_folders() if not _locks(fd, fcntl.LOCK_SH)]


def results() -> list[tuple[float, Path, Mapping[str, Any]]]:
    """Return how this user's runs on this machine ended: when (seconds since the epoch), where, what; newest first."""
    found: list[tuple[float, Path, Mapping[str, Any]]] = []
    for path, fd in own_folders():
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with os.fdopen(ownership.open_file(RESULT, dir_fd=fd), "rb") as file:
                content, when = json.loads(file.read()), os.fstat(file.fileno()).st_mtime
            if isinstance(content, dict) and type(content.get("status")) is int:
                found.append((when, path, content))
    return sorted(found, key=lambda each: -each[0])


def observer_key(folder: Path) -> bytes | None:
    """Return the key by which to observe the run of the agent in this folder; None if it is open, or has ended."""
    try:
        return RuntimeDir(folder).read(OBSERVER, 256) or None
    except OSError:
        return None


def no_run(run_id: str | None, states: Sequence[Mapping[str, Any]]) -> str:
    """Return that this user has no run on this machine, or not this one but those with these states."""
    others = ", ".join(sorted({repr(state.get("run_id")) for state in states}))
    which = "no run" if run_id is None else f"no run {run_id!r}"
    return f"this user has {which} on this machine" + (f"; here are {others}" if others else "")


def run_of(pid: int) -> str | None:
    """Return the id of the run of this user to which a process belongs: that of an agent, or one below it."""
    agents = {state["pid"]: str(state.get("run_id")) for state in running()} if pid else {}
    while agents and pid not in agents:
        process = read_process(pid)
        if process is None:
            return None
        pid = process.ppid
    return agents.get(pid)


@contextlib.contextmanager
def ended() -> Iterator[list[Path]]:
    """Hold the folders of this user's agents that have ended, newest first, but those with nothing but a result."""
    found: list[tuple[float, Path]] = []
    with contextlib.ExitStack() as held:
        for path, fd in own_folders():
            if not is_bare(fd) and _locks(fd, fcntl.LOCK_EX):
                held.callback(os.close, os.dup(fd))
                found.append((os.fstat(fd).st_mtime, path))
        yield [path for _, path in sorted(found, reverse=True)]


def is_bare(folder: Path | int) -> bool:
    """Return whether nothing of a run is left but how it ended. :raises OSError: if the folder cannot be read."""
    return os.listdir(folder) == [RESULT]  # noqa: PTH208 (of a descriptor, too)


def own_folders(parent: Path | None = None) -> Iterator[tuple[Path, int]]:
    """Yield the folders that only this user can enter, each with a descriptor that is closed afterwards.

    :param parent: PARENT of another host, as seen from here [default: this machine's].
    """
    for path in (parent or PARENT).glob(PREFIX + "[0-9a-f]" * 8):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                    yield path, fd
            finally:
                os.close(fd)


def _locks(fd: int, lock: int) -> bool:
    try:
        fcntl.flock(fd, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_state(path: Path) -> Mapping[str, Any] | None:
    """Return the content of a state file; None if it is damaged or belongs to an agent in another container.

    A shell evaluates what it says. Once the run has ended, any user may take the folder's name: theirs says nothing.
    """
    try:
        state = json.loads(RuntimeDir(path).read(STATE, -1))
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"pid": int, "since": float, "pid_namespace": int}
    if not isinstance(state, dict) or any(type(state.get(name)) is not kind for name, kind in kinds.items()):
        return None
    return state if state["pid_namespace"] == pid_namespace() else None
