"""What Ray's daemons leave behind when they are killed, and how it is removed; their logs stay."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.process import Process

_MOST = 64 * 1024
"""Bytes of a file that we wrote, generously."""

Written = Mapping[str, str]
"""Files that a run wrote where a later try of the same run writes, too: path → SHA-256 of the content."""


def digest(content: bytes) -> str:
    """Of a file's content, for :data:`Written`."""
    return hashlib.sha256(content).hexdigest()


def remove_written(files: Written) -> None:
    """Remove them, but not what another head has put in their place, and their folders when they are empty.

    What goes is told by its content: the inode numbers of network and FUSE file systems may change. A newer head may
    replace the file between our look and the removal; its workers then find nothing until it announces again. No file
    system offers "remove if unchanged".

    :raises OSError: if one that is there cannot be read or removed.
    """
    for path, expected in files.items():
        with contextlib.suppress(FileNotFoundError):
            # O_NONBLOCK: opening a FIFO would wait for its writer.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                same = digest(file.read(_MOST)) == expected
            if same:
                Path(path).unlink()
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()


def session_folder(daemon: Process) -> Path | None:
    """The session that a raylet belongs to, off its command line (``--raylet_socket_name=SESSION/sockets/raylet``)."""
    try:
        arguments = Path(f"/proc/{daemon.pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    sockets = [a.partition("=")[2] for a in arguments if a.startswith("--raylet_socket_name=")]
    return Path(sockets[0]).parent.parent if sockets and sockets[0] else None


def session_started_by(pid: int, folder: Path) -> Path | None:
    """The session of a head whose start failed half-way: its name ends with its starter's process id (node.py)."""
    return next(iter(folder.glob(f"session_2*_{pid}")), None)


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
    """Remove what this node's session left but its logs, and the notes on the current cluster if they are ours."""
    with contextlib.suppress(OSError):
        for entry in session.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                if entry.name != "logs":
                    shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        current = session.parent / "ray_current_cluster"
        if current.read_text() == gcs:
            current.unlink()
            (session.parent / "prom_metrics_service_discovery.json").unlink(missing_ok=True)
