"""A worker: find the head → join its roll call → wait for the release → start Ray → wait for the verdict."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from bootstrap import preflight, timeouts
from bootstrap.errors import BootstrapError, HeadNotFound, RayDied, Stopped, UsageError
from bootstrap.files.secret import Secret, load_secret, ray_token
from bootstrap.launchers.look import how_to_look
from bootstrap.model import NodeIdentity, Phase, Role, Verdict
from bootstrap.node.inspection import Node
from bootstrap.parsers import host_port
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.raynode import environment, ports
from bootstrap.raynode.starter import Starter
from bootstrap.rendezvous import Rendezvous, by_launcher, with_secret_record
from bootstrap.rendezvous.around import RANK_0
from bootstrap.rendezvous.discovery import find_head, introduce
from bootstrap.rendezvous.ending import RunEnded
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.handshake import EXCUSE
from bootstrap.rollcall.hello import Hello
from bootstrap.run import own_probes
from bootstrap.run.bring_up import prepare_node, start_ray
from bootstrap.run.certification import get_certificate
from bootstrap.run.context import Context
from bootstrap.run.hello import make_hello
from bootstrap.run.leaving import leave_in_peace
from bootstrap.run.observable import show_roll_call
from bootstrap.run.progress import until_released
from bootstrap.run.setup import run_setup
from bootstrap.settings import Settings


async def run_worker(run: Context, identity: NodeIdentity, rendezvous: Rendezvous, starter: Starter | None) -> Verdict:
    """Join the run and return the head's verdict.

    :param starter: None in a check of all nodes, which starts no Ray.
    """
    try:
        return await _join_and_stay(run, identity, rendezvous, starter)
    except (HeadNotFound, RayDied) as error:  # RayDied: the head is lost
        between = "if the head lives, `ip route` and `nft list ruleset` on both nodes"
        look, more = how_to_look(identity.launcher, run.host, [0]), error.hint or between
        error.hint = f"{look}; {more.removeprefix(RANK_0).lstrip(':; ')}"  # which says the same in general
        raise


async def _join_and_stay(
    run: Context, identity: NodeIdentity, rendezvous: Rendezvous, starter: Starter | None
) -> Verdict:
    try:
        prepared = await prepare_node(run, identity)
    except BootstrapError as unfit:
        await report_unfit(run, identity, rendezvous, unfit)
        raise
    ports = own_probes.bind(run.settings, run.host, identity, run.log)
    hello = make_hello(run.settings, run.host, identity, prepared.node.secret, prepared.node, ports.numbers)
    timeout = run.settings.head_timeout
    try:
        membership = await join_roll_call(run, identity, rendezvous, hello, prepared.node.secret, timeout)
    except RunEnded as ended:
        return ended.verdict
    for finding in preflight.reports(prepared.findings, run.settings.ignore_check):
        membership.report_finding(finding)
    what = "its Ray is up" if starter is not None else "the check of all nodes ends"
    run.log.say(f"{membership.head} leads this run; waiting until {what}")
    run.log.rank = membership.rank
    run.enter(Phase.WAITING, rank=membership.rank, head=membership.head)
    show_roll_call(run, hello, membership.secret, str(membership.address))
    membership.quorum.add_done_callback(partial(_on_quorum, run))
    identity = dataclasses.replace(identity, rank=membership.rank)
    node = dataclasses.replace(prepared.node, identity=identity)
    token = ray_token(membership.secret, identity.run_id, run.runtime)
    env: Mapping[str, str] = environment.for_node(node, token, None)
    with own_probes.WorkerProbes(membership, ports, run.log):
        if starter is None:
            return await asyncio.shield(membership.ended)
        env = await join_cluster(run, node, starter, env, membership)
        return await stay_until_verdict(run, identity, starter, env, membership)


def _on_quorum(run: Context, quorum: "asyncio.Future[None]") -> None:
    if not quorum.cancelled():  # by the end of the membership
        run.note_quorum()


async def report_unfit(run: Context, identity: NodeIdentity, rendezvous: Rendezvous, why: BootstrapError) -> None:
    """Report to the head that this node is unfit, so that it does not wait for it."""
    timeout = min(timeouts.REPORT_UNFIT_S, run.settings.head_timeout)
    with contextlib.suppress(BootstrapError, TimedOut, RunEnded):
        given = await run_in_thread(timeout, lambda: load_secret(run.settings, run.host, identity))
        hello = make_hello(run.settings, run.host, identity, given, None)
        try:
            membership = await join_roll_call(run, identity, rendezvous, hello, given, timeout)
        except (UsageError, HeadNotFound):
            # The shared folder itself may be what is wrong here; the launcher may name the head, too.
            heads = by_launcher(run.settings, identity) if rendezvous.record is not None else ()
            farewell = EXCUSE + why.message
            membership = await wait_for(
                timeout, introduce(heads, hello, given, run.settings.heartbeat_timeout, farewell)
            )
            _leave_at_the_end(run, membership)
        membership.report(Phase.FAILED, why.message, why.name, why.hint)


async def join_roll_call(
    run: Context, identity: NodeIdentity, rendezvous: Rendezvous, hello: Hello, given: Secret, timeout: float
) -> Membership:
    """Find the head and join its roll call; at the end, shutdown sends it the reason why this node leaves.

    :param given: the secret that this node was given, or the channel through which it comes.
    """
    run.enter(Phase.SEARCHING)
    rendezvous = with_secret_record(rendezvous, given, identity, run.host)
    if rendezvous.secret_record is not None:
        run.note(owned_dirs=rendezvous.secret_record.owned_dirs)
    membership = await find_head(run.settings, rendezvous, hello, given, timeout, run.log)
    _leave_at_the_end(run, membership)
    if run.trace is not None:
        run.timeline.follow(membership.report_spans)
    return membership


def _leave_at_the_end(run: Context, membership: Membership) -> None:
    async def leave(_verdict: Verdict, error: BootstrapError | None) -> None:
        if error is not None and not isinstance(error, Stopped):
            membership.report(Phase.FAILED, error.message, error.name, error.hint)
        await membership.leave(error.message if error else "verdict received")

    run.lifecycle.tell, membership.last_finding = leave, run.oom.since


async def join_cluster(
    run: Context, node: Node, starter: Starter, env: Mapping[str, str], membership: Membership
) -> Mapping[str, str]:
    """Start Ray when the head releases this node; return once Ray has started, or if the run ends first.

    :returns: the environment, now with this node's certificate, if the run has TLS.
    """
    joining: asyncio.Future[Any] = asyncio.ensure_future(_start_when_released(run, node, starter, env, membership))
    try:
        await asyncio.wait({joining, membership.ended}, return_when=asyncio.FIRST_COMPLETED)
        if membership.ended.done() and not _led_to(joining, membership.ended):
            return env
        return dict(await joining)
    finally:
        joining.cancel()
        with contextlib.suppress(asyncio.CancelledError, BootstrapError):
            await joining


def _led_to(joining: asyncio.Future[Any], ended: asyncio.Future[Verdict]) -> bool:
    """Return whether this node's own error is why the run ended; the head may answer it within the same moment."""
    error = joining.exception() if joining.done() and not joining.cancelled() else None
    return isinstance(error, BootstrapError) and ended.exception() is None and ended.result().source == error.name


async def _start_when_released(
    run: Context, node: Node, starter: Starter, env: Mapping[str, str], membership: Membership
) -> Mapping[str, str]:
    def still_waiting(how_far: str) -> None:
        run.log.say(f"not ready to start Ray: {how_far}")
        membership.report(Phase.WAITING, how_far)

    try:
        if membership.hello.tls:
            files = await get_certificate(run.runtime, node.address.ip, membership.certify)
            env = {**env, **environment.tls(files)}
        node, env = await run_setup(run, node, env, partial(membership.report, Phase.WAITING))
        gcs = await until_released(membership.released, starter, still_waiting)
        env = environment.with_head(node, env, host_port(gcs)[0])
        run.enter(Phase.STARTING_RAY, gcs=gcs)
        membership.report(Phase.STARTING_RAY)
        chosen = ports.choose(run.settings, Role.WORKER, run.host)
        limit = _limit(run.settings, membership.deadline)
        report = partial(membership.report, Phase.STARTING_RAY)
        await start_ray(run, node, starter, env, chosen, gcs, limit=limit, report=report)
    except BootstrapError as error:
        membership.report(Phase.FAILED, error.message, error.name, error.hint)
        raise
    return env


def _limit(settings: Settings, deadline: float | None) -> float:
    """Return the seconds for ``ray start``, so that its failure reaches the head before the head gives up."""
    if deadline is None:
        return settings.quorum_timeout
    left, reserve = deadline - asyncio.get_running_loop().time(), timeouts.START_REPORT_S
    return min(settings.quorum_timeout, max(left - reserve, left * 0.8) if left > reserve else math.inf)


async def stay_until_verdict(
    run: Context, identity: NodeIdentity, starter: Starter, env: Mapping[str, str], membership: Membership
) -> Verdict:
    """Report that this node has joined, and return the head's verdict; if this node is stopped before, drain it first.

    :raises RayDied: if the connection to the head is lost.
    """
    try:  # around the report, too: whoever has seen it may rely on the drain
        if not membership.ended.done():
            gcs = run.runtime.manifest.gcs
            membership.report(Phase.JOINED)
            run.enter(Phase.JOINED, use=environment.for_shell(env, gcs))
            run.log.say(f"joined {gcs} after {run.seconds:.1f} s; waiting for the head's verdict")
            run.caller.note(Phase.JOINED)
        await starter.end()
        return await asyncio.shield(membership.ended)
    except asyncio.CancelledError:
        if not isinstance(run.lifecycle.reason, Stopped) or membership.ended.done():
            raise
        await leave_in_peace(run, identity, env, membership)
        if membership.ended.done():
            return await membership.ended  # the workload ended while we were leaving
        raise
