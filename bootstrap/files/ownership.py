"""Who owns a file, and who else could replace it?"""

import contextlib
import errno
import functools
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAX_LINKS = 40
"""Symbolic links that the kernel follows on the way to one file (path_resolution(7))."""


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


def is_trusted_file(path: Path, status: os.stat_result) -> bool:
    """Return whether this user or root owns the file with this status; ``path`` may be a symbolic link to it."""
    if status.st_uid in (os.geteuid(), 0):
        return True
    folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return trusted(folder, status.st_uid)
    finally:
        os.close(folder)


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


def check_link(path: Path) -> bool:
    """Check that no other user has put a symbolic link at a path that we are about to write to.

    The kernel does the same in sticky folders only where fs.protected_symlinks is set (proc_sys_fs(5)).

    :returns: whether there is a link, of this user or root.
    :raises OSError: if one has.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISLNK(status.st_mode):
        return False
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EPERM, f"a link that belongs to uid {status.st_uid}", str(path))
    return True


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


@dataclass(frozen=True, slots=True)
class Exposure:
    """Something on the way to a file that lets other users put another one in its place."""

    path: Path
    status: os.stat_result
    foreign: bool
    """Whether another user owns it; otherwise its mode is the reason."""
    to_all: bool
    """Whether any user may have done so, not only those whom an administrator chose: an owner, a group."""


def exposures(path: Path) -> Iterator[Exposure]:
    """Yield whatever lets other users replace ``path`` or a folder above it, as far as those exist.

    Each folder must belong to this user or root, and be writable by no one else unless it is sticky, where only the
    owner of an entry can rename it. ``path`` itself may be writable. What lies below a folder that others cannot enter
    is safe from them.
    """
    closed: set[Path] = set()
    shared: set[Path] = set()  # in which every user may create files
    for entry, status, is_last in _way(path):
        if not closed.isdisjoint(entry.parents):
            continue
        if not _ours_or_roots(status.st_uid, entry.parent in shared):
            yield Exposure(entry, status, True, entry.parent in shared)
        if is_closed(status):
            closed.add(entry)
        elif stat.S_ISDIR(status.st_mode) and not is_last:
            if status.st_mode & stat.S_IWOTH:
                shared.add(entry)
            if status.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not status.st_mode & stat.S_ISVTX:
                yield Exposure(entry, status, False, entry in shared)


def is_enclosed(path: Path) -> bool:
    """Return whether a folder above ``path`` keeps other users out; a missing one will be created closed."""
    for folder in Path(os.path.realpath(path)).parents:
        try:
            if is_closed(folder.stat()):
                return True
        except FileNotFoundError:
            return True
        except OSError:  # NotADirectoryError, say: whoever makes Ray's folder will meet it again
            return False
    return False


def is_closed(status: os.stat_result) -> bool:
    """Return whether this is the status of a folder of this user, or root, that no one else can enter."""
    return stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o011 and _ours_or_roots(status.st_uid, shared=False)


def make_closed(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with mode 0700. :raises OSError: if that is not possible."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another run's agent may have made it
            path.mkdir(mode=0o700)


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yield each folder and symbolic link through which the kernel gets to ``path``, and whether it is the last one."""
    here, rest, links = Path("/"), list(reversed(path.parts)), 0
    while rest:
        part = rest.pop()
        here = here.parent if part == ".." else here / part
        try:
            status = here.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield here, status, not rest
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            rest += reversed(here.readlink().parts)
            here = here.parent


def _ours_or_roots(uid: int, shared: bool) -> bool:
    """Return whether this user or root has this uid.

    :param shared: whether any user may have made the file; then the uid of unmapped users does not mean root.
    """
    return uid in (os.geteuid(), 0) or (not shared and uid == _unmapped_root())


@functools.cache
def _unmapped_root() -> int | None:
    """Return the uid that root's files show in a user namespace without root (user_namespaces(7)); else None."""
    try:
        maps = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if any(outside == "0" for _, outside, _ in maps):
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return None
