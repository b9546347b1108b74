"""A worker that a signal has stopped while it is part of the cluster: whether it stays or drains, and until when."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bootstrap import timeouts
from bootstrap.errors import RayStartFailed
from bootstrap.model import NodeIdentity, Phase
from bootstrap.raynode import command
from bootstrap.raynode.starter import Starter
from bootstrap.rollcall.client import Membership
from bootstrap.run.context import Context

_SECOND_SIGNAL = "a second signal ends the grace"


async def leave_in_peace(run: Context, identity: NodeIdentity, env: Mapping[str, str], membership: Membership) -> None:
    """Let the work on this node finish after a signal has stopped it.

    If the head is stopping, too, this node stays as it is: the workload may save its work by new tasks, and Ray never
    gives a drained node another one. Else Ray drains it, and its daemons end as soon as it is idle. Return when they
    have ended, when the head has a verdict, after ``--grace``, or on a second signal.
    """
    grace, lifecycle, clock = run.settings.grace, run.lifecycle, asyncio.get_running_loop().time
    until = clock() + grace
    tasks: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(flag.wait()) for flag in (lifecycle.force_stop, lifecycle.daemon_exited)
    ]
    over: set[asyncio.Future[Any]] = {membership.ended, *tasks}
    membership.report_stopped()
    first = min(timeouts.STOPPED_ANSWER_S, grace)
    await asyncio.wait({*over, membership.stays}, timeout=first, return_when=asyncio.FIRST_COMPLETED)
    if membership.stays.done() and membership.stays.result():
        what = f"{lifecycle.reason}, and the head is stopping, too: this node stays for the workload"
        run.log.say(f"{what}, {grace:g} s at most; {_SECOND_SIGNAL}")
    elif not any(future.done() for future in over):
        membership.report(Phase.LEAVING, str(lifecycle.reason))
        run.enter(Phase.LEAVING)
        tasks.append(asyncio.ensure_future(drain(run, identity, env, until)))
    await asyncio.wait(over, timeout=max(0.0, until - clock()), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def drain(run: Context, identity: NodeIdentity, env: Mapping[str, str], until: float) -> None:
    """Have Ray drain this node; keep enough of the grace to send bye to the head and to end all processes.

    :param until: the end of the grace, on the event loop's clock.
    """
    grace, clock = run.settings.grace, asyncio.get_running_loop().time
    least = timeouts.STOPPED_ANSWER_S + timeouts.DRAIN_START_S + timeouts.DRAIN_RESERVE_S
    if grace < least:
        run.log.warn(
            f"{run.lifecycle.reason}: --grace={grace:g} is too short to drain Ray, so tasks here are killed;"
            f" fix: --grace={least:g} or more"
        )
        return
    run.log.say(f"{run.lifecycle.reason}: draining Ray; {grace:g} s of grace; {_SECOND_SIGNAL}")
    address, labels = run.runtime.manifest.gcs, command.run_labels(identity)
    try:
        starter = await Starter.spawn(run.children, env, run.oom)
        await starter.ready()
        left = int(until - timeouts.DRAIN_RESERVE_S - clock())
        if left < 1:
            raise RayStartFailed(f"importing Ray used up the {grace:g} s of grace")
        answer = await starter.ask("drain", address=address, labels=labels, seconds=left)
    except RayStartFailed as error:
        answer = {"error": error.message}
    if "error" in answer:
        run.log.warn(f"Ray did not drain this node: {answer['error']}")
