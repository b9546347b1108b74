"""The steps that head and worker share when they start: inspect the node, start Ray, watch its daemons."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bootstrap import preflight, timeouts
from bootstrap.errors import RayDied, RayStartFailed, Stopped, with_tracebacks
from bootstrap.files import ownership
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.model import NodeIdentity, Role
from bootstrap.node.inspection import Node
from bootstrap.preflight import folders
from bootstrap.preflight.prepare import Prepared, judge, prepare
from bootstrap.process.bounded import Call, TimedOut, run_in_thread, wait_for
from bootstrap.process.table import Process, start_time
from bootstrap.raynode import command, endings, session
from bootstrap.raynode.starter import Starter, start
from bootstrap.raynode.telling import is_telling
from bootstrap.run.context import Context
from bootstrap.run.notices import FROM_HEAD
from bootstrap.run.progress import Progress, Report

_ASKED = ", as by `ray stop`, `ray down` or an autoscaler that removes the node"


async def prepare_node(run: Context, identity: NodeIdentity) -> Prepared:
    """Inspect this node, correct /etc/hosts and run the preflight checks; return the prepared node.

    :raises BootstrapError: saying why the node is unfit.
    """
    prepared = await run_in_thread(None, lambda: prepare(run.settings, run.host, identity, run.runtime.ray_dir))
    run.set_state(findings=len(prepared.findings))
    judge(prepared, run.log, FROM_HEAD if identity.role is Role.WORKER else ())
    node = prepared.node
    gpus = f", {node.resources.num_gpus} GPUs" if node.resources.num_gpus else ""
    source = node.address.sources.get("ip", "?")
    run.log.say(f"fit: {node.address.ip} ({source}), {node.resources.cpus} CPUs{gpus}")
    return prepared


async def start_ray(
    run: Context,
    node: Node,
    starter: Starter,
    env: Mapping[str, str],
    ports: Mapping[str, int],
    gcs: str,
    *,
    limit: float,
    report: Report = lambda _how_far: None,
    head: bool = False,
) -> None:
    """Start Ray on this node and watch its daemons.

    :param ports: from :func:`bootstrap.raynode.ports.choose`.
    :param gcs: GCS's address: the one to join for a worker, its own for the head.
    :param limit: seconds for it.
    :param report: called with how far it is, if it takes long.
    :raises RayStartFailed: with the cause, also if Ray does not start within ``limit``.
    """
    earlier = await make_ray_dir(run, node, starter.child.pid)
    run.note(ray_dir=str(node.temp_dir), gcs=gcs, earlier_sessions=earlier, starter=starter.child.pid, session="")

    def say(how_far: str) -> None:
        run.log.say(f"starting Ray takes long: {how_far}")
        report(how_far)

    progress = Progress(starter, node.temp_dir, say)
    try:
        argv = command.start_argv(node, ports, None if head else gcs)
        await wait_for(limit, start(starter, argv, env, node.temp_dir, partial(_note_started, run, progress)))
    except TimedOut:
        raise _too_slow(starter, limit, progress.describe()) from None
    daemons = session.daemons(run.children.alive())
    if "raylet" not in {daemon.name for daemon in daemons}:
        raise RayStartFailed("`ray start` reported success, but no raylet is running")
    _time_daemons(run, daemons)
    found = Path(run.runtime.manifest.session) if run.runtime.manifest.session else None
    for daemon in daemons:
        run.children.watch(daemon, partial(_daemon_ended, run, daemon.name, found))


def _time_daemons(run: Context, daemons: Sequence[Process]) -> None:
    """Note how long this node's GCS and raylet took: the raylet until now, when this node is registered."""
    began = {daemon.name: start_time(daemon) for daemon in daemons}
    if "gcs_server" in began:
        run.timeline.add("GCS", began["gcs_server"], began["raylet"])
    run.timeline.add("raylet", began["raylet"])


def _too_slow(starter: Starter, limit: float, how_far: str) -> RayStartFailed:
    printed = starter.printed()
    what = f"`ray start` timed out after {limit:.3g} s, all that --quorum-timeout left for it"
    what += f": {how_far}" if how_far else ""
    why = "\n".join(line for line in starter.said() if not is_telling(line))
    hint = endings.remedy_of(f"{how_far}\n{printed}")
    slow = "check for a slow file system or a busy machine; --quorum-timeout waits longer"
    return RayStartFailed(f"{what}\n{why}".rstrip(), hint=hint or slow, details=with_tracebacks(printed))


def _note_started(run: Context, progress: Progress) -> None:
    """Note the processes that there are by now, and Ray's session: either may outlive its parent within `ray start`."""
    started = run.children.alive()
    run.note_processes(started)
    daemons = session.daemons(started)
    found = next(filter(None, map(session.session_of, daemons)), None)
    if found is not None and str(found) != run.runtime.manifest.session:
        run.note(session=str(found))
    progress.look(daemons)


async def make_ray_dir(run: Context, node: Node, starter: int) -> list[str]:
    """Make Ray's folder where no other user can enter it, whatever the preflight found there minutes ago.

    :param starter: the process id of the starter.
    :returns: the names of the sessions in the folder that could be taken for those of this starter.
    :raises RayStartFailed, PreflightFailed: if it cannot be made so.
    """
    closed = node.closed_dir
    if closed is not None:
        run.note(closed_dir=str(closed))
    try:
        earlier = await run_in_thread(timeouts.RAY_DIR_S, lambda: _make_ray_dir(node, run.runtime, starter))
    except TimedOut:
        what = f"{node.temp_dir}: making Ray's folder timed out after {timeouts.RAY_DIR_S:g} s"
        raise RayStartFailed(what, hint="--temp-dir=DIR on a local disk") from None
    if closed is not None and node.settings.temp_dir is not None:
        run.log.say(f"Ray's folder is {node.temp_dir}: other users can enter every folder above {closed}")
    return earlier


def _make_ray_dir(node: Node, runtime: RuntimeDir, starter: int) -> list[str]:
    asked, closed = node.settings.temp_dir, node.closed_dir
    try:
        if asked is None and runtime.fault:
            raise RayStartFailed(f"Ray has no folder: {runtime.fault}", hint="--temp-dir=DIR on a local disk")
        # What another user has put among the folders above since the preflight is a finding, too: before we make
        # anything there, and once they all exist.
        preflight.judge(list(folders.temp_dir(node)), node.settings.ignore_check)
        if asked is not None:
            ownership.make_closed(closed or node.temp_dir)
            preflight.judge(list(folders.temp_dir(node)), node.settings.ignore_check)
        if closed is None:
            if not ownership.is_enclosed(node.temp_dir):
                raise RayStartFailed(f"others can now enter every folder above {node.temp_dir}", hint="start it again")
            return session.session_names(node.temp_dir, starter)
        with ownership.opened(closed, closed=True) as folder:
            if asked is None and not os.path.samestat(os.fstat(folder), os.fstat(runtime.lock)):
                raise RayStartFailed(f"{closed} is no longer the folder that this agent made", hint="start it again")
            with contextlib.suppress(FileExistsError):
                os.mkdir(node.temp_dir.name, 0o700, dir_fd=folder)
        return []
    except OSError as error:
        what = f"{error.filename or node.temp_dir}: {error.strerror}"
        raise RayStartFailed(what, hint="--temp-dir=DIR on a local disk") from None


def _daemon_ended(run: Context, name: str, ray_session: Path | None, wait_status: int | None) -> None:
    """Stop the run, with the causes in Ray's logs if they can be read in time.

    Where there is no workload, asking Ray to end is a way to stop the run, as a signal is.
    """
    loop, causes, what = asyncio.get_running_loop(), [], f"Ray's {name} on {run.host.hostname}"
    asked = ""

    def read() -> None:
        nonlocal asked
        if ray_session is not None:
            causes.extend(session.causes(ray_session))
            asked = session.asked_to_end(ray_session) if wait_status == 0 and not run.settings.workload else ""

    def stop() -> None:  # the second call changes nothing
        if asked:
            if run.lifecycle.running and run.lifecycle.reason is None:
                run.lifecycle.stop(Stopped(signal.SIGTERM, f"{what} was asked to end ({asked}){_ASKED}"))
            return
        why = "\n".join([endings.describe({what: wait_status}, run.oom.since()), *causes])
        run.lifecycle.stop(RayDied(why, hint=endings.remedy(why)))

    def stop_soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            # A signal to all processes may have ended it; then the agent gets it, too, and it is the reason.
            loop.call_soon_threadsafe(loop.call_later, timeouts.DAEMON_OR_SIGNAL_S, stop)

    run.lifecycle.daemon_exited.set()
    Call(read, stop_soon)
    loop.call_later(timeouts.READ_LOGS_S, stop)
