"""One run on this node: what head and worker have in common, and how either is stopped.

A run is one task, the *line*. Whatever wants it to end (a signal, a dead daemon, a lost node) records its reason and
cancels the task where it waits; :mod:`bootstrap.run.shutdown` then makes it a verdict, tells everybody and clears up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap import preflight, rendezvous
from bootstrap.errors import BootstrapError, PreflightFailed, RayDied, RayStartFailed, Stopped
from bootstrap.files import manifest
from bootstrap.files.runtime_dir import StateFile
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Verdict
from bootstrap.node import hosts_file
from bootstrap.node import inspection as nodes
from bootstrap.node.inspection import Node
from bootstrap.process import table
from bootstrap.process.bounded import run_in_thread, wait_for
from bootstrap.process.children import Child, Children
from bootstrap.process.table import Process
from bootstrap.raynode import session as ray_session
from bootstrap.raynode.starter import Starter, start
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.server import RollCall
from bootstrap.settings import Settings

_ONE_SIGNAL = 0.5
"""Seconds within which the same signal twice counts once."""
_SIGNAL_DELAY = 0.1
_INSPECTION = 60.0
"""Seconds for NVML on a node of many GPUs without the persistence daemon, generously."""


@dataclass
class Session:
    """What Ray has been started with here, and what of it has to go."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Of everything that is started."""
    ray: Starter | None = None
    folder: Path | None = None
    """Ray's ``--temp-dir``."""
    gcs: str = ""
    before: frozenset[str] = frozenset()
    """The sessions that were below it before ours."""
    path: Path | None = None
    """Ours."""
    quorum: bool = False
    """Whether the workload could start."""


def note_session(session: Session, running: Sequence[Process]) -> None:
    """Learn the session's folder from the raylet among ``running``; also of a start that was interrupted."""
    found = (ray_session.session_folder(daemon) for daemon in ray_session.daemons(running))
    session.path = session.path or next((path for path in found if path), None)


def remove_session(session: Session) -> Path | None:
    """Remove what Ray's session left but its logs; returns where these are."""
    path = session.path
    if path is None and session.folder is not None and session.ray is not None:
        path = ray_session.session_begun(session.folder, session.before, session.ray.child.pid)
    if path is None:
        return None
    ray_session.clean(path, session.gcs)
    return ray_session.logs_of(path)


@dataclass
class Run:
    """One run on this node, from the first child to the last line."""

    settings: Settings
    host: Host
    log: Log
    children: Children
    meeting: rendezvous.Rendezvous = field(default_factory=rendezvous.nowhere)
    state: StateFile = field(default_factory=StateFile)
    begun: float = field(default_factory=time.monotonic)
    line: asyncio.Task[Verdict] | None = None
    reason: BootstrapError | None = None
    """Why the line was cancelled; the first one wins."""
    force_stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a second signal: no more grace."""
    daemon_exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when one of Ray's daemons on this node has ended."""
    stopped_at: float = 0.0
    identity: NodeIdentity | None = None
    workload: Child | None = None
    call: RollCall | None = None
    membership: Membership | None = None
    generated_secret: manifest.FileDigests = field(default_factory=dict)
    """The file of the secret that was made for this run."""
    session: Session = field(default_factory=Session)

    @property
    def seconds(self) -> float:
        """Since the run began here."""
        return time.monotonic() - self.begun

    def stop(self, reason: BootstrapError) -> None:
        """End the line, for this reason unless there is one already; a second signal takes the grace away.

        Slurm without cgroups, and systemd, signal every process at once: we hear it from our supervisor, too.
        """
        now = time.monotonic()
        if self.reason is None and self.line is not None and not self.line.done():
            self.reason, self.stopped_at = reason, now
            self.line.cancel()
        elif isinstance(reason, Stopped):  # we are ending already
            same = isinstance(self.reason, Stopped) and self.reason.status == reason.status
            if not (same and now - self.stopped_at < _ONE_SIGNAL):
                self.force_stop.set()

    def phase(self, name: str, **facts: object) -> None:
        """Note how far this node is, for ``ray-bootstrap status``."""
        self.state.update(phase=name, **facts)


async def inspect(me: Run, identity: NodeIdentity) -> Node | BootstrapError:
    """Inspect this node, put its hosts file right and judge it.

    :returns: why it is unfit, where it is: a node that cannot take part tells the others so before it ends.
    """
    try:
        return await _inspect(me, identity)
    except BootstrapError as error:
        return error


async def _inspect(me: Run, identity: NodeIdentity) -> Node:
    """In a thread: NVML, resolvers and folders take their time."""

    def work() -> tuple[Node, hosts_file.HostsOutcome, list[preflight.Finding]]:
        node = nodes.inspect(me.settings, me.host, identity)
        outcome = hosts_file.ensure(me.settings.hosts, node.address, me.host)
        told = dataclasses.replace(me.host, env={**me.host.env, **outcome.env})
        return node, outcome, preflight.run(dataclasses.replace(node, host=told))

    try:
        node, outcome, findings = await run_in_thread(_INSPECTION, work)
    except asyncio.TimeoutError:
        raise PreflightFailed(
            f"the inspection of this node has not ended after {_INSPECTION:g} s: NVML, a name server or a folder hangs",
            hint="`nvidia-smi`, `getent hosts $(hostname)` and `ls` of the folders tell which; --num-gpus=N skips NVML",
        ) from None
    me.session.env = node.environment(node.secret, outcome)
    if outcome.changed:
        me.log.say(f"{hosts_file.FILE}: {node.address.hostname} now means {node.address.ip}")
    if outcome.note:
        me.log.warn(outcome.note)
    preflight.warn(findings, me.settings.ignore_check, me.log)
    preflight.judge(findings, me.settings.ignore_check)
    gpus = f", {node.resources.num_gpus} GPUs" if node.resources.num_gpus else ""
    source = node.address.sources.get("ip", "?")
    me.log.say(f"fit: {node.address.ip} ({source}), {node.resources.cpus} CPUs{gpus}")
    return node


async def start_ray(
    me: Run, node: Node, ray: Starter, ports: dict[str, int], gcs_to_join: str | None, gcs: str
) -> None:
    """Start Ray on this node and watch its daemons.

    :param gcs_to_join: GCS's address for a worker, None for the head.
    :param gcs: GCS's address.
    :raises RayStartFailed: with the cause.
    """
    try:
        node.temp_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RayStartFailed(f"{node.temp_dir}: {error.strerror}", hint="--temp-dir=DIR on a local disk") from None
    session, before = me.session, ray_session.session_names(node.temp_dir)
    session.folder, session.gcs, session.before = node.temp_dir, gcs, before
    me.state.update(folder=str(node.temp_dir), gcs=gcs, before=sorted(before), starter=ray.child.pid)
    argv = node.start_argv(ports, gcs_to_join)
    starting = start(ray, argv, me.session.env, node.temp_dir, time.time())
    try:
        await wait_for(me.settings.quorum_timeout, starting)
    except asyncio.TimeoutError:
        what = f"`ray start` did not end within {me.settings.quorum_timeout:g} s\n{ray.printed()}"
        raise RayStartFailed(what, hint="--quorum-timeout waits longer; is a file system slow?") from None
    daemons = ray_session.daemons(me.children.alive())
    note_session(me.session, daemons)
    if "raylet" not in {daemon.name for daemon in daemons}:
        raise RayStartFailed("`ray start` said that it succeeded, but there is no raylet")
    if session.path is not None:
        me.state.update(session=str(session.path))
    for daemon in daemons:
        me.children.watch(daemon, lambda name=daemon.name: _daemon_ended(me, name))  # type: ignore[misc]


async def end_all(me: Run, grace: float) -> Sequence[str]:
    """End everything below us; returns the socket files that it held."""
    running = me.children.alive()
    note_session(me.session, running)
    sockets = set(table.socket_files(running))
    left = await me.children.end_all(grace, lambda frozen: sockets.update(table.socket_files(frozen)))
    if left:
        names = ", ".join(f"{p.name} (pid {p.pid}, state {p.state})" for p in left[:8])
        me.log.warn(f"not even SIGKILL ended {names}: another user's, or stuck in the kernel")
    return sorted(sockets)


def _daemon_ended(me: Run, name: str) -> None:
    me.daemon_exited.set()
    # If a signal to all processes ended it, ours is on its way, and is the reason.
    asyncio.get_running_loop().call_later(_SIGNAL_DELAY, lambda: me.stop(_daemon_died(me, name)))


def _daemon_died(me: Run, name: str) -> RayDied:
    lines = ray_session.causes(me.session.path) if me.session.path else []
    return RayDied("\n".join([f"Ray's {name} on {me.host.hostname} ended by itself", *lines]))
