"""Check who owns a file, even on file systems that report an owner other than the writer."""

import contextlib
import os
import secrets


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
