"""This user's folder in one that all nodes and users share: made, opened, listed, and written atomically.

Everything goes through descriptors: another user may put a folder of his in the place of ours at any time.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.files import ownership

RECORD_MAX = 64 * 1024
"""Bytes; a record has some 400."""
HEAD = "head-"
"""How the names of heads' records begin; those of temporary files have a dot before it."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def made(folder: Path) -> Iterator[int | None]:
    """Do the same as :func:`own` after making the folder if it is missing. :raises OSError: if that is not possible.

    Workers make it too: mkdir asks the file server, while the client may answer a look-up from its cache.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with own(folder) as descriptor:
        yield descriptor


@contextlib.contextmanager
def own(folder: str | Path, dir_fd: int | None = None) -> Iterator[int | None]:
    """Yield a descriptor of a folder of this user; None if another user's folder, or no folder, has the name."""
    try:
        descriptor = os.open(folder, FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        yield None
        return
    try:
        yield descriptor if ownership.trusted(descriptor, os.fstat(descriptor).st_uid) else None
    finally:
        os.close(descriptor)


def names(folder: int) -> list[str]:
    """Return the names in a folder. Listing it makes an NFS client ask its server.

    Opening a name that was just missing would fail from the client's negative dentry cache for up to a minute.
    """
    return os.listdir(folder)


def replace(folder: int, name: str, text: bytes, temporary: str) -> None:
    """Write a file atomically. :raises OSError: if that fails; the temporary file is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    # Make the rename durable on the server; file systems that cannot sync a folder return EINVAL.
    with contextlib.suppress(OSError):
        os.fsync(folder)


def read(folder: int, name: str) -> tuple[dict[str, Any], int]:
    """Return the JSON object in a regular file of this user or root, and the file's mode.

    :raises OSError: if the file cannot be opened.
    :raises ValueError: saying why it is not valid.
    """
    # O_NONBLOCK: opening a FIFO would otherwise block until it has a writer.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if not ownership.trusted(folder, status.st_uid):
            raise ValueError(f"belongs to uid {status.st_uid}, not to {os.geteuid()}")
        text = os.read(file, RECORD_MAX + 1)
    finally:
        os.close(file)
    if len(text) > RECORD_MAX:
        raise ValueError(f"has {status.st_size} bytes, more than {RECORD_MAX}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content, stat.S_IMODE(status.st_mode)


def sweep(folder: int, own: str) -> None:
    """Remove the heads' records, with their secrets, that are :data:`timeouts.RECORD_KEPT_S` older than ``own``.

    Their agents were all killed, and no next run on that node could clean up, as with a pod. The file server's clock
    tells: ``own`` has just been written.
    """
    now = os.stat(own, dir_fd=folder, follow_symlinks=False).st_mtime
    for name in names(folder):
        if name.lstrip(".").startswith(HEAD):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and now - status.st_mtime > timeouts.RECORD_KEPT_S:
                    os.unlink(name, dir_fd=folder)
