"""A file that an option names and that is rewritten during the run: each time as a whole, or not at all."""

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from bootstrap.files import ownership
from bootstrap.process.bounded import Call, TimedOut, run_in_thread


def fault(path: Path) -> str:
    """Return why no file can be written there, or "" if one can. It may hang: bound it."""
    try:
        return _fault_of(path.parent) or _fault_of(_target(path).parent)
    except OSError as error:
        return f"{path}: {error.strerror}"


def _fault_of(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} {'is not a folder' if os.path.lexists(folder) else 'does not exist'}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written by this user"


def write(path: Path, content: bytes) -> None:
    """Write a file atomically, with a mode by the umask. It may hang: bound it.

    :raises OSError: if it cannot be written; an earlier file stays then.
    """
    target = _target(path)
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        temporary.rename(target)  # which follows no link
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _target(path: Path) -> Path:
    """Return which file to replace: the one to which a link leads, if the link is this user's or root's.

    :raises OSError: if another user's link is there, or something that is not a regular file.
    """
    # Checked once: a link that appears later is not followed.
    target = Path(os.path.realpath(path)) if ownership.check_link(path) else path
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(target.lstat().st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(target))
    return target


class Output:
    """Writes such a file in a thread, as its file system may hang: one write at a time, the latest content wins.

    :param on_fault: called once, in that thread, with why it cannot be written.
    """

    def __init__(self, path: Path, on_fault: Callable[[str], None]) -> None:
        self.path = path
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._next: Callable[[], bytes] | None = None
        self._writing: Call[None] | None = None
        self._busy = self._failed = False

    def put(self, make: Callable[[], bytes]) -> None:
        """Write what ``make`` returns when called in that thread, unless something newer comes first."""
        with self._lock:
            self._next = make
            if self._busy:
                return
            self._busy = True
        self._writing = Call(self._write)

    async def flush(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the last write; return whether all have succeeded."""
        if (writing := self._writing) is None:
            return False
        try:
            await run_in_thread(seconds, lambda: writing.result(seconds))
        except TimedOut:
            self._fail(f"{self.path} timed out after {seconds:g} s")
        return not self._failed

    def _write(self) -> None:
        while True:
            with self._lock:
                make, self._next = self._next, None
                if make is None:
                    self._busy = False
                    return
            try:
                write(self.path, make())
            except (OSError, ImportError, ValueError) as error:  # ValueError: a text that UTF-8 cannot encode
                self._fail(f"{self.path}: {getattr(error, 'strerror', None) or error}")

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._on_fault(why)
