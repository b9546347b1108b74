"""Two nodes with one rank: which of them is alive decides."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time

import pytest
from rollcall_peers import PATIENCE, SECRET, a_head, a_peer, a_wire, hello, join, looped

from bootstrap.errors import IdentityError
from bootstrap.model import Phase, Verdict
from bootstrap.rollcall.refusal import NotThisHead

TWICE = "rank 1 is claimed by two nodes: host-1 (10.0.0.11) has it, other (10.9.9.9) wants it"
OTHER = {"host": "other", "ip": "10.9.9.9"}
SHORT = 1.5
"""Seconds of the heartbeat time-out where a test waits for it."""


@pytest.mark.parametrize("secret", [None, SECRET])
@looped
async def test_a_holder_that_answers_makes_it_a_conflict(secret: bytes | None) -> None:
    async with a_head(secret) as head:
        holder = await join(head.address, hello(1), secret)
        with pytest.raises(IdentityError, match="is claimed by two nodes") as caught:
            await join(head.address, hello(1, **OTHER), secret)
        assert head.misfits == [TWICE]
        assert "`ray-bootstrap detect`" in caught.value.hint
        assert head.call.members[1].hello.host == "host-1"
        assert not holder.ended.done()
        holder.close()


@looped
async def test_the_newcomer_waits_until_the_holder_has_answered_a_ping() -> None:
    async with a_head() as head, a_peer(head.port) as holder, a_peer(head.port) as newcomer:
        await holder.enrol(hello(1))
        await newcomer.agree()
        newcomer.send({"t": "hello", **dataclasses.asdict(hello(1, **OTHER))})
        assert await holder.hear() == {"t": "ping"}
        answer = asyncio.ensure_future(newcomer.hear())
        assert (await asyncio.wait({answer}, timeout=0.5))[0] == set()  # no answer from the holder, no decision
        assert head.misfits == []
        holder.send({"t": "beat"})
        assert (await answer)["kind"] == "identity"
        assert head.misfits == [TWICE]


@looped
async def test_what_the_holder_sent_before_the_ping_proves_nothing() -> None:
    async with a_head() as head, a_peer(head.port) as holder, a_peer(head.port) as newcomer:
        await holder.enrol(hello(1))
        await newcomer.agree()
        newcomer.send({"t": "hello", **dataclasses.asdict(hello(1, **OTHER))})
        holder.send({"t": "beat"})  # it arrives together with the claim, before the ping is sent
        assert await holder.hear() == {"t": "ping"}
        answer = asyncio.ensure_future(newcomer.hear())
        assert (await asyncio.wait({answer}, timeout=0.5))[0] == set()
        holder.close()
        assert (await answer)["t"] == "welcome"
        assert head.misfits == []


@looped
async def test_a_holder_that_disconnects_gives_its_rank_to_the_newcomer() -> None:
    async with a_head() as head, a_peer(head.port) as holder, a_peer(head.port) as newcomer:
        await holder.enrol(hello(1))
        await newcomer.agree()
        newcomer.send({"t": "hello", **dataclasses.asdict(hello(1, **OTHER))})
        await holder.hear()
        holder.close()
        assert await newcomer.hear() == {"t": "welcome", "rank": 1, "head": "head-host"}
        assert (head.misfits, head.call.rejected) == ([], [])
        assert head.call.members[1].hello.host == "other"


@looped
async def test_a_replacement_takes_the_rank_of_a_half_open_connection() -> None:
    """It gives up after its own time-out and comes again, until the holder has been silent for long enough."""
    async with a_head(heartbeat_timeout=SHORT) as head, a_wire(head.port) as wire:
        gone = await join(wire.address, hello(1), heartbeat_timeout=60.0)
        wire.fall_silent()
        began, tries = time.monotonic(), 0
        while time.monotonic() - began < PATIENCE:
            tries += 1
            with contextlib.suppress(NotThisHead):
                instead = await join(head.address, hello(1, **OTHER), heartbeat_timeout=60.0, timeout=0.4)
                break
        assert tries > 1
        assert head.news[:2] == ["1: host-1 (10.0.0.11) connected", f"1: lost: silent for {SHORT:g} s"]
        assert head.news[2].startswith("1: other (10.9.9.9) connected")
        assert (head.misfits, head.call.rejected) == ([], [])
        gone.close()
        instead.close()


@looped
async def test_a_holder_that_is_leaving_is_no_conflict() -> None:
    """As a pod that terminates, which Kubernetes replaces at once: it drains Ray, and answers all the while."""
    async with a_head() as head, a_peer(head.port) as newcomer:
        holder = await join(head.address, hello(1))
        holder.report(Phase.LEAVING, "stopped by SIGTERM")
        await head.until(lambda: head.phase(1) is Phase.LEAVING)
        await newcomer.agree()
        newcomer.send({"t": "hello", **dataclasses.asdict(hello(1, **OTHER))})
        answer = asyncio.ensure_future(newcomer.hear())
        assert (await asyncio.wait({answer}, timeout=1.0))[0] == set()
        await holder.leave("drained")
        assert (await answer)["t"] == "welcome"
        assert head.misfits == []


@looped
async def test_who_waits_for_a_rank_hears_how_the_run_ended() -> None:
    async with a_head() as head, a_peer(head.port) as holder:
        await holder.enrol(hello(1))
        joining = asyncio.ensure_future(join(head.address, hello(1, **OTHER), timeout=PATIENCE))
        assert await holder.hear() == {"t": "ping"}
        ending = asyncio.ensure_future(head.call.deliver(Verdict(3, "the workload ended"), 1))
        newcomer = await joining
        assert (await newcomer.ended).status == 3
        await ending
        newcomer.close()


@looped
async def test_who_waits_for_a_rank_says_nothing_else() -> None:
    async with a_head() as head, a_peer(head.port) as holder, a_peer(head.port) as newcomer:
        await holder.enrol(hello(1))
        await newcomer.agree()
        claim = {"t": "hello", **dataclasses.asdict(hello(1, **OTHER))}
        newcomer.send(claim)
        newcomer.send(claim)
        assert await newcomer.gone()
        assert (head.misfits, head.phase(1)) == ([], Phase.WAITING)


@looped
async def test_a_newcomer_comes_after_the_loss_of_a_holder_whose_connection_is_closing() -> None:
    """Else the loss would look like the newcomer's own, and end a run whose launcher replaces no node."""
    async with a_head() as head, a_peer(head.port) as holder, a_peer(head.port) as newcomer:
        await holder.enrol(hello(1))
        await newcomer.agree()
        (waiting,) = head.call.handshakes._pending
        line = head.call.members[1].connection
        assert line is not None
        line.close("its machine is gone")  # asyncio reports that in a later turn of its loop
        head.call._admit(waiting, hello(1, **OTHER))
        assert (await newcomer.hear())["t"] == "welcome"
        assert [news.partition(" (")[0] for news in head.news] == [
            "1: host-1",
            "1: lost: its machine is gone",
            "1: other",
        ]
