"""What :mod:`hosts` needs of Linux: birth in another PID namespace, ``ip``, and who lives in a namespace."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_CLONE_NEWPID = 0x20000000


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


@contextlib.contextmanager
def children_in_pid_namespace(of: int | None) -> Iterator[None]:
    """What this thread starts inside the block is born in the PID namespace of ``of``, or as PID 1 of a new one.

    setns(2): for CLONE_NEWPID only the children of the calling thread are concerned, and going back is allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        with Path(path).open("rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWPID):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    if of is not None:
        enter(f"/proc/{of}/ns/pid")
    elif libc.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "unshare(CLONE_NEWPID)")
    try:
        yield
    finally:
        enter("/proc/self/ns/pid")


def ip(pid: int, lines: Sequence[str]) -> None:
    """Runs lines of ``ip`` in the network namespace of a process."""
    argv = ["nsenter", "-t", str(pid), "--net", "--", "ip", "-batch", "-"]
    result = subprocess.run(argv, input="\n".join(lines), text=True, capture_output=True, timeout=30, check=False)
    if result.returncode:
        raise RuntimeError(f"ip: {result.stderr.strip()}, in {list(lines)}")


def line_within(stream: IO[bytes] | None, timeout: float) -> bool:
    """Whether a line came before the end of the stream and the time-out."""
    return stream is not None and bool(select.select([stream], [], [], timeout)[0]) and bool(stream.readline())


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
