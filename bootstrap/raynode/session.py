"""Ray's session on this node: its daemons, their logs, and the files that they leave behind when they are killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap.files import ownership
from bootstrap.files.manifest import Manifest
from bootstrap.files.ownership import open_file, opened
from bootstrap.process.table import Process, socket_files

DAEMONS = ("gcs_server", "raylet")
"""Names in /proc/PID/stat of the processes without which the node cannot go on."""
_MAX_READ = 256 * 1024
"""Bytes of a log file's end."""
_MAX_LINE = 400
"""Characters of an error line: Ray's begin with 260 that are always the same."""
_MAX_SESSIONS = 8
"""Number of sessions in which the cause of a failed start is sought, the newest."""
_LOGS_WITH_CAUSES = ("gcs_server.err", "gcs_server.out", "raylet.err", "raylet.out", "dashboard_agent.log")
_ERROR_LINE = re.compile(
    r"""\[[0-9-]+\ [0-9:,.]+\ [ECF]\ \d+\ \d+\](?!.*\ logging\.cc:\d+:\s+(PC:\s)?@)  # Ray's C++; no frames of a stack
    | [EF]\d{4}\ [0-9:.]+\s+\d+\ \S+:\d+\]  # gRPC and Abseil
    | [0-9-]+\ [0-9:,.]+\s+(ERROR|CRITICAL)\ \S+:\d+\ --  # Ray's Python
    | [\w.]*(Error|Exception)(:\ |$)  # the last line of a traceback
    | \*\*\*\ SIG[A-Z]+\ received
    | Fatal\ Python\ error:
    | terminate\ called\ after\ throwing
    | \S+:\ error\ while\ loading\ shared\ libraries:""",
    re.VERBOSE,
)
"""Matches an error line of Ray's logs at its start; others may contain such a word too (RAY_ERROR_INFO_CHANNEL)."""

_ASKED = re.compile(r"death info: reason: (?:EXPECTED_TERMINATION|AUTOSCALER_DRAIN_[A-Z]+)\s+reason_message: \"(.*)\"")
"""What a raylet writes when it is to end (main.cc in Ray); it exits with 0 also if its dashboard agent has died."""


def is_error(line: str) -> bool:
    """Return whether a line of Ray's logs, or that Ray prints, is an error."""
    return _ERROR_LINE.match(line) is not None


def daemons(processes: Sequence[Process]) -> list[Process]:
    """Return those of ``processes`` without which this Ray node cannot go on."""
    return [p for p in processes if p.name in DAEMONS]


def session_names(ray_dir: Path, starter: int | None = None) -> list[str]:
    """Return the names of the sessions in Ray's ``--temp-dir``, which begin with their times.

    :param starter: only those that a head's starter with this process id began: they end with it (node.py in Ray).
    """
    ending = "" if starter is None else f"_{starter}"
    return sorted(path.name for path in ray_dir.glob("session_2*") if path.name.endswith(ending))


def causes_since(ray_dir: Path, since: float) -> list[str]:
    """Return the causes in the newest sessions below Ray's ``--temp-dir`` that were written to since then (epoch)."""
    found: list[str] = []
    for session in (ray_dir / name for name in session_names(ray_dir)[-_MAX_SESSIONS:]):
        with contextlib.suppress(OSError):  # another run may remove it now
            found += causes(session) if session.lstat().st_mtime >= since else []
    return found


def causes(session: Path, maximum: int = 8) -> list[str]:
    """Return the last error lines of the daemons' log files, each with its file's name."""
    found: list[str] = []
    with contextlib.suppress(OSError), opened(session) as inside, opened("logs", dir_fd=inside) as logs:
        for name in _LOGS_WITH_CAUSES:
            with contextlib.suppress(OSError):
                lines = _read_end(name, dir_fd=logs).splitlines()[-200:]
                errors = [line.strip()[:_MAX_LINE] for line in lines if is_error(line)]
                # GCS and raylet write an error to both of their files.
                known = {entry.partition(": ")[2] for entry in found}
                found += [f"{name}: {line}" for line in errors[-3:] if line not in known]
    return found[-maximum:]


def asked_to_end(session: Path) -> str:
    """Return why the raylet was to end, as it has written: a signal, or the autoscaler; empty if it was not."""
    with contextlib.suppress(OSError), opened(session) as inside, opened("logs", dir_fd=inside) as logs:
        found: list[str] = _ASKED.findall(_read_end("raylet.out", dir_fd=logs))
        return found[-1].replace("\\'", "'") if found else ""  # protobuf's text format escapes it
    return ""


@dataclass(frozen=True)
class Held:
    """Files that running processes hold and would leave behind if they were killed."""

    sockets: frozenset[str] = frozenset()
    sessions: frozenset[Path] = frozenset()

    def __or__(self, other: Held) -> Held:
        """Return the union of both."""
        return Held(self.sockets | other.sockets, self.sessions | other.sessions)


def observe(processes: Sequence[Process]) -> Held:
    """Return the files that these processes hold; call it while they still run."""
    return Held(frozenset(socket_files(processes)), frozenset(filter(None, map(session_of, daemons(processes)))))


def session_of(daemon: Process) -> Path | None:
    """Return the session of a raylet or a GCS from its command line; None if that does not name it.

    ``--raylet_socket_name=SESSION/sockets/raylet`` or ``--log_dir=SESSION/logs`` (services.py in Ray).
    """
    try:
        arguments = Path(f"/proc/{daemon.pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if socket_name := given.get("--raylet_socket_name"):
        return Path(socket_name).parent.parent
    return Path(given["--log_dir"]).parent if given.get("--log_dir") else None


def own_sessions(manifest: Manifest, held: Held) -> set[Path]:
    """Return this run's sessions: all in a folder of this run alone; in the user's only those known to be its own."""
    ours = {*held.sessions, *map(Path, filter(None, [manifest.session]))}
    ray_dir = Path(manifest.ray_dir)
    if manifest.ray_dir and manifest.closed_dir:
        ours |= {ray_dir / name for name in session_names(ray_dir)}
    elif manifest.ray_dir and not manifest.session:
        begun = set(session_names(ray_dir, manifest.starter)) - set(manifest.earlier_sessions)
        ours |= {ray_dir / name for name in begun}
    return ours


def remove_sockets(files: Sequence[str]) -> None:
    """Remove socket files that no process holds any more, and the folder that Python's multiprocessing made for one.

    Ray's dashboard leaves ``pymp-*/listener-*`` when killed: outside the session only where a path has no room for it
    (:mod:`bootstrap.raynode.tempfiles`).
    """
    for file in map(Path, files):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(file))
            except ConnectionRefusedError:
                file.unlink()  # refused: no process holds it; one that answers belongs to another process
            if file.parent.name.startswith("pymp-"):
                file.parent.rmdir()


def remove_session(session: Path, gcs: str) -> Path | None:
    """Remove a session except its logs, and Ray's record of the current cluster if it names ``gcs``; return the logs.

    Ray lets every user write to its folders (try_make_directory_shared in its utils.py), so another user may have
    replaced them with a symbolic link or with another folder.
    """
    with contextlib.suppress(OSError), opened(session) as inside:
        for entry in Path(f"/proc/self/fd/{inside}").iterdir():
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink(missing_ok=True)
            elif entry.name != "logs":
                shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        current = session.parent / "ray_current_cluster"
        if _read_end(current) == gcs:
            current.unlink()
            (session.parent / "prom_metrics_service_discovery.json").unlink(missing_ok=True)
    with contextlib.suppress(OSError), opened(session) as inside, opened("logs", dir_fd=inside):
        return session / "logs"
    return None


def copy_logs(logs: Path, folder: Path, *below: str) -> Path:
    """Copy the regular files of this user, with modes by the umask: Ray's own folders are open to all.

    :param below: names of the folders in ``folder`` to copy to; they are made if they are missing.
    :returns: the copy.
    :raises OSError: after trying every file, if one cannot be copied; or if another user owns a folder of the copy.
    """
    ownership.check_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    faults: list[OSError] = []
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(opened(logs))
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, target)
        for name in below:
            target = stack.enter_context(_subfolder(name, target))
        _copy_folder(source, target, faults)
    if faults:
        raise faults[0]
    return folder.joinpath(*below)


def _copy_folder(source: int, target: int, faults: list[OSError]) -> None:
    for name in os.listdir(source):
        try:
            status = os.lstat(name, dir_fd=source)
            if stat.S_ISDIR(status.st_mode):
                with opened(name, dir_fd=source) as inside, _subfolder(name, target) as copy:
                    _copy_folder(inside, copy, faults)
            elif stat.S_ISREG(status.st_mode):
                _copy_file(name, source, target)
        except OSError as error:
            faults.append(error)


@contextlib.contextmanager
def _subfolder(name: str, folder: int) -> Iterator[int]:
    """Yield a descriptor of a folder below ``folder``. :raises OSError: if another user's has its name."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        owner = os.fstat(fd).st_uid
        if not ownership.trusted(fd, owner):
            raise PermissionError(errno.EPERM, f"it belongs to uid {owner}", name)
        yield fd
    finally:
        os.close(fd)


def _copy_file(name: str, source: int, target: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=target)  # an earlier attempt's, or a link that must not be followed
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        os.fdopen(open_file(name, dir_fd=source), "rb") as log,
        os.fdopen(os.open(name, new, 0o666, dir_fd=target), "wb") as copy,
    ):
        shutil.copyfileobj(log, copy)


def _read_end(name: str | Path, *, dir_fd: int | None = None) -> str:
    """Return the end of a regular file of this user. :raises OSError: if it is none, or cannot be read."""
    with os.fdopen(open_file(name, dir_fd=dir_fd), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_READ))
        return file.read(_MAX_READ).decode(errors="replace")
