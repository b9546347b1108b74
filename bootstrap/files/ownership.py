"""Check who owns a file, even on file systems that report an owner other than the writer."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


def trusted(folder: int, owner: int) -> bool:
    """Return whether this user or root owns a file, given the uid that its file system reports.

    NFS with root_squash or all_squash, and many FUSE mounts, report an owner other than the writer's uid. A probe file
    in the same folder shows which uid they report for this user.

    :param folder: a descriptor of the file's folder.
    :param owner: the uid that the file system reports for the file.
    """
    if owner in (os.geteuid(), 0):
        return True
    status = os.fstat(folder)
    where = (status.st_dev, status.st_ino)
    if where not in _shown:
        with contextlib.suppress(OSError):
            _shown[where] = _shown_for_us(folder)
    return _shown.get(where) == owner


_shown: dict[tuple[int, int], int] = {}
"""Folder → the uid reported there for this user's files. Cached, since each probe makes and removes a file."""


def _shown_for_us(folder: int) -> int:
    name = f".owner-{secrets.token_hex(8)}"
    probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        return os.fstat(probe).st_uid
    finally:
        os.close(probe)
        os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def opened(folder: str | Path, *, dir_fd: int | None = None, closed: bool = False) -> Iterator[int]:
    """Yield a descriptor of a folder of this user, which keeps referring to it even if another one takes its place.

    :param closed: whether it must be closed to other users (mode 0700).
    :raises OSError: if it is not a folder, belongs to another user, or is open to others and must not be.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"it belongs to uid {status.st_uid}", str(folder))
        if closed and status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, f"others can enter it (mode {status.st_mode & 0o777:o})", str(folder))
        yield fd
    finally:
        os.close(fd)


def open_file(name: str | Path, *, dir_fd: int | None = None) -> int:
    """Return a descriptor to read a regular file of this user.

    :raises OSError: if it is another user's, or a link or a FIFO, which would block.
    """
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(errno.EPERM, "not a regular file of this user", str(name))
    return fd
