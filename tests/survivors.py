"""Which processes a test has left alive."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from namespaces import all_pids


def descendants(of: int) -> set[int]:
    """The PIDs below a process, without zombies.

    proc_pid_task(5): the kernel may pass over a child while another one ends, so look twice for a proof.
    """
    found: set[int] = set()
    new = {of}
    while new:
        new = {child for pid in new for child in _children(pid)} - found
        found |= new
    return {pid for pid in found if _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])}


def _children(of: int) -> list[int]:
    with contextlib.suppress(OSError):  # it ended meanwhile
        threads = [thread.name for thread in Path(f"/proc/{of}/task").iterdir()]
        return [int(pid) for thread in threads for pid in _read(of, f"task/{thread}/children").split()]
    return []


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
    except OSError:  # it ended meanwhile, or it belongs to another user
        return b""
