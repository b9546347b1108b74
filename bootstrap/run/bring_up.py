"""The steps that head and worker share when they start: inspect the node, start Ray, watch its daemons."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

from bootstrap import timeouts
from bootstrap.errors import RayDied, RayStartFailed
from bootstrap.model import NodeIdentity
from bootstrap.node.inspection import Node
from bootstrap.preflight.prepare import Prepared, judge, prepare
from bootstrap.process.bounded import Call, TimedOut, run_in_thread, wait_for
from bootstrap.raynode import command, session
from bootstrap.raynode.starter import Starter, start
from bootstrap.run.context import Context


async def prepare_node(run: Context, identity: NodeIdentity) -> Prepared:
    """Inspect this node, correct /etc/hosts and run the preflight checks; return the prepared node.

    :raises BootstrapError: saying why the node is unfit.
    """
    prepared = await run_in_thread(None, lambda: prepare(run.settings, run.host, identity, run.runtime.ray_dir))
    judge(prepared, run.log)
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
    head: bool = False,
) -> None:
    """Start Ray on this node and watch its daemons.

    :param ports: from :func:`bootstrap.raynode.ports.choose`.
    :param gcs: GCS's address: the one to join for a worker, its own for the head.
    :raises RayStartFailed: with the cause, also if Ray does not start within ``--quorum-timeout``.
    """
    try:
        node.temp_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RayStartFailed(f"{node.temp_dir}: {error.strerror}", hint="--temp-dir=DIR on a local disk") from None
    earlier = session.session_names(node.temp_dir)
    run.note(ray_dir=str(node.temp_dir), gcs=gcs, earlier_sessions=earlier, starter=starter.child.pid, session="")
    limit = run.settings.quorum_timeout
    try:
        argv = command.start_argv(node, ports, None if head else gcs)
        await wait_for(limit, start(starter, argv, env, node.temp_dir))
    except TimedOut:
        what = f"`ray start` timed out after {limit:g} s\n{starter.printed()}"
        raise RayStartFailed(what, hint="check for a slow file system; --quorum-timeout waits longer") from None
    daemons = session.daemons(run.children.alive())
    if "raylet" not in {daemon.name for daemon in daemons}:
        raise RayStartFailed("`ray start` reported success, but no raylet is running")
    found = next(filter(None, map(session.session_of, daemons)), None)
    run.note(session=str(found or ""))
    for daemon in daemons:
        run.children.watch(daemon, lambda name=daemon.name: _daemon_ended(run, name, found))  # type: ignore[misc]


def _daemon_ended(run: Context, name: str, ray_session: Path | None) -> None:
    """Stop the run, with the causes in Ray's logs if they can be read in time."""
    loop, causes = asyncio.get_running_loop(), []

    def read() -> None:
        if ray_session is not None:
            causes.extend(session.causes(ray_session))

    def stop() -> None:  # the second call changes nothing
        run.lifecycle.stop(RayDied("\n".join([f"Ray's {name} on {run.host.hostname} ended unexpectedly", *causes])))

    def stop_soon() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            # A signal to all processes may have ended it; then the agent gets it, too, and it is the reason.
            loop.call_soon_threadsafe(loop.call_later, timeouts.DAEMON_OR_SIGNAL_S, stop)

    run.lifecycle.daemon_exited.set()
    Call(read, stop_soon)
    loop.call_later(timeouts.READ_LOGS_S, stop)
