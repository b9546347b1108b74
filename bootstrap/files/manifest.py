"""What Ray's daemons leave behind when they are killed, and how it is removed; their logs stay."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

_MOST = 64 * 1024
"""Bytes of a file that we wrote, generously."""

FileDigests = Mapping[str, str]
"""Files that a run wrote where a later try of the same run writes, too: path → SHA-256 of the content."""


def digest(content: bytes) -> str:
    """Of a file's content, for :data:`FileDigests`."""
    return hashlib.sha256(content).hexdigest()


def remove_owned_files(files: FileDigests) -> None:
    """Remove them, but not what another head has put in their place, and their folders when they are empty.

    What goes is told by its content: the inode numbers of network and FUSE file systems may change. A newer head may
    replace the file between our look and the removal; its workers then find nothing until it announces again. No file
    system offers "remove if unchanged".

    :raises OSError: in the end, if one that is there cannot be read or removed.
    """
    failure: OSError | None = None
    for path, expected in files.items():
        try:
            # O_NONBLOCK: opening a FIFO would wait for its writer.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                same = digest(file.read(_MOST)) == expected
            if same:
                Path(path).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            failure = error
        with contextlib.suppress(OSError):
            Path(path).parent.rmdir()
    if failure is not None:
        raise failure
