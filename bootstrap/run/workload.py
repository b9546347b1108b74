"""The user's command on the head: its start, its end and its status; or a cluster that stays without one."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap import timeouts
from bootstrap.errors import Stopped
from bootstrap.model import Phase, Verdict
from bootstrap.process import signals
from bootstrap.process.children import Child, Children
from bootstrap.process.executable import NOT_EXECUTABLE, NOT_FOUND
from bootstrap.process.table import exit_status, is_alive, send
from bootstrap.run.context import Context


async def stay_without(run: Context) -> None:
    """Wait until something stops the run."""
    run.log.say(f"no workload was given: the cluster stays until {run.caller.end_of_stay()}")
    run.caller.note(Phase.RUNNING)
    await asyncio.get_running_loop().create_future()


async def run(run: Context, env: Mapping[str, str]) -> Verdict:
    """Run the workload and return its verdict; if the run is stopped, signal it and allow it ``--grace``."""
    lifecycle, grace = run.lifecycle, run.settings.grace
    if not run.settings.workload:
        await stay_without(run)
    if lifecycle.reason is not None:
        raise asyncio.CancelledError  # the run was stopped before the workload started
    started = start(run.children, run.settings.workload, env)
    if isinstance(started, tuple):
        return not_started(*started)
    run.note_processes(run.children.below(started))
    lifecycle.on_signal = started.signal
    try:
        status = await asyncio.shield(started.exited)
    except asyncio.CancelledError:
        signum = lifecycle.reason.signum if isinstance(lifecycle.reason, Stopped) else signal.SIGTERM
        passing = f"passing {signals.name_of(signum)} on to the workload"
        run.log.say(f"{passing}; {grace:g} s of grace; a second signal ends the grace")
        await finish(run.children, started, signum, grace, lifecycle.force_stop)
        run.log.say(ending(started))
        raise
    return Verdict(status, ending(started))


def start(children: Children, argv: Sequence[str], env: Mapping[str, str]) -> Child | tuple[int, str]:
    """Start the workload with the agent's standard streams; if that fails, return the exit status and the reason."""
    try:
        return children.spawn(argv, env, stdin=None)
    except FileNotFoundError:
        if Path(argv[0]).exists():
            return NOT_FOUND, f"the interpreter in the first line of {argv[0]!r} is not found"
        return NOT_FOUND, f"{argv[0]!r} is not found on PATH"
    except OSError as error:
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: {error.strerror}"


async def finish(children: Children, child: Child, signum: int, grace: float, force_stop: asyncio.Event) -> None:
    """Signal the workload's process group, then kill what is left of it and its descendants.

    Descendants count, too: SIGTERM ends ``sh -c 'python train.py; ...'`` at once, while Python still saves its work.

    :param grace: seconds between the signal and SIGKILL; ``force_stop`` cuts them short.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    started = children.below(child)
    child.signal(signum)
    child.signal(signal.SIGCONT)  # a stopped process handles the signal only once it continues
    while (left := [p for p in started if is_alive(p)]) and loop.time() < deadline and not force_stop.is_set():
        await asyncio.sleep(timeouts.PROCESS_TABLE_LOOK_AGAIN_S)  # the end of a grandchild raises no event
    for process in left:
        send(process, signal.SIGKILL)
    await asyncio.wait([child.exited], timeout=timeouts.KILL_S)


def ending(child: Child) -> str:
    """Return how the workload ended, as a sentence."""
    if child.wait_status is None:
        return f"the workload has not ended {timeouts.KILL_S:g} s after SIGKILL"
    status = exit_status(child.wait_status)
    if os.WIFSIGNALED(child.wait_status):
        how = f" ({signals.name_of(os.WTERMSIG(child.wait_status))})"
    else:  # a shell's, whose command was killed, or any other
        how = f" (128 + {signals.name_of(status - 128)})" if 128 < status < 128 + signal.NSIG else ""
    return f"the workload ended with status {status}{how}"


def not_started(status: int, why: str) -> Verdict:
    """Return the verdict on a workload that could not be started."""
    return Verdict(status, f"the workload could not be started: {why}")
