"""The agent: from the first child to the last line, and what may interrupt it on the way."""

from __future__ import annotations

import asyncio
import resource
import signal

from bootstrap import rendezvous
from bootstrap.errors import IdentityError, RayDied, Stopped
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.log import Log
from bootstrap.model import Role, Verdict
from bootstrap.process.bounded import run_in_thread
from bootstrap.process.children import Children
from bootstrap.process.supervisor import forwarded_signals, unblock_signals
from bootstrap.raynode.starter import Starter
from bootstrap.run import shutdown
from bootstrap.run.context import Run
from bootstrap.run.head import run_head
from bootstrap.run.worker import run_worker
from bootstrap.settings import Settings

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)
_IDENTITY = 60.0
"""Seconds for a name server, as some launchers say a name; C's resolver gives up before."""


def run(settings: Settings, host: Host, supervisor: int) -> int:
    """Bring the cluster up, run the workload, take all down again; returns the exit status.

    :param supervisor: a file descriptor that becomes readable when our supervisor is gone.
    """
    # Not asyncio.run(): it would wait at the end for a thread that a resolver holds up for its own time-out.
    return asyncio.new_event_loop().run_until_complete(_run(settings, host, supervisor))


async def _run(settings: Settings, host: Host, supervisor: int) -> int:
    loop = asyncio.get_running_loop()
    me = Run(settings, host, Log(as_json=settings.log_format == "json", threaded=True), Children())
    for signum in forwarded_signals().intersection(_STOPPING):
        stopped = Stopped(signum, f"stopped by {signal.Signals(signum).name}")
        loop.add_signal_handler(signum, me.stop, stopped)
    for signum in forwarded_signals().intersection(_PASSED_ON):
        loop.add_signal_handler(signum, _pass_on, me, signum)
    loop.add_reader(supervisor, _supervisor_gone, me, supervisor)
    unblock_signals()
    me.line = asyncio.ensure_future(_line(me))
    await asyncio.wait([me.line])
    status = await shutdown.end(me)
    me.log.close()
    return status


def _pass_on(me: Run, signum: int) -> None:
    if me.workload is not None:
        me.workload.signal(signum)
    else:
        me.log.warn(f"{signal.Signals(signum).name} ignored: there is no workload on this node to pass it on to")


def _supervisor_gone(me: Run, supervisor: int) -> None:
    asyncio.get_running_loop().remove_reader(supervisor)
    me.stop(RayDied(f"the agent on {me.host.hostname} was killed (SIGKILL to its process that the launcher sees)"))
    me.force_stop.set()


async def _line(me: Run) -> Verdict:
    if fault := me.state.open():
        me.log.warn(fault)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        identity, notes = await run_in_thread(_IDENTITY, lambda: identify(me.settings, me.host))
    except asyncio.TimeoutError:
        what = f"who this node is has not been found out after {_IDENTITY:g} s: a name server hangs"
        raise IdentityError(what, hint="--head-address=ADDRESS instead of a name, or --rank and --nodes") from None
    me.identity, me.log.rank = identity, identity.rank
    me.phase("inspecting", run_id=identity.run_id, role=identity.role.value, rank=identity.rank, size=identity.size)
    ray = await Starter.spawn(me.children, me.host.env)
    me.session.ray = ray
    for note in notes:
        me.log.warn(note)
    of = "" if identity.size is None else f" of {identity.size}"
    rank = "not numbered" if identity.rank is None else identity.rank
    me.log.say(
        f"{me.host.hostname} is {identity.role.value}, rank {rank}{of}, of run {identity.run_id!r}"
        f" (launcher {identity.launcher}; rank: {identity.sources.get('rank', '?')})"
    )
    me.meeting = rendezvous.make(me.settings, identity, me.host)
    return await (run_head(me, identity, ray) if identity.role is Role.HEAD else run_worker(me, identity, ray))
