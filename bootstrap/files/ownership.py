"""Whose a file is, on file systems that show other owners than the ones who wrote."""

import contextlib
import os
import secrets


def trusted(folder: int, owner: int) -> bool:
    """Whether we or root own a file, under the number that this file system shows for us.

    NFS with root_squash or all_squash, and many FUSE mounts, show another owner than the writer's uid: what they make
    of a file of ours tells.

    :param folder: a descriptor of the file's folder.
    :param owner: the uid that the file shows.
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
"""Folder → the owner that a file of ours has there. Looked at once each: it is a file made and removed."""


def _shown_for_us(folder: int) -> int:
    name = f".owner-{secrets.token_hex(8)}"
    probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        return os.fstat(probe).st_uid
    finally:
        os.close(probe)
        os.unlink(name, dir_fd=folder)
