"""One process per node, where no variable tells a second one: a lock on a folder in /tmp, per user, run and host."""

import contextlib
import fcntl
import os
from pathlib import Path

from bootstrap.files import ownership, runtime_dir

_held: dict[Path, int] = {}
"""Folder → the descriptor that holds its lock."""


def path(run_hash: str, attempt: int, hostname: str) -> Path:
    """Return the folder that stands for this user's process of a run on this host; hosts may share /tmp."""
    return runtime_dir.PARENT / f"{runtime_dir.PREFIX}{os.geteuid()}.{run_hash}.{attempt}.{hostname[:64]}"


def take(folder: Path) -> None:
    """Lock the folder for as long as this process lives. A process that was killed may have left the folder behind.

    :raises BlockingIOError: if another process holds it.
    :raises OSError: if there can be no lock, for instance since another user has taken the folder's name.
    """
    while (lock := _locked(folder)) is None:
        pass
    _held[folder] = lock


def release() -> None:
    """Remove the folders that this process has locked, and with them the locks."""
    while _held:
        folder, lock = _held.popitem()
        with contextlib.suppress(OSError):
            folder.rmdir()
        os.close(lock)


def remove_left(folder: Path) -> None:
    """Remove what a process that was killed has left, unless a process, this one or another, holds it now."""
    with contextlib.suppress(OSError):
        lock = _locked(folder, make=False)
        if lock is not None:
            try:
                folder.rmdir()
            finally:
                os.close(lock)


def _locked(folder: Path, *, make: bool = True) -> int | None:
    """Return a descriptor that holds the lock; None if its last holder has just removed the folder."""
    if make:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    try:
        with ownership.opened(folder) as opened:
            lock = os.dup(opened)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed the name, and a next one made it anew, after we opened it.
        if os.path.samestat(os.fstat(lock), folder.lstat()):
            return lock
    except FileNotFoundError:
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None
