"""The agent: the run on this node from the first child process to the last log line, and what can interrupt it."""

import asyncio
import os
import resource
import signal

from bootstrap import cleanup, rendezvous
from bootstrap.errors import RayDied, Stopped
from bootstrap.files.runtime_dir import RuntimeDir, pid_namespace
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Phase, Role, Verdict
from bootstrap.preflight.prepare import identify
from bootstrap.process.bounded import Call, run_in_thread
from bootstrap.process.children import Children
from bootstrap.process.supervisor import forwarded_signals, unblock_signals
from bootstrap.raynode.environment import for_starter
from bootstrap.raynode.starter import Starter
from bootstrap.run.context import Context
from bootstrap.run.head import run_head
from bootstrap.run.shutdown import end_run
from bootstrap.run.worker import run_worker
from bootstrap.settings import Settings

_SHOWN = ("run_id", "role", "rank", "size")
"""Fields of the identity that ``ray-bootstrap status`` shows."""
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)


def run_agent(settings: Settings, host: Host, runtime: RuntimeDir, supervisor: int) -> int:
    """Bring the cluster up, run the workload, shut everything down and return the exit status.

    :param supervisor: a file descriptor that becomes readable (end of file) when the supervisor has ended.
    """
    # Not asyncio.run(): it would wait at the end for a thread that a resolver blocks until it times out.
    return asyncio.new_event_loop().run_until_complete(_run(settings, host, runtime, supervisor))


async def _run(settings: Settings, host: Host, runtime: RuntimeDir, supervisor: int) -> int:
    log = Log(as_json=settings.log_format == "json", threaded=True)
    run = Context(settings, host, log, Children(), runtime)
    runtime.set_state(pid=os.getpid(), pid_namespace=pid_namespace())
    handle_signals(run, supervisor)
    line = await run.lifecycle.run(the_line(run))
    status = await end_run(run, line)
    log.close()
    return status


def handle_signals(run: Context, supervisor: int) -> None:
    """Make signals, and the end of the supervisor, stop the run from now on.

    :param supervisor: as for :func:`run_agent`.
    """
    loop, lifecycle = asyncio.get_running_loop(), run.lifecycle

    def pass_on(signum: int) -> None:
        if lifecycle.on_signal is not None:
            lifecycle.on_signal(signum)
        else:
            name = signal.Signals(signum).name
            run.log.warn(f"ignored {name}: this node runs no workload to pass it on to")

    def supervisor_gone() -> None:
        loop.remove_reader(supervisor)
        lifecycle.stop(
            RayDied(f"the supervisor on {run.host.hostname} (the process that the launcher started) was killed")
        )
        lifecycle.force_stop.set()

    for signum in forwarded_signals().intersection(_STOPPING):
        stopped = Stopped(signum, f"stopped by {signal.Signals(signum).name}")
        loop.add_signal_handler(signum, lifecycle.stop, stopped)
    for signum in forwarded_signals().intersection(_PASSED_ON):
        loop.add_signal_handler(signum, pass_on, signum)
    loop.add_reader(supervisor, supervisor_gone)
    unblock_signals()


async def the_line(run: Context) -> Verdict:
    """Identify this node, start importing Ray, run as head or worker, and return the verdict."""
    if run.runtime.fault:
        run.log.warn(f"`ray-bootstrap status` will not see this run: {run.runtime.fault}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    identity, notes = await run_in_thread(None, lambda: identify(run.settings, run.host))
    run.lifecycle.identity, run.log.rank = identity, identity.rank
    run.enter(Phase.PREPARING, **{name: getattr(identity, name) for name in _SHOWN})
    starter = await Starter.spawn(run.children, for_starter(run.host))
    # In its own thread, since the shared folder of a killed run may hang.
    Call(lambda: cleanup.remove_ended_runs(run.settings.keep_logs, run.log.say))
    for note in notes:
        run.log.warn(note)
    _introduce(run, identity)
    meeting = rendezvous.make(run.settings, identity, run.host)
    if meeting.record is not None:
        run.note(owned_dirs=meeting.record.owned_dirs)
    node_main = run_head if identity.role is Role.HEAD else run_worker
    return await node_main(run, identity, meeting, starter)


def _introduce(run: Context, identity: NodeIdentity) -> None:
    of = "" if identity.size is None else f" of {identity.size}"
    rank = "not numbered" if identity.rank is None else identity.rank
    run.log.say(
        f"{run.host.hostname} is {identity.role.value}, rank {rank}{of}, of run {identity.run_id!r}"
        f" (launcher {identity.launcher}; rank: {identity.sources.get('rank', '?')})"
    )
