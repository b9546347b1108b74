"""A worker: find the head → join its roll call → wait for the release → start Ray → verdict or loss."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

from bootstrap.errors import BootstrapError, RayStartFailed, Stopped
from bootstrap.files import secret
from bootstrap.model import NodeIdentity, Role, Verdict
from bootstrap.node.inspection import Node
from bootstrap.process.bounded import run_in_thread
from bootstrap.raynode import command
from bootstrap.raynode.ports import choose
from bootstrap.raynode.starter import Starter
from bootstrap.rendezvous import discovery
from bootstrap.rollcall.client import Membership
from bootstrap.run.context import Run, inspect, start_ray
from bootstrap.run.hello import make_hello


async def run_worker(me: Run, identity: NodeIdentity, ray: Starter) -> Verdict:
    """A worker: head → roll call → released → Ray → verdict or loss."""
    node = await inspect(me, identity)
    me.phase("looking for the head")
    if isinstance(node, BootstrapError):
        await _report_unfit(me, identity, node)
        raise node
    hello, timeout = make_hello(me.settings, me.host, identity, node), me.settings.head_timeout
    me.membership, shared = await discovery.find_head(me.settings, me.meeting, hello, node.secret, timeout, me.log)
    me.log.say(f"{me.membership.head} leads this run; waiting until its Ray is up")
    identity = dataclasses.replace(identity, rank=me.membership.rank)
    node = dataclasses.replace(node, identity=identity)
    me.log.rank = identity.rank
    me.phase("waiting for the head's Ray", rank=identity.rank, head=me.membership.head)
    me.session.env = {**me.session.env, **shared.env()}
    return await _stay(me, node, ray, me.membership)


async def _report_unfit(me: Run, identity: NodeIdentity, why: BootstrapError) -> None:
    """Let the head know, which would otherwise wait for this node."""
    timeout = min(discovery.TO_REPORT, me.settings.head_timeout)
    hello = make_hello(me.settings, me.host, identity, None)
    with contextlib.suppress(BootstrapError, asyncio.TimeoutError):
        given = await run_in_thread(timeout, lambda: secret.load(me.settings, me.host))
        me.membership, _ = await discovery.find_head(me.settings, me.meeting, hello, given, timeout, me.log)
        me.membership.report("failed", why.message, why.name)


async def _stay(me: Run, node: Node, ray: Starter, membership: Membership) -> Verdict:
    """As a member: start Ray when released, and stay until the verdict, the loss of the head or a signal."""
    joining = asyncio.ensure_future(_join(me, node, ray, membership))
    try:
        either: set[asyncio.Future[Any]] = {joining, membership.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if membership.ended.done():
            return await membership.ended
        await joining
    finally:
        joining.cancel()
        with contextlib.suppress(asyncio.CancelledError, BootstrapError):
            await joining
    try:
        return await asyncio.shield(membership.ended)
    except asyncio.CancelledError:
        if not isinstance(me.reason, Stopped) or membership.ended.done():
            raise
        await _leave_in_peace(me, node.identity, membership)
        if membership.ended.done():
            return await membership.ended  # the workload ended while we were leaving
        raise


async def _leave_in_peace(me: Run, identity: NodeIdentity, membership: Membership) -> None:
    """A worker that is told to stop while the workload runs lets its tasks end while the grace lasts.

    It is over when Ray has drained this node (at once if it is idle), when the head has a verdict (it may have been
    told to stop too, and its workload may need this node for a checkpoint), after ``--grace``, or at a second signal.
    """
    grace = me.settings.grace
    membership.report("leaving", str(me.reason))
    me.phase("draining")
    me.log.say(f"{me.reason}: draining Ray; {grace:g} s of grace")
    draining = asyncio.ensure_future(_drain(me, identity, grace))
    force_stop, gone = (asyncio.ensure_future(event.wait()) for event in (me.force_stop, me.daemon_exited))
    either: set[asyncio.Future[Any]] = {force_stop, gone, membership.ended}
    await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
    for task in (force_stop, gone, draining):
        task.cancel()


async def _drain(me: Run, identity: NodeIdentity, grace: float) -> None:
    labels = {command.RUN_LABEL: command.run_hash(identity.run_id), command.RANK_LABEL: str(identity.rank)}
    try:
        ray = await Starter.spawn(me.children, me.session.env)
        answer = await ray.ask("drain", address=me.session.gcs, labels=labels, seconds=max(1, int(grace)))
    except RayStartFailed as error:
        answer = {"error": error.message}
    if "error" in answer:
        me.log.warn(f"Ray does not drain this node: {answer['error']}")


async def _join(me: Run, node: Node, ray: Starter, membership: Membership) -> None:
    gcs = await asyncio.shield(membership.released)
    me.phase("starting Ray", gcs=gcs)
    membership.report("starting-ray")
    try:
        ports = choose(me.settings, Role.WORKER, me.host)
        await start_ray(me, node, ray, ports, gcs, gcs)
    except BootstrapError as error:
        membership.report("failed", error.message, error.name)
        raise
    membership.report("joined")
    await ray.end()
    me.phase("joined")
    me.log.say(f"joined {gcs} after {me.seconds:.1f} s; waiting for the head's verdict")
