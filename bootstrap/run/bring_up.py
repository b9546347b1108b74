"""What head and worker have in common on the way up: inspect the node, start Ray, watch its daemons."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bootstrap import timeouts
from bootstrap.errors import RayDied, RayStartFailed
from bootstrap.model import NodeIdentity
from bootstrap.node.inspection import Node
from bootstrap.preflight.prepare import Prepared, judge, prepare
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.raynode import command, session
from bootstrap.raynode.starter import Starter, start
from bootstrap.run.context import Context


async def prepare_node(run: Context, identity: NodeIdentity) -> Prepared:
    """Inspect this node, put /etc/hosts right and check it.

    :raises BootstrapError: why it is unfit.
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

    :param gcs: GCS's address: for a worker the one to join, for the head its own.
    :raises RayStartFailed: with the cause.
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
        raise RayStartFailed(what, hint="--quorum-timeout waits longer; is a file system slow?") from None
    daemons = session.daemons(run.children.alive())
    if "raylet" not in {daemon.name for daemon in daemons}:
        raise RayStartFailed("`ray start` reported success, but there is no raylet")
    found = next(filter(None, map(session.session_of, daemons)), None)
    run.note(session=str(found or ""))
    for daemon in daemons:
        run.children.watch(daemon, lambda name=daemon.name: _daemon_ended(run, name, found))  # type: ignore[misc]


def _daemon_ended(run: Context, name: str, ray_session: Path | None) -> None:
    def stop() -> None:
        lines = session.causes(ray_session) if ray_session else []
        run.lifecycle.stop(RayDied("\n".join([f"Ray's {name} on {run.host.hostname} ended by itself", *lines])))

    run.lifecycle.daemon_exited.set()
    # If a signal to all processes ended it, ours is on its way, and is the reason.
    asyncio.get_running_loop().call_later(timeouts.DAEMON_OR_SIGNAL_S, stop)
