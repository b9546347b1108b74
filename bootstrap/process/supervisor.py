"""The process that the launcher sees: it forks the agent, forwards signals, reaps, and cleans up after a dead agent.

Either process can be killed with SIGKILL, and the other ends what both have started:

* If the agent is killed (by the kernel's OOM killer, say), the supervisor inherits everything that the agent started,
  as the nearest subreaper or as PID 1, and kills it.
* If the supervisor is killed, the agent reads end of file from a pipe that only the supervisor held open, and shuts
  down.

The supervisor is one short loop, like tini: it keeps signals blocked and fetches them with sigwaitinfo(2). It has no
handlers and loses no signal, not even one that arrives before the interpreter is up as PID 1.
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
"""Takes the agent's exit status, why it ended, and its processes that still run; returns the clean-up tasks to run
once those have ended."""


def forwarded_signals() -> frozenset[signal.Signals]:
    """Return the signals that go on to the agent and its workload, without those that nohup(1) had us ignore."""
    return frozenset(signum for signum in _FORWARDED if signal.getsignal(signum) is not signal.SIG_IGN)


def block_signals() -> None:
    """Keep signals pending until there is a handler; the program does this first."""
    # Some parents leave SIGCHLD ignored; the kernel would then reap our children and discard their statuses.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarded_signals() | {signal.SIGCHLD})


def unblock_signals() -> None:
    """Deliver signals again, for commands that run without a supervisor and for the agent's own handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded_signals() | {signal.SIGCHLD})


def open_std_fds() -> None:
    """Open /dev/null where standard input, output or error is closed, so that no later file gets its descriptor."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def flush() -> None:
    """Flush standard output and error; a closed pipe must not change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def supervise(agent: Callable[[int], int], on_killed: OnKilled = lambda _status, _reason, _running: ()) -> int:
    """Run ``agent`` in a forked child, end everything it leaves behind, and return its exit status.

    :param agent: called with a file descriptor that becomes readable (end of file) when this process has ended.
    :param on_killed: called if a signal killed the agent.
    """
    block_signals()
    # A script with `something & exec ray-bootstrap ...` leaves us children that are not the agent's.
    excluded = {process.pid for process in table.descendants(os.getpid())}
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
    if os.WIFSIGNALED(wait_status):  # the agent itself: it reports a killed workload as an exit code
        oom = ", likely OOM-killed" if os.WTERMSIG(wait_status) == signal.SIGKILL else ""
        reason = f"the agent (pid {pid}) was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}{oom}"
        _end_dead_agent(status, reason, excluded, on_killed)
    else:
        table.kill_descendants(os.getpid(), excluded)
    return status


def _end_dead_agent(status: int, reason: str, excluded: Container[int], on_killed: OnKilled) -> None:
    """Kill what a dead agent had started, log that, and run the clean-up tasks; give up on those that hang."""
    clean_ups = on_killed(status, reason, table.descendants(os.getpid(), excluded))
    ended, _ = table.kill_descendants(os.getpid(), excluded)

    def say() -> None:
        # Not through sys.stderr: a stuck write would hold its lock and block the final flush.
        what = f"{reason}; ended the {ended} processes that it had started"
        line = f"ray-bootstrap: exit status {status} (from ray-bootstrap: killed): {what}\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())

    calls = [Call(task) for task in (say, *clean_ups)]
    deadline = time.monotonic() + timeouts.DEAD_AGENT_S
    for call in calls:
        with contextlib.suppress(TimedOut):
            call.result(max(0.0, deadline - time.monotonic()))


def _run_agent_child(agent: Callable[[int], int], alive: int) -> None:
    """Run the agent in its own session: Ctrl-C reaches the supervisor alone, which forwards it once."""
    status = 70
    try:
        os.setsid()
        status = agent(alive)
    finally:
        flush()
        # No interpreter shutdown: a thread stuck in getaddrinfo(3) would delay the exit until it times out.
        os._exit(status)


def _wait_for(agent: int) -> int:
    """Forward signals and reap all children, as PID 1 must, until the agent ends; return its wait status."""
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
