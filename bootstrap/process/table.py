"""The process table, and how to end everything below a process: by process id, never by name.

The agent makes itself a *child subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER): when their starter ends, Ray's daemons
become its children, and so does everything that the workload leaves behind. A process therefore belongs to the run
exactly if it is below the agent in the process tree, even if it called setsid(2), changed its title or cleared its
environment.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import timeouts
from bootstrap.process import signals

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make orphans below this process its children instead of those of PID 1."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(frozen=True, slots=True)
class Process:
    """One entry of the process table; ``started`` distinguishes it from a later process with the same id."""

    pid: int
    ppid: int
    state: str
    name: str
    started: int
    threads: int
    session: int
    """The number of its session (setsid(2)): the process id that the session's leader has or had."""
    wait_status: int | None = None
    """Of a zombie, as waitpid(2) returns it to the parent. None if unknown: the kernel shows a 0 if we may not see it,
    and an exit status of 0 looks the same."""

    @property
    def lives(self) -> bool:
        """Return whether it still runs: it is not a zombie, or only its first thread has ended (pthread_exit(3))."""
        return self.state not in "ZX" or self.threads > 1


def read_process(pid: int) -> Process | None:
    """Return the entry of ``pid`` from /proc/PID/stat (proc_pid_stat(5)); None if the process does not exist."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 (thousands of them)
            head, _, tail = stat.read().rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    ppid, session, threads, started, wait_status = (int(fields[number]) for number in (1, 3, 17, 19, 49))
    return Process(pid, ppid, fields[0], head.partition("(")[2], started, threads, session, wait_status or None)


def start_time(process: Process) -> float:
    """Return when it was started, on the monotonic clock, to the kernel's tick: 10 ms; at the latest now.

    The kernel counts from the boot, on the clock that goes on while the machine is suspended (proc_pid_stat(5)).
    """
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return min(time.monotonic(), process.started / os.sysconf("SC_CLK_TCK") - suspended)


def descendants(root: int, excluded: Container[int] = ()) -> list[Process]:
    """Return every living process below ``root``, parents first, without those at or below a pid in ``excluded``."""
    return _below([root], _children(), excluded)


def _children() -> Mapping[int, Sequence[Process]]:
    """Return the children of each process, zombies included."""
    children: dict[int, list[Process]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (process := read_process(int(entry.name))):
            children.setdefault(process.ppid, []).append(process)
    return children


def _below(
    roots: Iterable[int], children: Mapping[int, Sequence[Process]], excluded: Container[int] = ()
) -> list[Process]:
    found: list[Process] = []
    parents = list(roots)
    while parents:
        for process in children.get(parents.pop(), ()):
            if process.pid in excluded:
                continue
            parents.append(process.pid)
            if process.lives:
                found.append(process)
    return found


def zombies(parent: int) -> list[Process]:
    """Return the children of ``parent`` that have ended and that it has not reaped."""
    return [process for process in _children().get(parent, ()) if not process.lives]


def is_orphaned() -> bool:
    """Return whether our process group is orphaned (setpgid(2)): no shell above it could continue it."""
    ours, parent = os.getpgrp(), os.getppid()
    with contextlib.suppress(ProcessLookupError):
        while parent and os.getpgid(parent) == ours:
            above = read_process(parent)
            parent = above.ppid if above is not None else 0
        return not parent or os.getsid(parent) != os.getsid(0)
    return True


def pid_scope() -> str:
    """Return what says where, and since which boot, process ids are those of this process: boot id, PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {pid_namespace()}"


def pid_namespace() -> int:
    """Return the inode of this process's PID namespace (pid_namespaces(7)); containers may share /tmp but not this."""
    return Path("/proc/self/ns/pid").stat().st_ino


def in_sessions_of(known: Collection[tuple[int, int]]) -> list[Process]:
    """Return this user's living processes in the sessions of the ``known`` ones, and below them.

    Not those in the sessions of our ancestors: we may have been started in a shell of theirs.

    The kernel does not use a session's number again while a process is in that session (free_pid in its pid.c). So one
    known process that still exists proves that its session is the known one, with all that is in it.

    :param known: process ids, each with its start time.
    """
    children = _children()
    everything = {process.pid: process for siblings in children.values() for process in siblings}
    sessions = {everything[pid].session for pid, started in known if _is(everything.get(pid), started)}
    excluded, above = set(), os.getpid()
    while above in everything:
        excluded.add(above)
        sessions.discard(everything[above].session)
        above = everything[above].ppid
    members = [p for p in everything.values() if p.session in sessions and p.pid not in excluded]
    below = _below([process.pid for process in members], children, excluded)
    found = {process.pid: process for process in (*members, *below) if process.lives and is_own(process)}
    return list(found.values())


def _is(process: Process | None, started: int) -> bool:
    return process is not None and process.started == started


def is_alive(process: Process) -> bool:
    """Return whether exactly this process lives; a zombie does not."""
    now = read_process(process.pid)
    return now is not None and _is(now, process.started) and now.lives


def is_own(process: Process) -> bool:
    """Return whether this user runs it; any user can run one of any name, with any command line."""
    try:
        return os.stat(f"/proc/{process.pid}").st_uid == os.geteuid()  # noqa: PTH116 (many)
    except OSError:
        return False


def send(process: Process, signum: int) -> None:
    """Signal exactly this process: a pidfd never refers to a later process with the same id."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        fd = os.pidfd_open(process.pid)
        try:
            if _is(read_process(process.pid), process.started):
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def socket_files(processes: Sequence[Process]) -> list[str]:
    """Return the UNIX socket files that ``processes`` hold, which stay in the file system when they are killed."""
    held: set[str] = set()
    for process in processes:
        with contextlib.suppress(OSError):
            for fd in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    held.add(os.readlink(fd.path))  # noqa: PTH115 (many)
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:  # noqa: PTH123
            rows = [row.split(maxsplit=7) for row in table]
    except OSError:
        return []
    return [row[7].rstrip("\n") for row in rows if len(row) == 8 and row[7][0] == "/" and f"socket:[{row[6]}]" in held]


def kill_descendants(root: int, excluded: Container[int] = ()) -> tuple[int, Sequence[Process]]:
    """Kill and reap everything below ``root`` except ``excluded``; return how many were killed, and the survivors.

    Orphans of a killed process become children of ``root`` (a subreaper), so the next look finds them.
    """

    def wait() -> None:
        reap_strangers()
        signal.sigtimedwait([signal.SIGCHLD], timeouts.PROCESS_TABLE_LOOK_AGAIN_S)

    killed, victims = kill(lambda: descendants(root, excluded), wait)
    reap_strangers()
    return killed, victims


def kill(look: Callable[[], Sequence[Process]], wait: Callable[[], object]) -> tuple[int, Sequence[Process]]:
    """Kill what ``look`` finds until it finds nothing; return how many were killed, and the survivors.

    :param wait: called after each round; waits for the killed to end.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + timeouts.KILL_S
    while (victims := look()) and time.monotonic() < deadline:
        for process in victims:
            send(process, signal.SIGKILL)
            killed.add(process.pid)
        wait()
    return len(killed), victims


def has_children() -> bool:
    """Return whether this process has a child, living or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_group_of_ended_child() -> None:
    """Kill the process group of a child that is not yet reaped, in one instant: nothing in it can fork on.

    The group is still the child's: its number is not used again before the child is reaped.
    """
    with contextlib.suppress(ChildProcessError, ProcessLookupError, PermissionError):
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and (group := os.getpgid(ended.si_pid)) != os.getpgrp():
            os.killpg(group, signal.SIGKILL)


def reap_strangers() -> None:
    """Reap every child that has ended; only for a process that does not wait for particular children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def ending(wait_status: int | None) -> str:
    """Return how a process ended, as the end of a sentence; None stands for an unknown status."""
    if wait_status is None:
        return "ended; its exit status is unknown"
    if os.WIFSIGNALED(wait_status):
        return f"was killed by {signals.name_of(os.WTERMSIG(wait_status))}"
    return f"exited with status {os.WEXITSTATUS(wait_status)}"


def exit_status(wait_status: int) -> int:
    """Return a wait status as a shell reports it: the exit code, or 128 + the signal number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code
