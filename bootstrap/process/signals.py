"""Which signals the supervisor forwards, and the signal mask that the workload inherits.

Signals are blocked before anything else and restored in the agent. What was blocked before stays blocked for the
workload, as with tini: whoever blocked it had a reason. The image's entrypoint is the exception (docs/image.md): it
blocks signals before Python starts, since PID 1 would lose them, and marks that with a variable.
"""

import os
import signal
from collections.abc import Set as AbstractSet

from bootstrap.errors import Stopped
from bootstrap.host import Host

ENTRYPOINT_MARK = "RAY_BOOTSTRAP_SIGNALS"
"""The variable is ``blocked`` if the entrypoint has blocked them."""
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""They stop the run; all others that are forwarded only go on to the workload."""
FROM_LAUNCHERS = STOPPING | {signal.SIGUSR1, signal.SIGUSR2}
"""Those that launchers send: the entrypoint blocks them, and the agent handles one that it is sent directly. All others
reach the agent through its supervisors only."""
_FAULTS = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT})
"""The first three suspend this node; SIGCONT continues it."""
_NOT_FORWARDED = JOB_CONTROL | {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD} | _FAULTS
_inherited: AbstractSet[int] | None = None


def forwarded() -> frozenset[int]:
    """Return the signals that go on to the agent and its workload, but not those ignored at our start (nohup(1))."""
    return _not_ignored(signal.valid_signals() - _NOT_FORWARDED)


def stopping() -> frozenset[int]:
    """Return the signals that stop the run, but not those ignored at our start (nohup(1))."""
    return _not_ignored(STOPPING)


def job_control() -> frozenset[int]:
    """Return the signals by which a shell suspends the processes of this node and lets them continue."""
    return _not_ignored(JOB_CONTROL)


def _not_ignored(signals: AbstractSet[int]) -> frozenset[int]:
    return frozenset(signum for signum in signals if signal.getsignal(signum) is not signal.SIG_IGN)


def name_of(signum: int) -> str:
    """Return ``SIGTERM`` for 15; ``signal 40`` for a real-time signal, which has no name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def block() -> None:
    """Keep signals pending until there is a handler; the program does this first."""
    global _inherited  # noqa: PLW0603 (the mask is the process's)
    # Some parents leave SIGCHLD ignored; the kernel would then reap our children and discard their statuses.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded() | job_control() | {signal.SIGCHLD})
    if _inherited is None:
        _inherited = before


def restore(host: Host) -> None:
    """Restore the inherited mask, without what the entrypoint has blocked, and always with SIGCHLD delivered.

    :raises Stopped: as PID 1 without a supervisor, if a signal is pending: the kernel would drop it.
    """
    if os.getpid() == 1 and (pending := signal.sigpending() & STOPPING):
        raise Stopped(min(pending), f"stopped by {name_of(min(pending))}")
    own = FROM_LAUNCHERS if host.get(ENTRYPOINT_MARK) == "blocked" else frozenset()
    signal.pthread_sigmask(signal.SIG_SETMASK, (_inherited or set()) - own - {signal.SIGCHLD})
