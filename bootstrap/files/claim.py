"""One process per node, where no variable tells a second one: a lock on a folder in /tmp, per user and run."""

import contextlib
import fcntl
import os
from pathlib import Path

from bootstrap.files import ownership
from bootstrap.files.runtime_dir import PARENT, PREFIX


def path(run_hash: str, attempt: int) -> Path:
    """Return the folder that stands for this user's process of a run on this machine."""
    return PARENT / f"{PREFIX}{os.geteuid()}.{run_hash}.{attempt}"


def take(folder: Path) -> bool:
    """Lock the folder for as long as this process lives, and return whether that was possible.

    It is free if a process that was killed left it behind, and counts as free if another user made it: that user must
    not be able to keep this one's run from starting, nor must a full disk.
    """
    while True:
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            with ownership.opened(folder) as opened:
                lock = os.dup(opened)
        except FileNotFoundError:
            if folder.parent.exists():
                continue  # its holder has just removed it
            return True
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(lock), folder.lstat()):
                return True
        os.close(lock)  # its holder removed it between our two steps
