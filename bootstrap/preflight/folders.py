"""Checks of folders: Ray's, and the one that all nodes share."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from bootstrap.files import output, runtime_dir
from bootstrap.files.mounts import LOCAL_FUSE, is_networked, mount_of
from bootstrap.files.ownership import Exposure, exposures
from bootstrap.files.secret import Channel
from bootstrap.node.inspection import Node
from bootstrap.preflight.finding import GIB, MIB, Finding, size

_RUNTIME_DIR = runtime_dir.PARENT / f"{runtime_dir.PREFIX}XXXXXXXX"
LONGEST_SOCKET = 107
"""Bytes in a UNIX socket's path (unix(7): 108 with the NUL)."""
# The last number is a process id, that of the head's starter: at most seven digits (proc_sys_kernel(5), pid_max).
_SOCKET = "session_2026-11-20_22-37-35_689000_4194304/sockets/plasma_store"
_FULL = 0.95
"""Ray creates no objects on a disk that is fuller (RAY_local_fs_capacity_threshold)."""
_LEAST = 16 * MIB
"""On a full disk raylet exits with status 1 after 15 s and can log no cause; an idle session takes some 2 MiB."""
FIX_TRACE = "--trace=FILE in a folder of this machine that this user can write"
_OF_ONE_CONTAINER = ("overlay", "tmpfs", "ramfs", *LOCAL_FUSE)


def socket_path(node: Node) -> Iterator[Finding]:
    """Check the length of Ray's longest socket path."""
    excess = len(os.fsencode(node.temp_dir / _SOCKET)) - LONGEST_SOCKET
    if excess > 0:
        asked = node.settings.temp_dir or str(node.temp_dir)
        room = len(os.fsencode(asked)) - excess
        message = f"{node.temp_dir} is {excess} bytes too long: Ray's socket paths below it may have {LONGEST_SOCKET}"
        yield Finding("socket-path", message, f"--temp-dir=DIR with at most {room} bytes, such as /tmp/ray-NAME")


def temp_dir(node: Node) -> Iterator[Finding]:
    """Check that this user can write to Ray's folder, or make it, and that no other user can replace it."""
    path, asked = node.temp_dir, Path(node.settings.temp_dir or node.temp_dir)
    if not path.is_absolute():
        yield Finding("temp-dir", f"{asked} is not an absolute path", f"--temp-dir={asked.absolute()}")
        return
    there = _nearest(path)
    which = f"{path}" if there == path else f"{path} cannot be created: {there}"
    if not there.is_dir():
        what = "is a broken symbolic link" if there.is_symlink() else "is not a folder"
        yield Finding("temp-dir", f"{which} {what}", f"remove {there}, or --temp-dir=DIR")
        return
    if trouble := _unwritable(there):
        yield Finding("temp-dir", f"{which} cannot be written ({trouble})", "--temp-dir=DIR that this user may write")
    if there == path:
        yield from _sticky(path)
    # With --temp-dir, too, the token is in the runtime directory.
    found = [each for place in (path, _RUNTIME_DIR) for each in exposures(place)]
    for exposure in {(each.path, each.foreign): each for each in found}.values():
        # An emptyDir has mode 0777 by design, and only containers of the same pod see it.
        if exposure.foreign or not node.in_pod:
            yield _replaceable(exposure, fatal=exposure.to_all and not node.in_pod)


def _nearest(path: Path) -> Path:
    """Return the path itself, or the nearest one above it, that exists; a broken link exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _sticky(path: Path) -> Iterator[Finding]:
    status = path.stat()
    if status.st_mode & stat.S_ISVTX and os.geteuid() in (0, status.st_uid):
        # try_to_create_directory() in ray/_common/utils.py
        message = f"Ray would set {path} to mode 777, without the sticky bit that protects users from each other"
        yield Finding("temp-dir", message, f"--temp-dir={path}/ray")


def _replaceable(exposure: Exposure, *, fatal: bool) -> Finding:
    """Return the finding that other users can put a folder of theirs in the place of ours, and so run code as us."""
    path, status = exposure.path, exposure.status
    if exposure.foreign:
        fact = f"{path} belongs to {_user(status.st_uid)}, who can"
        remedy = f"--temp-dir=DIR in a folder of {_user(os.geteuid())} or root"
    else:
        fact = f"{path} (mode {stat.S_IMODE(status.st_mode):o}) lets {'every user' if exposure.to_all else 'its group'}"
        remedy = f"as root: chmod +t {path}; or --temp-dir=DIR in a folder that only this user can write"
    return Finding("temp-dir", f"{fact} replace this run's folders", remedy, fatal=fatal)


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 (queries the name service, and only for a finding)

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _unwritable(folder: Path) -> str:
    """Return why this user cannot create a file in a folder; empty if it can. The probe never has a name."""
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return ""
    except OSError as error:
        # File systems without the flag answer as if the folder were opened for writing (open(2)).
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            return os.strerror(error.errno or 0)
    return "" if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def temp_dir_disk(node: Node) -> Iterator[Finding]:
    """Check that Ray's folder is on a local disk, with room for logs and spilled objects."""
    path = node.temp_dir
    if not path.is_absolute():
        return
    there = _nearest(path)
    kind, source = mount_of(node.host, there)
    if is_networked(kind):
        message = f"{path} is on {kind} ({source}): nodes that share it would use each other's sockets"
        yield Finding("temp-dir-disk", message, "--temp-dir=DIR on a local disk, such as /tmp/ray-NAME or $TMPDIR")
        return
    disk = os.statvfs(there)
    free, share = disk.f_bavail * disk.f_frsize, 1 - disk.f_bavail / max(disk.f_blocks, 1)
    remedy = f"make room (du -xsh {there}/*), or --temp-dir=DIR"
    if free < _LEAST:
        message = f"{there} has {size(free)} free; Ray's session and its first logs need {size(_LEAST)}"
        yield Finding("temp-dir-disk", message, remedy)
    elif free < GIB or share > _FULL:
        message = f"{there} has {size(free)} free and is {share:.0%} full; Ray creates no objects above {_FULL:.0%}"
        yield Finding("temp-dir-disk", message, remedy, fatal=False)


def trace(node: Node) -> Iterator[Finding]:
    """Check that the file of ``--trace`` can be written."""
    if node.settings.trace is not None and (why := output.fault(Path(node.settings.trace))):
        yield Finding("trace", f"--trace={node.settings.trace}: {why}", FIX_TRACE)


def shared_dir(node: Node) -> Iterator[Finding]:
    """Check the folder through which the nodes find each other: a listing must show a file that was written there."""
    if node.settings.shared_dir is None:
        return
    folder = Path(node.settings.shared_dir)
    given, remedy = f"--shared-dir={folder}", "mount it on every node, writable by this user"
    if not folder.is_dir():
        what = "is not a folder" if os.path.lexists(folder) else "does not exist"
        yield Finding("shared-dir", f"{given} {what}", remedy)
        return
    try:
        listed, status = _canary(folder, f".ray-bootstrap-canary-{node.host.hostname.replace('/', '_')}-{os.getpid()}")
    except OSError as error:
        yield Finding("shared-dir", f"{given} cannot be written ({error.strerror or error})", remedy)
        return
    if not listed:
        message = f"{given}: a file that was written and synced is not in the folder's listing"
        yield Finding("shared-dir", message, "mount it without caching names (NFS: -o lookupcache=none)")
    if node.secret.channel is Channel.RECORD:
        yield from _unsafe(given, status)
    kind, _ = mount_of(node.host, folder)
    if node.multi_node and kind in _OF_ONE_CONTAINER:
        message = f"{given} is on {kind}, which no other container sees: is the volume mounted?"
        claim = "volumes: [{name: shared, persistentVolumeClaim: {claimName: NAME}}]"
        yield Finding("shared-dir", message, claim if node.in_pod else f"findmnt -T {folder}", fatal=False)


def _unsafe(given: str, status: os.stat_result) -> Iterator[Finding]:
    """Check the mode and owner that the folder of the run's secret shows for our file, which was created with 600."""
    instead = "one RAY_AUTH_TOKEN or --secret-file for all nodes, or --auth=off"
    if status.st_mode & 0o077:
        message = f"{given}: a file of mode 600 shows {status.st_mode & 0o777:o} there, as would the run's secret"
        remedy = f"mount options file_mode=0600,dir_mode=0700 (CIFS) or umask=077 (FUSE); or {instead}"
        yield Finding("shared-dir", message, remedy, fatal=bool(status.st_mode & 0o022))
    if status.st_uid != os.geteuid():
        message = f"{given}: our files show uid {status.st_uid} there; users whose files do too could pose as the head"
        remedy = f"export it without squashing uid {os.geteuid()}; or {instead}"
        yield Finding("shared-dir", message, remedy, fatal=False)


def _canary(folder: Path, name: str) -> tuple[bool, os.stat_result]:
    """Write a file, and return whether the folder lists it, and its status; remove it again.

    :raises OSError: if the file cannot be written.
    """
    path, new = folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        path.unlink()  # left by a killed agent in a container with the same name and process id
    try:
        fd = os.open(path, new, 0o600)
    except FileExistsError:  # another user's
        path = path.with_name(f"{name}-{secrets.token_hex(4)}")
        fd = os.open(path, new, 0o600)
    try:
        os.write(fd, b"ray-bootstrap\n")
        os.fsync(fd)
        with os.scandir(folder) as entries:
            return any(entry.name == path.name for entry in entries), os.fstat(fd)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
