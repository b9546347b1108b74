"""The signals that Ray's daemons ignore, and how its Python workers get the default back.

With ProctrackType=proctrack/linuxproc or pgid Slurm sends SIGUSR1 and SIGUSR2, which mean the program, to every process
of a step; by default they end a process, and the end of GCS or a raylet ends the node. A disposition of "ignore" is
inherited through fork(2) and execve(2), so the process that becomes ``ray start`` sets it for all that Ray starts.
"""

import functools
import importlib
import inspect
import signal
from pathlib import Path
from typing import Any

_IGNORED = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""SIGINT: the agent alone decides what Ctrl-C does. ``default_worker.py`` gives each of these back."""
_WORKER = Path(__file__).with_name("default_worker.py")


def ignore() -> None:
    """Ignore them in this process and in all that it starts."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)


def patch_worker_path() -> None:
    """Patch Ray in this process so that the raylet's Python workers begin with ours (``start_raylet``, services.py).

    A Ray version with other names starts its own: tasks then inherit what its daemons ignore.
    """
    try:
        services: Any = importlib.import_module("ray._private.services")
        stock = services.start_raylet
        signature = inspect.signature(stock)
    except (ImportError, AttributeError):
        return
    if "worker_path" not in signature.parameters:
        return

    @functools.wraps(stock)
    def start_raylet(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments["worker_path"] = str(_WORKER)
        return stock(*given.args, **given.kwargs)

    services.start_raylet = start_raylet
