"""The process that the launcher sees: it forks the agent, passes signals on, reaps, and clears up behind a dead agent.

Two processes, each of which survives the other's SIGKILL long enough to end what both started:

* the agent is killed (by the kernel's OOM killer, say): the supervisor, as the nearest subreaper or as PID 1, is now
  the parent of everything that the agent started, and kills it;
* the supervisor is killed: the agent reads end of file from a pipe that only the supervisor held open, and tears down.

It is one short loop in the manner of tini: signals stay blocked and are fetched with sigwaitinfo(2), so there are no
handlers and nothing is lost, not even a signal that arrives before the interpreter is up as PID 1.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable, Sequence

from bootstrap import timeouts
from bootstrap.process import table
from bootstrap.process.bounded import Call, TimedOut
from bootstrap.process.table import Process

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

OnKilled = Callable[[int, str, Sequence[Process]], Iterable[Callable[[], object]]]
"""Given the agent's status, why it ended, and what it had started and still runs: what to do once that has ended."""


def forwarded_signals() -> frozenset[signal.Signals]:
    """The signals that are passed on to the agent, and by it to the workload: not what nohup(1) has us ignore."""
    return frozenset(signum for signum in _FORWARDED if signal.getsignal(signum) is not signal.SIG_IGN)


def block_signals() -> None:
    """Keep signals pending until somebody is there to take them; the first thing that the program does."""
    # Ignored, as some parents leave it, our children would reap themselves.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded_signals() | {signal.SIGCHLD})


def unblock_signals() -> None:
    """Back to the default actions, for the commands that need no supervisor and for the agent's own handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded_signals() | {signal.SIGCHLD})


def open_std_fds() -> None:
    """Put /dev/null where standard input, output or error are closed, or our next files would take their places."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def flush() -> None:
    """Write out what is buffered, as far as somebody reads it: that nobody does must not change the status."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def supervise(agent: Callable[[int], int], on_killed: OnKilled = lambda _status, _reason, _running: ()) -> int:
    """Run ``agent`` in a forked child and return its exit status; everything below is gone by then.

    :param agent: called with a file descriptor that becomes readable (end of file) when this process is gone.
    :param on_killed: called if a signal killed the agent.
    """
    block_signals()
    # `something & exec ray-bootstrap ...` in a script: children, but not the agent's.
    excluded = {stranger.pid for stranger in table.descendants(os.getpid())}
    table.become_subreaper()
    alive, held = os.pipe()
    flush()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        _run_agent_child(agent, alive)
    os.close(alive)
    wait_status = _wait_for(pid)
    status = table.exit_status(wait_status)
    if os.WIFSIGNALED(wait_status):  # the agent itself; that of a workload that was killed is an exit code by now
        oom = ", likely OOM-killed" if os.WTERMSIG(wait_status) == signal.SIGKILL else ""
        reason = f"the agent (pid {pid}) was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}{oom}"
        _end_dead_agent(status, reason, excluded, on_killed)
    else:
        table.kill_descendants(os.getpid(), excluded)
    return status


def _end_dead_agent(status: int, reason: str, excluded: Container[int], on_killed: OnKilled) -> None:
    """End what a killed agent had started, say so, and have it cleaned up; what hangs is given up."""
    clean_ups = on_killed(status, reason, table.descendants(os.getpid(), excluded))
    ended, _ = table.kill_descendants(os.getpid(), excluded)

    def say() -> None:
        # Not through sys.stderr, whose lock a stuck write would keep from the last flush.
        line = f"ray-bootstrap: {reason}; ended the {ended} processes that it had started\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())

    calls = [Call(task) for task in (say, *clean_ups)]
    deadline = time.monotonic() + timeouts.DEAD_AGENT_S
    for call in calls:
        with contextlib.suppress(TimedOut):
            call.result(max(0.0, deadline - time.monotonic()))


def _run_agent_child(agent: Callable[[int], int], alive: int) -> None:
    """The child's whole life. A session of its own: Ctrl-C reaches the supervisor alone, and is passed on once."""
    status = 70
    try:
        os.setsid()
        status = agent(alive)
    finally:
        flush()
        # No interpreter shutdown: a thread that is stuck in getaddrinfo(3) would hold the node for its time-out.
        os._exit(status)


def _wait_for(agent: int) -> int:
    """Forward signals and reap (also strangers, as PID 1 must) until the agent has ended; its wait status."""
    waited = forwarded_signals() | {signal.SIGCHLD}
    while True:
        info = signal.sigwaitinfo(waited)
        if info.si_signo != signal.SIGCHLD:
            os.kill(agent, info.si_signo)
            continue
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == agent:
                return wait_status
            if pid == 0:
                break
