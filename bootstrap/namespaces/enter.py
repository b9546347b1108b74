"""The namespaces around the hosts: an ordinary user is root in them, and everything there ends with their PID 1."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NoReturn

from bootstrap.host import this_host
from bootstrap.namespaces import closed
from bootstrap.namespaces.linux import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    NEWIPC,
    NEWNS,
    NEWPID,
    NEWUSER,
    as_outer_user,
    call,
    die_with_parent,
    mount,
)
from bootstrap.process.signals import stopping

_CAP_SYS_ADMIN = 21
"""Of include/uapi/linux/capability.h."""
_PROGRAMS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux", "mount": "util-linux"}
"""What :mod:`bootstrap.namespaces.hosts` calls, and Debian's package of it."""
_GOOD = "good"
_TRIAL = "link add br0 type bridge\nlink add port0 type veth peer name eth0\n"


def fault() -> str:
    """Return why hosts of namespaces cannot be made here, with the fix, or "" if they can: a forked child tries.

    Call it while there is only one thread.
    """
    if sys.platform != "linux":
        return "this is not Linux"
    if missing := sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None}):
        return f"not installed: {', '.join(missing)}; fix: apt-get install {' '.join(missing)}"
    reading, writing = os.pipe()
    child = _fork()
    if child == 0:
        _try(writing)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return {_GOOD: "", "": "the trial ended without an answer"}.get(said, said)


def enter() -> int | None:
    """Fork a child into namespaces of its own: None there; in the parent its exit status, once it has ended.

    The child is PID 1 and root of new PID, mount and IPC namespaces, and of a user namespace unless we are root with
    CAP_SYS_ADMIN. Its network is the machine's; hosts have their own. Whatever starts there ends with it, and it ends
    with the parent, even by SIGKILL. It is in a session of its own, so a Ctrl-C reaches the parent alone, which passes
    on the signals that stop a run. Those without a handler raise SystemExit there: the kernel would drop them for a
    PID 1. The status is 128+n if signal n ended it.

    Call it while there is only one thread. The parent cannot fork any more; all it may do is exit.

    :raises OSError: where :func:`fault` says why.
    """
    signals = stopping()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals | {signal.SIGCHLD})
    try:
        reading, writing = os.pipe()
        _prepare()
        child = _fork()
        if child:
            os.close(reading)
            return _wait_for(child, signals)
        os.close(writing)
        os.setsid()
        _become_init(reading)
        for signum in signals:
            # Python's own handler of SIGINT would print where it was.
            if signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(signum, lambda number, _: sys.exit(128 + number))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return None


def _fork() -> int:
    """Call fork(2) with nothing in Python's buffers, which both would write."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return os.fork()


def _prepare() -> None:
    """Have the next child born as PID 1 of new namespaces, and be root in the user namespace that owns them."""
    if not _may_without_user_namespace():
        user, group = os.geteuid(), os.getegid()
        call("unshare", NEWUSER, what=closed.USER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            try:
                Path(f"/proc/self/{name}").write_text(text)
            except OSError as error:
                raise OSError(error.errno, error.strerror, closed.IDS) from error
    call("unshare", NEWPID, what=closed.PID)


def _become_init(parent: int) -> None:
    """Move into new namespaces with their own /proc, and end with the parent, which holds the pipe's other end."""
    die_with_parent(signal.SIGKILL)
    if select.select([parent], [], [], 0)[0]:  # it ended before that: os.getppid() is 0 here in any case
        os._exit(128 + signal.SIGKILL)
    call("unshare", NEWNS | NEWIPC, what=closed.OWN)
    mount(b"none", b"/", None, MS_REC | MS_PRIVATE, what=closed.PRIVATE)
    mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, what=closed.PROC)


def _wait_for(child: int, signals: AbstractSet[int]) -> int:
    """Return the child's status once it has ended; pass these signals, which are blocked, on to it until then."""
    while True:
        signum = signal.sigwait(signals | {signal.SIGCHLD})
        if signum != signal.SIGCHLD:
            os.kill(child, signum)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _may_without_user_namespace() -> bool:
    """Return whether we are root with CAP_SYS_ADMIN, which root in a container may lack (capabilities(7))."""
    lines = (this_host().read("/proc/self/status") or "").splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(effective >> _CAP_SYS_ADMIN & 1)


def _try(answer: int) -> NoReturn:
    """Try everything in this forked child, write why it fails, or that it works, and exit."""
    said = ""
    try:
        if enter() is None:
            said = _run_trial() or _GOOD
    except OSError as error:
        said = closed.reason(this_host(), error)
    except BaseException as error:  # noqa: BLE001 (a child must not return into its parent's code)
        said = repr(error)
    os.write(answer, said.encode())
    os._exit(0)


def _run_trial() -> str:
    """Return why the commands that make a host and start something there fail, or ""."""
    argv = ["unshare", "--net", "--mount", "--uts", "--ipc", "ip", "-batch", "-"]
    made = subprocess.run(argv, input=_TRIAL, text=True, capture_output=True, check=False, timeout=30)
    if made.returncode:
        return closed.no_network(made.stderr.strip())
    started = subprocess.run([*as_outer_user(), "true"], text=True, capture_output=True, check=False, timeout=30)
    return f"no command as this user: {started.stderr.strip()}" if started.returncode else ""
