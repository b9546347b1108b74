"""The agent: the run on this node from the first child process to the last log line, and what can interrupt it."""

import asyncio
import dataclasses
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bootstrap import cleanup, rendezvous, timeouts
from bootstrap.cgroup import OomCount, oom_score_adj
from bootstrap.errors import IdentityError, RayDied, Stopped
from bootstrap.files import claim
from bootstrap.files.runtime_dir import PARENT, PREFIX, RuntimeDir
from bootstrap.host import Host, raise_soft_limits
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Phase, Role, Verdict
from bootstrap.preflight.prepare import identify
from bootstrap.process import signals
from bootstrap.process.bounded import Call, TimedOut, run_in_thread
from bootstrap.process.children import Children
from bootstrap.process.table import Process, pid_namespace, start_time
from bootstrap.raynode.environment import for_starter
from bootstrap.raynode.session import Held
from bootstrap.raynode.starter import Starter
from bootstrap.run.caller import Caller
from bootstrap.run.context import Context
from bootstrap.run.shutdown import end_run
from bootstrap.run.timeline import Timeline
from bootstrap.settings import Settings

_SHOWN = ("run_id", "attempt", "role", "rank", "size")
"""Fields of the identity that ``ray-bootstrap status`` shows."""
_IGNORED_BY_DEFAULT = (signal.SIGWINCH, signal.SIGURG)


def run_agent(
    settings: Settings,
    host: Host,
    runtime: RuntimeDir,
    above: Sequence[int],
    oom: OomCount,
    check_only: bool = False,
    caller: Caller | None = None,
    first: Process | None = None,
) -> int:
    """Bring the cluster up, run the workload, shut everything down and return the exit status.

    :param above: pipes from the processes above the agent (:data:`bootstrap.process.supervisor.Agent`).
    :param check_only: whether to check all nodes and how they reach each other, without Ray and workload.
    :param caller: what called ``up``, if the agent stays behind it.
    :param first: the process that the launcher or the user started.
    """
    log = Log(as_json=settings.log_format == "json", threaded=True)
    loop = asyncio.new_event_loop()  # not asyncio.run(): it would wait at the end for a thread that a resolver blocks

    async def start() -> int:
        children = Children(oom_score_adj(host))
        timeline = Timeline() if first is None else Timeline(start_time(first))
        context = Context(
            settings,
            host,
            log,
            children,
            runtime,
            oom,
            check_only=check_only,
            caller=caller or Caller(),
            timeline=timeline,
        )
        return await _run(with_recorders(context), above)

    return loop.run_until_complete(start())


def with_recorders(run: Context) -> Context:
    """Return the context with what writes the files of ``--trace`` and ``--metrics-file``."""
    settings, timeline, lifecycle = run.settings, run.timeline, run.lifecycle
    trace = metrics = None
    if settings.trace is not None:
        from bootstrap.run.trace import Trace  # noqa: PLC0415 (only with the option)

        trace = Trace(Path(settings.trace), timeline, run.host.hostname, lambda: lifecycle.identity, run.log)
    if settings.metrics_file is not None:
        from bootstrap.run.metrics import Metrics  # noqa: PLC0415 (the same)

        path, state = Path(settings.metrics_file), run.runtime.state
        metrics = Metrics(path, timeline, lambda: lifecycle.identity, state, run.log)
    return dataclasses.replace(run, trace=trace, metrics=metrics)


async def _run(run: Context, above: Sequence[int]) -> int:
    log = run.log
    run.runtime.set_state(pid=os.getpid(), pid_namespace=pid_namespace())
    handle_signals(run, above)
    # Not once the run ends: as a second signal it would cut the grace short.
    run.caller.watch(lambda reason: None if run.lifecycle.reason else run.lifecycle.stop(reason))
    line = await run.lifecycle.run(the_line(run))
    status = await end_run(run, line)
    claim.release()
    log.close()
    return status


def handle_signals(run: Context, above: Sequence[int]) -> None:
    """Make signals, and the end of a process above the agent, stop the run from now on.

    :param above: as for :func:`run_agent`.
    """
    loop = asyncio.get_running_loop()
    for pipe in above:
        loop.add_reader(pipe, _read_signals, run, pipe)
    for signum in signals.forwarded().intersection(signals.FROM_LAUNCHERS):
        loop.add_signal_handler(signum, _on_signal, run, signum, None)
    signals.restore(run.host)


def _read_signals(run: Context, pipe: int) -> None:
    for signum in (received := os.read(pipe, 64)):
        _on_signal(run, signum, pipe)
    if not received:
        asyncio.get_running_loop().remove_reader(pipe)
        what = f"the supervisor or the standby on {run.host.hostname}, a process above the agent, was killed"
        run.lifecycle.stop(RayDied(what))
        run.lifecycle.force_stop.set()


def _on_signal(run: Context, signum: int, receiver: int | None) -> None:
    """Stop the run, or pass the signal on to the workload.

    :param receiver: the pipe of the process that received it, or None for the agent itself.
    """
    name = signals.name_of(signum)
    if signum in signals.STOPPING:
        run.lifecycle.stop(Stopped(signum, f"stopped by {name}"), receiver)
    elif run.lifecycle.on_signal is not None:
        run.lifecycle.on_signal(signum)
    elif signum not in _IGNORED_BY_DEFAULT:
        run.log.warn(f"ignored {name}: no workload runs on this node")


async def the_line(run: Context) -> Verdict:
    """Identify this node, start importing Ray, run as head or worker or attach to a Ray, and return the verdict."""
    run.timeline.enter(Phase.PREPARING)
    if run.runtime.fault:
        run.log.warn(f"`ray-bootstrap status` will not see this run: {run.runtime.fault}")
    raise_soft_limits(resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    identity, notes = await run_in_thread(None, lambda: identify(run.settings, run.host))
    run.lifecycle.identity, run.log.rank = identity, identity.rank
    _claim_node(run, identity)
    run.enter(Phase.PREPARING, **{name: getattr(identity, name) for name in _SHOWN})
    attached = identity.role is Role.DRIVER
    starter = (
        None if run.check_only and not attached else await Starter.spawn(run.children, for_starter(run.host), run.oom)
    )
    if starter is not None:
        starter.on_imported = partial(run.timeline.add, "import ray", starter.began)
        run.note_processes(run.children.below(starter.child))
    held = await _end_survivors(run)
    # In its own thread, since the shared folder of a killed run may hang.
    Call(lambda: cleanup.remove_ended_runs(run.settings.keep_logs, run.log.say, held))
    for note in notes:
        run.log.warn(note)
    _introduce(run, identity)
    if attached and starter is not None:
        from bootstrap.run.attach import run_attached  # noqa: PLC0415 (as below)

        return await run_attached(run, identity, starter)
    meeting = rendezvous.make(run.settings, identity, run.host)
    if meeting.record is not None:
        run.note(owned_dirs=meeting.record.owned_dirs)
    # Imported now, beside Ray, whose import the starter has begun: their 40 modules must not delay it.
    if identity.role is Role.HEAD:
        from bootstrap.run.head import run_head as run_node  # noqa: PLC0415
    else:
        from bootstrap.run.worker import run_worker as run_node  # noqa: PLC0415
    return await run_node(run, identity, meeting, starter)


def _claim_node(run: Context, identity: NodeIdentity) -> None:
    """Make this agent the only one of the run on this node, where no variable tells a second one.

    :raises IdentityError: if there is one already.
    """
    if not identity.one_process:
        return
    folder = claim.path(identity.run_hash, identity.attempt, run.host.hostname)
    try:
        claim.take(folder)
    except BlockingIOError:
        what = f"another process of run {identity.run_id!r} (attempt {identity.attempt}) is on {run.host.hostname}"
        raise IdentityError(f"{what}: expected one on each node", hint=identity.one_process) from None
    except OSError as error:
        run.log.warn(f"a second process of this run on this node would not be noticed: {folder}: {error.strerror}")
        return
    run.note(claim=str(folder))  # not before: until then it may be another process's, which this one must not release


async def _end_survivors(run: Context) -> Mapping[Path, Held]:
    """End what outlived earlier runs whose agents were killed: it may hold ports and GPUs that this run needs."""
    try:
        return await run_in_thread(timeouts.SURVIVORS_S, lambda: cleanup.end_survivors(run.log.say))
    except TimedOut:
        what = f"the search for processes of earlier runs timed out after {timeouts.SURVIVORS_S:g} s"
        run.log.warn(f"{what}: a folder {PARENT}/{PREFIX}* does not answer")
        return {}


def _introduce(run: Context, identity: NodeIdentity) -> None:
    if identity.role is Role.DRIVER:
        ray = f"the Ray at {identity.head_hints[0]} ({identity.sources['head']})"
        run.log.say(f"{run.host.hostname} attaches to {ray}, as run {identity.run_id!r}; it starts none")
        return
    of = "" if identity.size is None else f" of {identity.size}"
    rank = "not numbered" if identity.rank is None else identity.rank
    run.log.say(
        f"{run.host.hostname} is {identity.role.value}, rank {rank}{of}, of run {identity.run_id!r}"
        f" (launcher {identity.launcher}; rank: {identity.sources.get('rank', '?')})"
    )
