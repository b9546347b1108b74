"""What a run must not leave behind on this node, written down before it is made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MAX_READ = 64 * 1024
"""Bytes; more than any file of ours has."""

FileDigests = Mapping[str, str]
"""Files that a run wrote where a later try of the same run writes, too: path → SHA-256 of the content."""


@dataclass(frozen=True)
class Manifest:
    """Kept in the agent's runtime directory, for whichever of its processes survives to clean up."""

    owned_files: FileDigests = field(default_factory=dict)
    """In the shared folder."""
    owned_dirs: Sequence[str] = ()
    """Removed when they are empty, since other runs may use them."""
    ray_dir: str = ""
    """Ray's ``--temp-dir``; empty before Ray is started."""
    earlier_sessions: Sequence[str] = ()
    """Names of the sessions that were in ``ray_dir`` before ours."""
    starter: int = 0
    """Process id of the starter, with which the name of the head's session ends."""
    session: str = ""
    gcs: str = ""
    """GCS's address."""

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Return the manifest in a file; an empty one where there is none, or a damaged one."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError):
            return cls()


def digest(content: bytes) -> str:
    """Return the digest of a file's content, for :data:`FileDigests`."""
    return hashlib.sha256(content).hexdigest()


def remove_owned_files(manifest: Manifest) -> None:
    """Remove the files in the shared folder, but not what another head has put in their place; then empty folders.

    A file is recognised by its content, since the inode numbers of network and FUSE file systems may change. A newer
    head may replace the file between our look and the removal; its workers then find nothing until it announces itself
    again. No file system offers "remove if unchanged".

    :raises OSError: in the end, if one that is there cannot be read or removed.
    """
    failure: OSError | None = None
    for path, expected in manifest.owned_files.items():
        try:
            # O_NONBLOCK: opening a FIFO would wait for its writer.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                if digest(file.read(_MAX_READ)) == expected:
                    Path(path).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            failure = error
    for path in manifest.owned_dirs:
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    if failure is not None:
        raise failure
