"""Which processes a test has left alive."""

from __future__ import annotations

import os
from pathlib import Path

from namespaces import all_pids


def descendants(of: int) -> set[int]:
    """The PIDs below a process, without zombies."""
    parents: dict[int, int] = {}
    for pid in all_pids():
        if stat := _read(pid, "stat"):
            state, ppid = stat.rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                parents[pid] = int(ppid)
    found: set[int] = set()
    new = {of}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def marked(mark: str) -> set[int]:
    """The PIDs of the processes that started with ``mark`` (``NAME=value``) in their environment, without this one."""
    others = (pid for pid in all_pids() if pid != os.getpid())
    return {pid for pid in others if mark.encode() in _read(pid, "environ").split(b"\0")}


def describe(pid: int) -> str:
    """``pid command line``."""
    return f"{pid} {_read(pid, 'cmdline').replace(bytes(1), b' ').decode(errors='replace').strip()}"


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it ended meanwhile, or it is somebody else's
        return b""
