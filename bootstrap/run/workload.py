"""The user's command on the head: its start, its end and its status."""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap import timeouts
from bootstrap.model import Verdict
from bootstrap.process.children import Child, Children
from bootstrap.process.table import is_alive, send

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""A shell's statuses for a command that cannot be started (POSIX 2.8.2)."""


def find_fault(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, str] | None:
    """Return status and reason if the workload cannot be started, as far as that shows without starting it."""
    path = os.pathsep.join(os.get_exec_path(env)) or os.pathsep  # as execvpe(3): empty means this folder
    if not argv or shutil.which(argv[0], path=path) is not None:
        return None
    if shutil.which(argv[0], os.F_OK, path) is not None or ("/" in argv[0] and Path(argv[0]).exists()):
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: it is a folder, or lacks the permission"
    return NOT_FOUND, f"{argv[0]!r} is not found on PATH"


def start(children: Children, argv: Sequence[str], env: Mapping[str, str]) -> Child | tuple[int, str]:
    """Start the workload with our standard input, output and error; or return status and reason why it cannot be."""
    try:
        return children.spawn(argv, env, stdin=None)
    except FileNotFoundError:
        if Path(argv[0]).exists():
            return NOT_FOUND, f"the interpreter that {argv[0]!r} names in its first line is not there"
        return NOT_FOUND, f"{argv[0]!r} is not found on PATH"
    except OSError as error:
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: {error.strerror}"


async def finish(children: Children, child: Child, signum: int, grace: float, force_stop: asyncio.Event) -> int:
    """Signal the workload's process group; it and all that it started have ``grace`` seconds, less on ``force_stop``.

    Not only it: ``sh -c 'python train.py; ...'`` ends of SIGTERM at once, while the program below it saves its work.

    :returns: the workload's status.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    started = children.below(child)
    child.signal(signum)
    child.signal(signal.SIGCONT)  # a stopped process would hear of it only when it goes on
    while (left := [p for p in started if is_alive(p)]) and loop.time() < deadline and not force_stop.is_set():
        await asyncio.sleep(timeouts.PROCESS_TABLE_LOOK_AGAIN_S)  # a grandchild's end is no event
    for process in left:
        send(process, signal.SIGKILL)
    await asyncio.wait([child.exited], timeout=timeouts.KILL_S)
    return child.exited.result() if child.exited.done() else 128 + signal.SIGKILL


def not_started(status: int, why: str) -> Verdict:
    """Return the verdict on a workload that could not be started."""
    return Verdict(status, f"the workload could not be started: {why}")
