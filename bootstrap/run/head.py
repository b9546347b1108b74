"""The head: roll call → Ray → release the workers → quorum → workload."""

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from bootstrap import cleanup, preflight, timeouts
from bootstrap.errors import BootstrapError, HeadNotFound, QuorumTimeout, RayStartFailed
from bootstrap.files.secret import Channel, Secret, check_required, generate, load_secret, ray_token
from bootstrap.launchers.look import finds_causes, how_to_look, how_to_reach
from bootstrap.model import HeadAddress, NodeIdentity, Phase, Role, Verdict, join_host_port
from bootstrap.node.inspection import Node
from bootstrap.probe.responder import Responder
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.process.executable import find_fault
from bootstrap.raynode import environment
from bootstrap.raynode import ports as ray_ports
from bootstrap.raynode.starter import Starter
from bootstrap.rendezvous import Rendezvous, rollcall_ports, with_secret_record
from bootstrap.rendezvous.other_heads import check_no_other_head, check_still_head, keep_fresh
from bootstrap.rollcall import credential
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.server import RollCall
from bootstrap.run import bring_up, own_probes, quorum, shutdown, workload
from bootstrap.run.certification import certify_head, make_authority
from bootstrap.run.check_all import check_all
from bootstrap.run.context import Context
from bootstrap.run.dashboard import Dashboard
from bootstrap.run.dashboard import wait as wait_for_dashboard
from bootstrap.run.hello import make_hello
from bootstrap.run.node_watch import NodeWatch, minimum_nodes
from bootstrap.run.observable import listen, listen_here
from bootstrap.run.setup import run_setup
from bootstrap.settings import fixed_ports

if TYPE_CHECKING:
    from bootstrap.files.authority import Authority

_START_TRIES = 3
"""Attempts to start the head's Ray, in case another program takes a port after we choose it and before Ray binds it."""


async def run_head(run: Context, identity: NodeIdentity, rendezvous: Rendezvous, starter: Starter | None) -> Verdict:
    """Lead the run and return the workload's verdict.

    :param starter: None in a check of all nodes, which starts no Ray and no workload.
    """
    settings = run.settings
    try:
        prepared = await bring_up.prepare_node(run, identity)
        ports = own_probes.bind(settings, run.host, identity, run.log)
        hello = make_hello(settings, run.host, identity, prepared.node.secret, prepared.node, ports.numbers)
        authority = await make_authority() if hello.tls else None
    except BootstrapError:
        await meet_workers_unfit(run, identity, rendezvous)
        raise
    node = prepared.node
    secret, watch, address = await open_roll_call(
        run, identity, rendezvous, hello, node.secret, settings.head_timeout, authority, ports.responder
    )
    watch.own_findings = frozenset(preflight.reports(prepared.findings, settings.ignore_check))
    if starter is None:
        return await check_all(run, identity, watch)
    files = await certify_head(run.runtime, hello, authority)
    token = ray_token(secret, identity.run_id, run.runtime)
    node, env = await run_setup(run, node, environment.for_node(node, token, node.address.ip, files))
    if fault := find_fault(settings.workload, env):
        return workload.not_started(*fault)  # before the other nodes wait for it
    gcs, chosen, starter = await start_head_ray(run, node, starter, env)
    dashboard = Dashboard.of(chosen, settings.dashboard_host, node.address.ip)
    run.enter(Phase.WAITING, gcs=gcs, use=environment.for_shell(env, gcs))
    await check_still_head(rendezvous, hello, address)
    watch.roll_call.release(gcs, asyncio.get_running_loop().time() + settings.quorum_timeout)
    watch.probes.on_released(gcs)
    say_up(run, identity, f"{gcs}, with TLS," if files else gcs, chosen["dashboard_port"])
    ready = await wait_for_quorum(run, identity, watch, starter, gcs, address)
    run.log.say(f"to use it from another shell on any of its nodes: {environment.how_to_use(env)}")
    await wait_for_dashboard(run, dashboard)
    run.enter(Phase.RUNNING, nodes=len(ready.ready))
    addresses = [presence.ip for presence in ready.ready.values()]
    return await workload.run(run, environment.for_workload(node, env, gcs, dashboard.address, addresses, ready.gpus))


def say_up(run: Context, identity: NodeIdentity, gcs: str, dashboard_port: int) -> None:
    """Log where GCS and the dashboard are."""
    address = join_host_port(run.settings.dashboard_host, dashboard_port)
    web = how_to_reach(identity.launcher, run.host, address)
    run.log.say(f"the Ray head is up at {gcs} after {run.seconds:.1f} s; its dashboard comes up at {web}")


async def meet_workers_unfit(run: Context, identity: NodeIdentity, rendezvous: Rendezvous) -> None:
    """Open the roll call of an unfit head, so that shutdown can send its workers the reason."""
    timeout = min(timeouts.REPORT_UNFIT_S, run.settings.head_timeout)
    with contextlib.suppress(BootstrapError, TimedOut):
        given = await run_in_thread(timeout, lambda: load_secret(run.settings, run.host, identity))
        hello = make_hello(run.settings, run.host, identity, given, None)
        await open_roll_call(run, identity, rendezvous, hello, given, timeout)


async def open_roll_call(
    run: Context,
    identity: NodeIdentity,
    rendezvous: Rendezvous,
    hello: Hello,
    given: Secret,
    timeout: float,
    authority: "Authority | None" = None,
    responder: Responder | None = None,
) -> tuple[Secret, NodeWatch, HeadAddress]:
    """Listen and announce the address, unless this is the only node; from now on shutdown sends the verdict.

    :param given: the secret that this node was given, if any.
    :param timeout: seconds for the shared folder, which may hang.
    :param authority: the CA of a run with TLS; without, requests for certificates wait for the verdict.
    :param responder: answers the other nodes' probes, if this node has a port for them.
    :returns: the shared secret, the watch over the other nodes, and the roll call's address.
    """
    await check_no_other_head(rendezvous, hello)
    secret = await choose_secret(run, hello, given)
    any_patch = run.host.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor"
    certify = None if authority is None else authority.sign
    roll_call = RollCall(hello, secret, run.settings.heartbeat_timeout, any_patch, certify)
    watch = NodeWatch(run, identity, roll_call, responder or Responder())
    run.lifecycle.tell, run.lifecycle.linger = watch.deliver_verdict, watch.linger
    watch.late.look_for_record = rendezvous.record is not None or secret.is_in_record
    if identity.size == 1:
        return secret, watch, listen_here(run, roll_call)
    ports = rollcall_ports(run.settings, identity)
    if rendezvous.record is not None and run.settings.rollcall_port is None:
        ports = (*ports, 0)  # any: the record says which
    address = listen(run, roll_call, ports)
    await check_still_head(rendezvous, hello, address)
    rendezvous = with_secret_record(rendezvous, secret, identity, run.host)
    await announce(run, rendezvous, address, secret.value if secret.is_in_record else None, timeout)
    watch.late.record = rendezvous.record or rendezvous.secret_record
    if watch.late.record is not None:
        keep_fresh(watch.late.record)
    run.log.say(f"the roll call is open at {address} (rendezvous {identity.rendezvous})")
    return secret, watch, address


async def announce(
    run: Context, rendezvous: Rendezvous, address: HeadAddress, secret: bytes | None, timeout: float
) -> None:
    """Write the head's record, if this run has one.

    :raises HeadNotFound: if its folder does not answer within ``timeout`` seconds.
    """
    record = rendezvous.record or rendezvous.secret_record
    if record is None:
        return
    run.note(owned_files=record.owned_files(address, secret), owned_dirs=record.owned_dirs)
    try:
        await run_in_thread(timeout, lambda: record.announce(address, secret))
    except TimedOut:
        what = f"{rendezvous.place} timed out after {timeout:g} s"
        raise HeadNotFound(what, hint="check that its file server is up") from None


async def choose_secret(run: Context, hello: Hello, given: Secret) -> Secret:
    """Return the nodes' shared secret: the given one, or a new one if there is a channel to the other nodes.

    :raises UsageError: if ``--auth=required`` and there is none.
    :raises Refused: if its channel is MUNGE, and munged does not work here.
    """
    check_required(given, run.settings)
    secret = generate(given)
    if secret.channel is Channel.MUNGE:
        with contextlib.suppress(TimedOut):  # busy
            await credential.make(secret, hello, "")  # it works here, or the run ends now
    return secret


async def start_head_ray(
    run: Context, node: Node, starter: Starter, env: Mapping[str, str]
) -> tuple[str, Mapping[str, int], Starter]:
    """Start GCS, the dashboard and the head's raylet; try other ports if another program takes one.

    :returns: GCS's address, all ports, and the starter, which can query GCS.
    :raises RayStartFailed: with the cause.
    """
    run.enter(Phase.STARTING_RAY)
    for attempt in range(1, _START_TRIES + 1):
        ports = ray_ports.choose(run.settings, Role.HEAD, run.host)
        gcs = join_host_port(node.address.ip, ports["gcs_port"])
        try:
            limit = run.settings.quorum_timeout
            await bring_up.start_ray(run, node, starter, env, ports, gcs, limit=limit, head=True)
            break
        except RayStartFailed:
            held, manifest = await shutdown.end_all(run, 0), run.runtime.manifest
            with contextlib.suppress(TimedOut, OSError):
                await run_in_thread(timeouts.REMOVE_SESSION_S, partial(cleanup.remove_sessions, manifest, held))
            given = (*fixed_ports(run.settings), "min_worker_port", "max_worker_port")
            taken = [port for name, port in ports.items() if name not in given and not ray_ports.is_free(port)]
            if attempt == _START_TRIES or not taken:
                raise
            run.log.warn(f"port {taken[0]} was taken while Ray started; trying again with other ports")
            await starter.end()
            starter = await Starter.spawn(run.children, environment.for_starter(run.host), run.oom)
    return gcs, ports, starter


async def wait_for_quorum(
    run: Context, identity: NodeIdentity, watch: NodeWatch, starter: Starter, gcs: str, address: HeadAddress
) -> quorum.Count:
    """Wait until the workload may start, then end the starter; return the nodes that are ready.

    :param address: where the roll call is open.
    :raises QuorumTimeout: with the missing nodes and the rejected connections.
    """
    roll_call = watch.roll_call
    goal = quorum.Goal(
        identity.run_hash,
        identity.size,
        minimum_nodes(run.settings, identity),
        run.settings,
        partial(how_to_look, identity.launcher, run.host),
        quorum.describe_address(address),
        watch.own_findings,
        finds_causes(identity.launcher, run.host),
    )

    async def ask() -> Mapping[str, Any]:
        answer = await starter.ask("nodes", address=gcs)
        watch.probes.on_nodes(answer.get("nodes", ()), identity.run_hash)
        return answer

    try:
        ready = await quorum.wait(goal, ask, watch.changed, roll_call.members, run.log)
    except asyncio.CancelledError:
        if ranks := list(range(1, goal.size or goal.minimum)):
            clock = asyncio.get_running_loop().time()
            run.log.say("\n".join(["so far:", *quorum.table(roll_call.members, ranks, clock)]))
        raise
    except QuorumTimeout as error:
        raise quorum.with_rejected(error, roll_call.rejections, asyncio.get_running_loop().time()) from None
    watch.begin_workload()
    run.note_quorum()
    await starter.end()
    nodes = "1 node" if len(ready.ready) == 1 else f"{len(ready.ready)} nodes"
    run.log.say(f"quorum reached: {nodes} after {run.seconds:.1f} s")
    return ready
