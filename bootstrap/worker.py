"""A worker: find the head → join its roll call → wait for the release → start Ray → verdict or loss."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import Any

from bootstrap import node as nodes
from bootstrap import search, secret
from bootstrap.errors import BootstrapError, RayStartFailed
from bootstrap.model import NodeIdentity, Verdict
from bootstrap.node import Node
from bootstrap.ray_node import RayChild
from bootstrap.rollcall.client import Membership
from bootstrap.run import Run, inspect, start_ray


async def follow(me: Run, identity: NodeIdentity, ray: RayChild) -> Verdict:
    """A worker: head → roll call → released → Ray → verdict or loss."""
    failure: BootstrapError | None = None
    node: Node | None = None
    try:
        node = await inspect(me, identity)
    except BootstrapError as error:
        failure = error
    me.phase("looking for the head")
    hello = nodes.hello(me.settings, me.host, identity, node)
    given = node.secret if node is not None else secret.load(me.settings, me.host)
    timeout = me.settings.head_timeout if failure is None else min(search.TO_REPORT, me.settings.head_timeout)
    try:
        me.membership, shared = await search.find_head(me.settings, me.meeting, hello, given, timeout, me.log)
    except BootstrapError as error:
        raise failure or error from None
    if failure is not None or node is None:
        me.membership.report("failed", failure.message if failure else "")
        raise failure or BootstrapError("the node was not inspected, and nobody said why")
    me.log.say(f"{me.membership.head} leads this run; waiting until its Ray is up")
    identity = dataclasses.replace(identity, rank=me.membership.rank)
    node = me.node = dataclasses.replace(node, identity=identity)
    me.log.rank = identity.rank
    me.phase("waiting for the head's Ray", rank=identity.rank, head=me.membership.head)
    me.session.env = {**me.session.env, **shared.env()}
    joining = asyncio.ensure_future(_join(me, node, ray, me.membership))
    try:
        either: set[asyncio.Future[Any]] = {joining, me.membership.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if me.membership.ended.done():
            return await me.membership.ended
        await joining
    finally:
        joining.cancel()
        with contextlib.suppress(asyncio.CancelledError, BootstrapError):
            await joining
    return await asyncio.shield(me.membership.ended)


async def _join(me: Run, node: Node, ray: RayChild, membership: Membership) -> None:
    gcs = await asyncio.shield(membership.released)
    me.phase("starting Ray", gcs=gcs)
    membership.report("starting-ray")
    try:
        await start_ray(me, node, ray, dict(node.ports), gcs, gcs)
    except RayStartFailed as error:
        membership.report("failed", error.message)
        raise
    membership.report("joined")
    await ray.end()
    me.phase("joined")
    me.log.say(f"joined {gcs} after {time.monotonic() - me.begun:.1f} s; waiting for the head's verdict")
