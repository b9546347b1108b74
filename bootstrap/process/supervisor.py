"""The processes above the agent: they forward signals, reap, and clean up after a dead agent.

The launcher sees the *supervisor*. Its forked child, the *standby*, is a second supervisor, and the parent of the
agent. Whichever two of the three are killed with SIGKILL, the third ends what all have started:

* If the agent is killed (by the kernel's OOM killer, say), the standby inherits everything that the agent started, as
  the nearest subreaper, and kills it; the supervisor does so if the standby was killed, too.
* If the supervisor or the standby is killed, the agent reads end of file from a pipe that only that process held open,
  and shuts down.

PID 1 has no standby, since the kernel ends everything in a PID namespace with its PID 1
(pid_namespaces(7)).

Each is one short loop, like tini: it keeps signals blocked and fetches them with sigwaitinfo(2). It has no handlers,
and from the moment when it blocks signals it loses none. Before that moment PID 1 does: the kernel drops signals that
PID 1 neither handles nor blocks. Python takes some 50 ms to get here, so the image's entrypoint blocks them first.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable, Sequence

from bootstrap import timeouts
from bootstrap.process import signals, table
from bootstrap.process.bounded import Call, TimedOut
from bootstrap.process.table import Process

Agent = Callable[[Sequence[int]], int]
"""Takes a pipe's end for each process above it, the supervisor first. Each byte in it is the number of a signal that
this process received, and its end of file is the end of this process. Returns the exit status."""
OnKilled = Callable[[int, str, Sequence[Process]], tuple[str, Iterable[Callable[[], object]]]]
"""Takes the agent's exit status, why it ended, and its processes that still run; returns why, with what else is known
of it, and the clean-up tasks to run once those have ended."""


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


def supervise(agent: Agent, on_killed: OnKilled = lambda _status, reason, _running: (reason, ())) -> int:
    """Run ``agent`` below a supervisor and a standby, end everything it leaves behind, and return its exit status.

    :param on_killed: called if a signal killed the agent or the standby.
    """

    def standby(above: Sequence[int]) -> int:
        return _supervise(agent, "agent", on_killed, above)

    return _supervise(agent, "agent", on_killed) if os.getpid() == 1 else _supervise(standby, "standby", on_killed)


def _supervise(child: Agent, name: str, on_killed: OnKilled, above: Sequence[int] = ()) -> int:
    """Run ``child`` in a forked process, end everything it leaves behind, and return its exit status."""
    signals.block()
    # A script with `something & exec ray-bootstrap ...` leaves us children that are not the agent's.
    excluded = {process.pid for process in table.descendants(os.getpid())}
    table.become_subreaper()
    received, forward = os.pipe()
    os.set_blocking(forward, False)  # an agent that is stuck must not block this process
    flush()
    pid = os.fork()
    if pid == 0:
        os.close(forward)
        _run_child(child, [*above, received])
    os.close(received)
    wait_status = _wait_for(pid, forward, None if above else excluded)
    status = table.exit_status(wait_status)
    if os.WIFSIGNALED(wait_status):  # the child itself: the agent reports a killed workload as an exit code
        reason = f"the {name} (pid {pid}) {table.ending(wait_status)}"
        _end_dead_agent(status, reason, excluded, on_killed)
    else:
        table.kill_descendants(os.getpid(), excluded)
    return status


def _end_dead_agent(status: int, reason: str, excluded: Container[int], on_killed: OnKilled) -> None:
    """Kill what a dead agent had started, log that, and run the clean-up tasks; give up on those that hang."""
    reason, clean_ups = on_killed(status, reason, table.descendants(os.getpid(), excluded))
    ended, _ = table.kill_descendants(os.getpid(), excluded)

    def say() -> None:
        # Not through sys.stderr: a stuck write would hold its lock and block the final flush.
        processes = "1 process" if ended == 1 else f"{ended} processes"
        what = f"{reason}; killed the {processes} that it had left"
        line = f"ray-bootstrap: exit status {status} (from ray-bootstrap: killed): {what}\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())

    calls = [Call(task) for task in (say, *clean_ups)]
    deadline = time.monotonic() + timeouts.DEAD_AGENT_S
    for call in calls:
        with contextlib.suppress(TimedOut):
            call.result(max(0.0, deadline - time.monotonic()))


def _run_child(child: Agent, above: Sequence[int]) -> None:
    """Run the child in its own session: Ctrl-C reaches the supervisor alone, which forwards it once."""
    status = 70
    try:
        os.setsid()
        status = child(above)
    finally:
        flush()
        # No interpreter shutdown: a thread stuck in getaddrinfo(3) would delay the exit until it times out.
        os._exit(status)


def _wait_for(child: int, forward: int, excluded: Container[int] | None) -> int:
    """Forward signals and reap all children, as PID 1 must, until ``child`` ends; return its wait status.

    :param forward: the pipe for the numbers of the signals.
    :param excluded: what is not suspended with this process; None if job control is left to the process above.
    """
    waited = signals.forwarded() | signals.job_control() | {signal.SIGCHLD}
    while True:
        signum = signal.sigwaitinfo(waited).si_signo
        if signum == signal.SIGCHLD:
            if (wait_status := _reap(child)) is not None:
                return wait_status
        elif signum in signals.JOB_CONTROL:
            if excluded is not None:
                _suspend_or_continue(signum, excluded)
        else:
            with contextlib.suppress(OSError):
                os.write(forward, bytes([signum]))


def _suspend_or_continue(signum: int, excluded: Container[int]) -> None:
    """Stop everything below this process and then itself, or continue what is below it.

    As the kernel does with SIGTSTP, do not stop where no shell could continue us: then Ctrl-C would be of no use.
    """
    if signum != signal.SIGCONT:
        if table.is_orphaned():
            return
        _signal_all(signal.SIGSTOP, excluded)  # SIGTSTP does not stop a session that no shell controls
        if signal.sigtimedwait([signal.SIGCONT], 0) is None:  # else it came meanwhile, and SIGSTOP would discard it
            os.kill(os.getpid(), signal.SIGSTOP)
            return  # SIGCONT is pending now
    _signal_all(signal.SIGCONT, excluded)


def _signal_all(signum: int, excluded: Container[int]) -> None:
    """Signal everything below this process, and look again until there is none that is new: it may fork meanwhile."""
    seen: set[int] = set()
    while new := [p for p in table.descendants(os.getpid(), excluded) if p.pid not in seen]:
        for process in new:
            table.send(process, signum)
            seen.add(process.pid)


def _reap(child: int) -> int | None:
    """Reap what has ended; return the wait status of ``child`` if it has."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                return ended[1]
    return None
