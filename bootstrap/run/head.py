"""The head: serve the roll call → start Ray → release the workers → quorum → workload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from bootstrap import rendezvous
from bootstrap.errors import (
    BootstrapError,
    HeadNotFound,
    QuorumTimeout,
    RayDied,
    RayStartFailed,
    Refused,
    Stopped,
    remote_error,
)
from bootstrap.files import runtime_dir, secret
from bootstrap.model import HeadAddress, NodeIdentity, Role, Verdict, join_host_port
from bootstrap.node.inspection import Node
from bootstrap.parsers import host_port
from bootstrap.process.bounded import run_in_thread, wait_for
from bootstrap.raynode import command
from bootstrap.raynode import ports as ray_ports
from bootstrap.raynode.session import remove_sockets
from bootstrap.raynode.starter import Starter
from bootstrap.rendezvous import discovery
from bootstrap.rollcall.server import Member, RollCall
from bootstrap.rollcall.wire import Hello
from bootstrap.run import quorum, workload
from bootstrap.run.context import Run, end_all, inspect, remove_session, start_ray
from bootstrap.run.hello import make_hello
from bootstrap.settings import Settings, fixed_ports

_LOOK_AGAIN = 0.05
"""Seconds between two looks at the dashboard's port."""
_TURNED_AWAY = 5
"""Lines about strangers in a time-out's message."""
_STOPPED_FIRST = 5.0
"""Seconds between a node that was told to stop and a head that is told so, too, such as by scancel."""
_START_TRIES = 3
"""Of the head's Ray, when another program took a port between our choosing it and Ray's binding it."""


async def run_head(me: Run, identity: NodeIdentity, ray: Starter) -> Verdict:
    """The head: roll call → Ray → announce → release → quorum → workload."""
    node, changed = await inspect(me, identity), asyncio.Event()
    if isinstance(node, BootstrapError):
        with contextlib.suppress(BootstrapError, asyncio.TimeoutError):
            timeout = min(discovery.TO_REPORT, me.settings.head_timeout)
            given = await run_in_thread(timeout, lambda: secret.load(me.settings, me.host))
            hello = make_hello(me.settings, me.host, identity, None)
            await _open_roll_call(me, identity, hello, given, changed, timeout)
        raise node  # in :mod:`bootstrap.run.shutdown`, its workers are told
    hello, timeout = make_hello(me.settings, me.host, identity, node), me.settings.head_timeout
    call, shared, here = await _open_roll_call(me, identity, hello, node.secret, changed, timeout)
    me.session.env = {**me.session.env, **shared.env()}
    if fault := workload.fault(me.settings.workload, me.session.env):
        return _not_started(*fault)  # nobody need wait, and pay, for that
    gcs, dashboard, ray = await _start_head(me, node, ray)
    if here is not None:
        await discovery.check_still_head(me.meeting, hello, shared, here)
    call.release(gcs)
    me.phase("waiting for nodes", gcs=gcs)
    me.log.say(f"the Ray head is up at {gcs} after {me.seconds:.1f} s; its dashboard comes up at {dashboard}")
    count = await _wait_for_quorum(me, identity, call, ray, changed, gcs)
    if me.settings.dashboard_wait:
        await _wait_for_dashboard(me, dashboard)
    gpus = sum(presence.gpus for presence in count.ready.values())
    return await _work(me, identity, gcs, len(count.ready), gpus)


async def _open_roll_call(
    me: Run, identity: NodeIdentity, hello: Hello, given: secret.Secret, changed: asyncio.Event, timeout: float
) -> tuple[RollCall, secret.Secret, HeadAddress | None]:
    """Open the roll call, unless this node is the only one, and tell where it is.

    :param changed: set at each news of a node.
    :param timeout: seconds for a folder that all nodes see, which may hang.
    """
    await discovery.check_no_other_head(me.meeting, hello, given)
    try:
        shared = await _share_secret(me, identity, given, timeout)
        any_patch = me.host.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor"
        call = me.call = RollCall(hello, shared.value, me.settings.heartbeat_timeout, any_patch)
        call.on_change = lambda member, what: _node_changed(me, changed, member, what)
        call.on_refused = lambda who: me.log.warn(f"turned away {who}")
        here = None if identity.size == 1 else await _listen_and_announce(me, call, identity, shared, timeout)
    except asyncio.TimeoutError:
        what = f"{me.meeting.place} timed out after {timeout:g} s"
        raise HeadNotFound(what, hint="is its server there?") from None
    return call, shared, here


async def _share_secret(me: Run, identity: NodeIdentity, given: secret.Secret, timeout: float) -> secret.Secret:
    """What the nodes share; made for this run where only they can see it: in their folder, or on the only node."""
    path = runtime_dir.path_of(os.getpid(), "token") if identity.size == 1 else me.meeting.secret_path
    if given.value is None and me.settings.auth != "off" and path is not None:
        given = secret.generate(path)
        me.generated_secret = given.written()
        me.state.update(written=me.generated_secret)
        await run_in_thread(timeout, given.save)
    secret.required(given, me.settings)
    return given


async def _listen_and_announce(
    me: Run, call: RollCall, identity: NodeIdentity, shared: secret.Secret, timeout: float
) -> HeadAddress:
    port = await call.listen(rendezvous.rollcall_ports(me.settings, identity))
    here = HeadAddress(call.me.ip, port)
    await discovery.check_still_head(me.meeting, call.me, shared, here)
    me.state.update(written={**me.generated_secret, **me.meeting.owned_files(here)})
    await run_in_thread(timeout, lambda: me.meeting.announce(here))
    me.log.say(f"the roll call is open at {here} (rendezvous {identity.rendezvous})")
    return here


async def _start_head(me: Run, node: Node, ray: Starter) -> tuple[str, str, Starter]:
    """Start GCS, the dashboard and the head's raylet; returns the first two's addresses, and the child that can ask."""
    me.phase("starting Ray")
    for tries in range(1, _START_TRIES + 1):
        ports = ray_ports.choose(me.settings, Role.HEAD, me.host)
        gcs = command.gcs_address(node.address, ports)
        try:
            await start_ray(me, node, ray, ports, None, gcs)
            break
        except RayStartFailed:
            remove_sockets(await end_all(me, 0))
            remove_session(me.session)
            given = (*fixed_ports(me.settings), "min_worker_port", "max_worker_port")
            taken = [port for name, port in ports.items() if name not in given and not ray_ports.is_free(port)]
            if tries == _START_TRIES or not taken:
                raise
            me.log.warn(f"port {taken[0]} was taken while Ray started; trying again with other ports")
            await ray.end()
            ray = me.session.ray = await Starter.spawn(me.children, me.host.env)
            me.session.path = None
    return gcs, join_host_port(me.settings.dashboard_host, ports["dashboard_port"]), ray


async def _wait_for_quorum(
    me: Run, identity: NodeIdentity, call: RollCall, ray: Starter, changed: asyncio.Event, gcs: str
) -> quorum.Count:
    """Until the workload may start; the child that asks GCS ends then."""
    settings = me.settings
    goal = quorum.Goal(
        run_hash=command.run_hash(identity.run_id),
        size=identity.size,
        least=_least(settings, identity),
        expect_gpus=settings.expect_gpus,
        timeout=settings.quorum_timeout,
        last_call=settings.last_call,
    )
    try:
        count = await quorum.wait(goal, lambda: ray.ask("nodes", address=gcs), changed, call.members, me.log)
    except asyncio.CancelledError:
        ranks = list(range(1, goal.size or goal.least))
        if ranks:
            me.log.say("\n".join(["so far:", *quorum.table(call.members, ranks, asyncio.get_running_loop().time())]))
        raise
    except QuorumTimeout as error:
        if not call.rejected:
            raise
        # Who came, but was no node of this run: another run's, one with another secret, a program that erred.
        away = "\n".join(["turned away:", *call.rejected[-_TURNED_AWAY:]])
        hint = f"first see to those that were turned away, if they are this run's; or {error.hint}"
        raise QuorumTimeout(f"{error.message}\n{away}", hint=hint) from None
    me.session.quorum = True
    await ray.end()
    me.phase("running", nodes=len(count.ready))
    nodes_in_words = "1 node" if len(count.ready) == 1 else f"{len(count.ready)} nodes"
    me.log.say(f"the quorum stands: {nodes_in_words} after {me.seconds:.1f} s")
    return count


async def _wait_for_dashboard(me: Run, address: str) -> None:
    """For a workload whose first act is ``ray job submit`` or ``serve deploy``."""

    async def answers() -> None:
        host, port = host_port(address)
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_LOOK_AGAIN)
            else:
                writer.close()
                return

    me.phase("waiting for the dashboard")
    try:
        await wait_for(me.settings.dashboard_wait, answers())
    except asyncio.TimeoutError:
        what = f"Ray's dashboard does not answer at {address} after --dashboard-wait={me.settings.dashboard_wait:g}"
        raise RayStartFailed(what, hint="see dashboard.log in the folder that the last line names") from None
    me.phase("running")


def _least(settings: Settings, identity: NodeIdentity) -> int:
    return settings.min_nodes or identity.size or 1


def _node_changed(me: Run, changed: asyncio.Event, member: Member, what: str) -> None:
    """News of the roll call, on the head."""
    changed.set()
    me.state.soon(seen=me.call.present + 1 if me.call else 1)
    name = f"rank {member.rank} ({member.hello.host})"
    if member.phase in ("waiting", "starting-ray", "joined"):
        if member.phase == "waiting":
            me.log.say(f"rank {member.rank}: {what}{describe_mismatch(me, member)}")
        return
    identity = me.identity
    if identity is None or me.reason is not None or me.call is None or me.call.concluded:
        return  # everybody leaves now
    if member.phase != "refused":  # on_refused has told it
        me.log.warn(f"{name} {what}")
    if me.session.quorum:
        if me.settings.on_node_loss == "fail" and member.phase != "refused":
            loss = RayDied(f"{name} was lost during the workload ({what}), and --on-node-loss=fail")
            # A node that was told to stop may be the first of all that are: what tells them is the reason then.
            delay = _STOPPED_FIRST if member.phase in ("leaving", "left") else 0
            asyncio.get_running_loop().call_later(delay, me.stop, loss)
    elif member.phase == "refused" and _least(me.settings, identity) == identity.size:
        me.stop(Refused(f"{name}: {member.detail}", hint="give all nodes the same image, or the same environment"))
    elif member.phase == "failed" and _least(me.settings, identity) == identity.size:
        hint = f"its own output says more; without {name} there are too few nodes"
        me.stop(remote_error(member.error, f"{name}: {member.detail}", hint=hint))


def describe_mismatch(me: Run, member: Member) -> str:
    """How a node's GPUs and CPUs differ from the head's, since that is seldom meant."""
    if me.call is None or member.hello.cpus == 0:
        return ""
    theirs, mine = member.hello, me.call.me
    unlike = []
    if (theirs.gpus, theirs.gpu_model) != (mine.gpus, mine.gpu_model):
        unlike.append(f"{theirs.gpus} GPUs ({theirs.gpu_model or '-'}), the head {mine.gpus} ({mine.gpu_model or '-'})")
    if theirs.cpus != mine.cpus:
        unlike.append(f"{theirs.cpus} CPUs, the head {mine.cpus}")
    return "".join(f"; it has {what}" for what in unlike)


async def _work(me: Run, identity: NodeIdentity, gcs: str, count: int, gpus: float) -> Verdict:
    """The workload's status, passed through; without a workload, until something stops us."""
    if me.reason is not None:
        raise asyncio.CancelledError  # it was lost on the way here
    if not me.settings.workload:
        auth = [
            f"{name}={env}"
            for name, env in sorted(me.session.env.items())
            if name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
        ]
        joined = " ".join([f"RAY_ADDRESS={gcs}", *auth])
        me.log.say(f"no workload was given: the cluster stays until it is stopped; to use it: {joined}")
        await asyncio.get_running_loop().create_future()
    env = {**me.session.env, **workload.environment(identity.run_id, gcs, count, gpus)}
    started = workload.start(me.children, me.settings.workload, env)
    if isinstance(started, tuple):
        return _not_started(*started)
    me.workload = started
    try:
        status = await asyncio.shield(started.exited)
    except asyncio.CancelledError:
        signum = me.reason.signum if isinstance(me.reason, Stopped) else signal.SIGTERM
        me.log.say(f"passing {signal.Signals(signum).name} on to the workload; {me.settings.grace:g} s of grace")
        ended = await workload.finish(me.children, started, signum, me.settings.grace, me.force_stop)
        me.log.say(f"the workload ended with status {ended}")
        raise
    killed = f" (signal {status - 128})" if status > 128 else ""
    return Verdict(status, f"the workload ended with status {status}{killed}")


def _not_started(status: int, why: str) -> Verdict:
    return Verdict(status, f"the workload could not be started: {why}")
