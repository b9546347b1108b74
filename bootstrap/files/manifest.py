"""The record of what a run must remove from this node, written before each file or folder is made."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.files import ownership

_MAX_READ = 64 * 1024
"""Bytes; larger than any file that a run owns."""

FileDigests = Mapping[str, str]
"""Files of a run that a later attempt of the same run also writes: path → SHA-256 of the content."""


@dataclass(frozen=True)
class Manifest:
    """What to remove; kept in the agent's runtime directory for whichever of its processes survives to clean up."""

    owned_files: FileDigests = field(default_factory=dict)
    """In the shared folder."""
    owned_dirs: Sequence[str] = ()
    """Folders to remove if they are empty, since other runs may use them."""
    claim: str = ""
    """The folder whose lock makes this agent the run's only one on this node; empty if it needs none."""
    closed_dir: str = ""
    """The folder of this run alone (mode 0700) that holds Ray's; empty if Ray's is the user's own."""
    ray_dir: str = ""
    """Ray's ``--temp-dir``; empty before Ray starts."""
    earlier_sessions: Sequence[str] = ()
    """Names of the sessions in the user's ``ray_dir`` that could be taken for this run's."""
    starter: int = 0
    """Process id of the starter; the name of the head's session ends with it."""
    session: str = ""
    """The folder of this node's session, once Ray runs."""
    gcs: str = ""
    """GCS's address."""
    processes: Sequence[Sequence[int]] = ()
    """Process id and start time of the processes by which the next run finds what outlives this run's agents."""
    pid_scope: str = ""
    """Where these ids count (:func:`bootstrap.process.table.pid_scope`)."""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Return the manifest in a file, or an empty one if the file is missing or damaged."""
        try:
            # Through a descriptor: once our folder has gone, any user may take its name.
            with (
                ownership.opened(path.parent) as folder,
                os.fdopen(ownership.open_file(path.name, dir_fd=folder), "rb") as file,
            ):
                return cls(**json.loads(file.read()))
        except (OSError, ValueError, TypeError, RecursionError):
            return cls()


def digest(content: bytes) -> str:
    """Return the digest of a file's content, for :data:`FileDigests`."""
    return hashlib.sha256(content).hexdigest()


def remove_owned_files(manifest: Manifest) -> None:
    """Remove the run's files from the shared folder, unless another head has replaced them, then the empty folders.

    A file is identified by its content, since inode numbers may change on network and FUSE file systems. A newer head
    may replace the file between the check and the removal; its workers then find no record until it announces itself
    again. No file system offers "remove if unchanged".

    :raises OSError: after trying every file, if one exists but cannot be read or removed.
    """
    failure: OSError | None = None
    for path, expected in manifest.owned_files.items():
        try:
            # O_NONBLOCK: opening a FIFO would otherwise block until it has a writer.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                if digest(file.read(_MAX_READ)) == expected:
                    Path(path).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            if not _is_foreign(Path(path).parent, error):
                failure = error
    for path in manifest.owned_dirs:
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    if failure is not None:
        raise failure


def _is_foreign(folder: Path, error: OSError) -> bool:
    """Return whether a file in ``folder`` is out of reach because another user has taken the folder's name."""
    taken = error.errno in (errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENOTDIR)
    with contextlib.suppress(OSError):
        return taken and folder.lstat().st_uid != os.geteuid()
    return False
