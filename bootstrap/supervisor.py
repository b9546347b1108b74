"""The process that the launcher sees: it forks the agent, passes signals on, reaps, and clears up behind a dead agent.

Two processes, each of which survives the other's SIGKILL long enough to end what both started:

* the agent is killed (by the kernel's OOM killer, say): the supervisor, as the nearest subreaper or as PID 1, is now
  the parent of everything that the agent started, and kills it;
* the supervisor is killed: the agent reads end of file from a pipe that only the supervisor held open, and tears down.

It is one short loop in the manner of tini: signals stay blocked and are fetched with sigwaitinfo(2), so there are no
handlers and nothing is lost, not even a signal that arrives before the interpreter is up as PID 1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bootstrap import process

FORWARDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
"""What is passed on to the agent, and by it to the workload."""
_WAITED = FORWARDED | {signal.SIGCHLD}


def block_signals() -> None:
    """Keep signals pending until somebody is there to take them; the first thing that the program does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)


def unblock_signals() -> None:
    """Back to the default actions, for the commands that need no supervisor and for the agent's own handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)


def supervise(agent: Callable[[int], int]) -> int:
    """Run ``agent`` in a forked child and return its exit status; everything below is gone by then.

    :param agent: called with a file descriptor that becomes readable (end of file) when this process is gone.
    """
    block_signals()
    process.become_subreaper()
    alive, held = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        _be_the_agent(agent, alive)
    os.close(alive)
    wait_status = _wait_for(pid)
    orphans = process.descendants(os.getpid())
    sockets = process.socket_files(orphans)
    left = process.kill_descendants(os.getpid())
    if os.WIFSIGNALED(wait_status):  # the agent itself; that of a workload that was killed is an exit code by now
        why = ", most likely for want of memory" if os.WTERMSIG(wait_status) == signal.SIGKILL else ""
        print(
            f"ray-bootstrap: the agent (pid {pid}) was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}{why};"
            f" ended the {left} processes that it had started",
            file=sys.stderr,
        )
        _clear_up_behind(pid, sockets)
    return process.exit_status(wait_status)


def _clear_up_behind(agent: int, sockets: Sequence[str]) -> None:
    """Remove the files of an agent that could not; a record in a shared folder stays, for the roll call to fence."""
    from bootstrap import ray_node, state  # noqa: PLC0415 (only then; the supervisor stays small)

    ray_node.remove_sockets(sockets)
    facts = state.bury(agent)
    if session := facts.get("session"):
        ray_node.clean(Path(str(session)), str(facts.get("gcs", "")))


def _be_the_agent(agent: Callable[[int], int], alive: int) -> None:
    """The child's whole life. A session of its own: Ctrl-C reaches the supervisor alone, and is passed on once."""
    status = 70
    try:
        os.setsid()
        status = agent(alive)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # No interpreter shutdown: a thread that is stuck in getaddrinfo(3) would hold the node for its time-out.
        os._exit(status)


def _wait_for(agent: int) -> int:
    """Forward signals and reap (also strangers, as PID 1 must) until the agent has ended; its wait status."""
    while True:
        info = signal.sigwaitinfo(_WAITED)
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
