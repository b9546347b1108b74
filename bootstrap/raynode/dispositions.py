"""The signals that Ray's daemons ignore, and how its Python workers get the default back.

With ProctrackType=proctrack/linuxproc or pgid Slurm sends SIGUSR1 and SIGUSR2, which mean the program, to every process
of a step; by default they end a process, and the end of GCS or a raylet ends the node. A disposition of "ignore" is
inherited through fork(2) and execve(2), so the process that becomes ``ray start`` sets it for all that Ray starts.
"""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

from bootstrap.raynode.patches import Arguments

_IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""SIGINT: the agent alone decides what Ctrl-C does. ``default_worker.py`` gives each of these back."""
_WORKER = Path(__file__).with_name("default_worker.py")


def ignore() -> None:
    """Ignore them in this process and in all that it starts."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)


@contextlib.contextmanager
def give_back(given: Arguments) -> Iterator[None]:
    """Have the raylet's Python workers begin with ours (``worker_path`` of ``start_raylet``)."""
    given["worker_path"] = str(_WORKER)
    yield
