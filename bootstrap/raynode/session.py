"""Ray's session on this node: its daemons, what they logged, and what they leave behind when they are killed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from bootstrap.process.table import Process

DAEMONS = ("gcs_server", "raylet")
"""Names in /proc/PID/stat of the processes whose end is the end of the node."""


def sessions(folder: Path, since: float) -> list[Path]:
    """Ray's sessions in its ``--temp-dir`` that were written to since then (epoch)."""
    return [session for session in folder.glob("session_2*") if session.stat().st_mtime >= since]


def causes(session: Path, most: int = 8) -> list[str]:
    """The last error lines out of the log files of Ray's daemons, each with its file's name, for people."""
    found: list[str] = []
    names = ("gcs_server.err", "gcs_server.out", "raylet.err", "raylet.out", "dashboard_agent.log")
    for log in (session / "logs" / name for name in names):
        with contextlib.suppress(OSError):
            lines = log.read_text(errors="replace").splitlines()[-200:]
            telling = [line for line in lines if _tells(line)]
            found += [f"{log.name}: {line.strip()[:300]}" for line in telling[-3:]]
    return found[-most:]


def _tells(line: str) -> bool:
    return any(
        word in line for word in (" C ", " E ", "ERROR", "Error:", "Check failed", "terminated", "already in use")
    )


def daemons(processes: Sequence[Process]) -> list[Process]:
    """Those of ``processes`` whose end is the end of this Ray node."""
    return [p for p in processes if p.name in DAEMONS]


def session_folder(daemon: Process) -> Path | None:
    """The session that a raylet belongs to, off its command line (``--raylet_socket_name=SESSION/sockets/raylet``)."""
    try:
        arguments = Path(f"/proc/{daemon.pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    sockets = [a.partition("=")[2] for a in arguments if a.startswith("--raylet_socket_name=")]
    return Path(sockets[0]).parent.parent if sockets and sockets[0] else None


def session_names(folder: Path) -> frozenset[str]:
    """What Ray's sessions in its ``--temp-dir`` are called."""
    return frozenset(path.name for path in folder.glob("session_2*"))


def session_begun(folder: Path, before: Container[str], starter: int) -> Path | None:
    """The session of a ``ray start`` that failed half-way on the head.

    :param before: the sessions that were there before it.
    :param starter: the process that called it, with whose id the session's name ends (node.py): others may have begun
        one in the same folder since.
    """
    begun = (name for name in session_names(folder) if name not in before and name.endswith(f"_{starter}"))
    return next((folder / name for name in begun), None)


def remove_sockets(files: Sequence[str]) -> None:
    """Remove socket files whose holders are gone, with the folder that Python's multiprocessing made for one.

    Ray's dashboard, killed, leaves ``$TMPDIR/pymp-*/listener-*``.
    """
    for file in map(Path, files):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(file))
            except ConnectionRefusedError:
                file.unlink()  # nobody's; what answers, or is of another kind, is somebody else's of the same name
            if file.parent.name.startswith("pymp-"):
                file.parent.rmdir()


def clean(session: Path, gcs: str) -> None:
    """Remove what this node's session left but its logs, and the notes on the current cluster if they are ours.

    Ray lets every user write in its folders (try_make_directory_shared in its utils.py), so somebody may have put a
    link to another folder in their place, or another folder.
    """
    with contextlib.suppress(OSError), _ours(session) as inside:
        for entry in Path(inside).iterdir():
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink(missing_ok=True)
            elif entry.name != "logs":
                shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        current = session.parent / "ray_current_cluster"
        if current.read_text() == gcs:
            current.unlink()
            (session.parent / "prom_metrics_service_discovery.json").unlink(missing_ok=True)


def logs_of(session: Path) -> Path | None:
    """Where the logs of a session are, if there are any."""
    with contextlib.suppress(OSError), _ours(session) as inside, _ours(Path(inside, "logs")):
        return session / "logs"
    return None


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[str]:
    """A path to a folder of ours that stays the same one whatever is put in its place.

    :raises OSError: if it is none, or somebody else's.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it is somebody else's", str(folder))
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
