"""How a run ended, as JSON, for machines: in ``--result-file``, else in Kubernetes' termination log."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from bootstrap.host import Host

_TERMINATION_LOG = Path("/dev/termination-log")
_MOST = 4000
"""Bytes in the termination log: the kubelet cuts at 4096, in the midst of the JSON."""
_MOST_OF_ANOTHER = 600
"""Of them, for each text but the reason."""


def clear(result_file: str | None, host: Host) -> None:
    """Remove what an earlier run has left, so that one that is killed does not seem to have ended that way."""
    path = _path(result_file, host)
    # What is no regular file has nothing to clear, and must stay: a FIFO, or the symbolic link /dev/stderr.
    with contextlib.suppress(OSError):
        if path is not None and stat.S_ISREG(path.lstat().st_mode):
            os.truncate(path, 0)  # first, since a mount point such as the termination log cannot be removed
            if path != _TERMINATION_LOG:
                path.unlink()


def write(result_file: str | None, host: Host, record: Mapping[str, object]) -> str:
    """Write how it ended; returns what went wrong."""
    path = _path(result_file, host)
    if path is not None:
        try:
            path.write_text(_fitted(record) if path == _TERMINATION_LOG else json.dumps(record) + "\n")  # in place
        except OSError as error:
            return f"--result-file={path}: {error.strerror}"
    return ""


def _path(result_file: str | None, host: Host) -> Path | None:
    if result_file:
        return Path(result_file)
    return _TERMINATION_LOG if host.get("KUBERNETES_SERVICE_HOST") and _TERMINATION_LOG.exists() else None


def _fitted(record: Mapping[str, object]) -> str:
    """The record as JSON of at most ``_MOST`` bytes: whole, or with its texts shortened, the reason last."""
    text = json.dumps(record)
    if len(text) >= _MOST:
        short = {
            name: _shortened(value, _MOST_OF_ANOTHER) if isinstance(value, str) and name != "reason" else value
            for name, value in record.items()
        }
        room = _MOST - len(json.dumps({**short, "reason": ""})) + len('""') - len("\n")
        text = json.dumps({**short, "reason": _shortened(str(record["reason"]), room)})
    return text + "\n"


def _shortened(text: str, room: int) -> str:
    """The start and the end of ``text`` (of a traceback, the end says it), as JSON ``room`` bytes at most."""
    short, half = text, len(text) // 2
    while half and len(json.dumps(short)) > room:
        half = half * 9 // 10
        short = f"{text[:half]} [...] {text[len(text) - half :]}"
    return short
