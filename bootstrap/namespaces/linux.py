"""The system calls and commands of Linux that the rest of this room uses."""

import contextlib
import ctypes
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from bootstrap.host import this_host

NEWNS, NEWIPC, NEWUSER, NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
"""CLONE_NEWNS and so on, of include/uapi/linux/sched.h."""
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
"""Of include/uapi/linux/mount.h."""
_PR_SET_PDEATHSIG = 1


def call(function: str, *arguments: object, what: str) -> None:
    """Call a function of the C library. :raises OSError: with ``what`` as its ``filename``, if it returns non-zero."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def die_with_parent(signum: int) -> None:
    """Have the kernel send this signal when the thread that forked us ends (prctl(2), PR_SET_PDEATHSIG)."""
    call("prctl", _PR_SET_PDEATHSIG, signum, 0, 0, 0, what="prctl(PR_SET_PDEATHSIG)")


def mount(source: bytes, target: bytes, kind: bytes | None, flags: int, *, what: str) -> None:
    """Call mount(2) without data. :raises OSError: with ``what`` as its ``filename``."""
    call("mount", source, target, kind, ctypes.c_ulong(flags), None, what=what)


@contextlib.contextmanager
def children_in_pid_namespace(of: int | None) -> Iterator[None]:
    """Have what this thread starts inside the block born in the PID namespace of ``of``, or as PID 1 of a new one.

    setns(2): for CLONE_NEWPID only the children of the calling thread are concerned, and going back is allowed.
    """

    def enter(path: str) -> None:
        with Path(path).open("rb") as namespace:
            call("setns", namespace.fileno(), NEWPID, what=path)

    if of is None:
        call("unshare", NEWPID, what="unshare(CLONE_NEWPID)")
    else:
        enter(f"/proc/{of}/ns/pid")
    try:
        yield
    finally:
        enter("/proc/self/ns/pid")


def as_outer_user() -> list[str]:
    """Return the words that start a command as the user whom this namespace maps to root; none for root itself."""
    user, group = _outer_id("uid"), _outer_id("gid")
    return ["unshare", "--user", f"--map-user={user}", f"--map-group={group}", "--"] if user else []


def _outer_id(kind: str) -> int:
    """Return the user (``uid``) or group (``gid``) of the machine that is root here; 0 is root itself.

    user_namespaces(7): in a namespace that maps one id, as :func:`bootstrap.namespaces.enter.enter` makes it, the file
    is one line ``0 ID 1``.
    """
    rows = [tuple(map(int, row.split())) for row in (this_host().read(f"/proc/self/{kind}_map") or "").splitlines()]
    return rows[0][1] if [(first, count) for first, _, count in rows] == [(0, 1)] else 0


def ip(pid: int, lines: Sequence[str], *options: str) -> None:
    """Run lines of ``ip`` in the network namespace of a process. :raises RuntimeError: with what it says."""
    argv = ["nsenter", "-t", str(pid), "--net", "--", "ip", *options, "-batch", "-"]
    result = subprocess.run(argv, input="\n".join(lines), text=True, capture_output=True, timeout=30, check=False)
    if result.returncode:
        raise RuntimeError(f"ip: {result.stderr.strip()}, in {list(lines)}")


def says_something(stream: IO[bytes] | None, seconds: float) -> bool:
    """Return whether the stream yields a byte within so many seconds, before its end."""
    if stream is None or not select.select([stream], [], [], seconds)[0]:
        return False
    return bool(os.read(stream.fileno(), 100))
