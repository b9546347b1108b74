"""What the tests ask of processes: who lives in a namespace, what a process blocks; and how they wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """One process of a host; ``pid`` and ``ppid`` as this side sees them."""

    pid: int
    ppid: int
    state: str
    """The letter of proc(5): R, S, D, Z, T."""
    cmdline: str


def wait_for(condition: Callable[[], Any], timeout: float = 10.0, what: str = "the condition") -> Any:
    """The first true value of ``condition()``, tried every 20 ms; TimeoutError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.02)
    return value


def all_pids() -> list[int]:
    """Every process of this machine at this moment."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def blocks(pid: int, signum: int) -> bool:
    """Whether a process blocks this signal now (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(mask >> (signum - 1) & 1)


def namespace(pid: int, kind: str) -> str:
    """The identity of a namespace of a process, such as ``pid:[4026531836]``; empty where it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def processes(namespaces: set[str]) -> list[Process]:
    """The processes in any of these namespaces (a zombie has left its network namespace, not its PID namespace)."""
    wanted = namespaces - {""}
    inside = [pid for pid in all_pids() if namespace(pid, "pid") in wanted or namespace(pid, "net") in wanted]
    return [process for pid in inside if (process := _process(pid)) is not None]


def _process(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    # The name may hold blanks and brackets, so the fields are counted from its last bracket.
    before, _, after = stat.rpartition(")")
    state, ppid = after.split()[:2]
    words = cmdline.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return Process(pid, int(ppid), state, words or f"[{before.partition('(')[2]}]")
