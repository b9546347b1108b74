"""A process that did not run for a while blames no peer for that time, and still notices who is silent afterwards."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from rollcall_peers import PATIENCE, Peer, a_head, a_peer, a_wire, hello, join, looped

from bootstrap.errors import RayDied
from bootstrap.model import Phase
from bootstrap.rollcall import stall
from bootstrap.rollcall.stall import StallDetector

TIMEOUT = 0.8
STOP = 3 * TIMEOUT
SLACK = 10.0


@looped
async def test_a_stall_of_all_is_no_loss() -> None:
    """Head and workers share this process, so what blocks it stops them all."""
    async with a_head(heartbeat_timeout=TIMEOUT) as head, a_peer(head.port) as stranger:
        workers = [await join(head.address, hello(n), heartbeat_timeout=TIMEOUT) for n in (1, 2, 3, 20)]
        await asyncio.sleep(TIMEOUT / 2)  # past their first beats
        time.sleep(STOP)  # noqa: ASYNC251 (it is to block the loop)
        assert (await stranger.enrol(hello(4)))["t"] == "welcome"  # it has been granted the time, too
        await asyncio.sleep(TIMEOUT / 2)
        assert head.call.present == 5
        assert not any(worker.ended.done() for worker in workers)
        for worker in workers:
            worker.close()


@looped
async def test_who_is_silent_after_a_stall_is_cut_within_one_time_out() -> None:
    async with a_head(heartbeat_timeout=TIMEOUT) as head, a_wire(head.port) as between, a_peer(head.port) as stranger:
        cut_off = await join(between.address, hello(1), heartbeat_timeout=TIMEOUT)
        other = await join(head.address, hello(2), heartbeat_timeout=TIMEOUT)
        between.fall_silent()
        time.sleep(STOP)  # noqa: ASYNC251
        began = time.monotonic()
        with pytest.raises(RayDied, match=f"it was silent for {TIMEOUT} s"):
            await asyncio.wait_for(asyncio.shield(cut_off.ended), PATIENCE)
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert await stranger.gone()
        assert TIMEOUT / 2 < time.monotonic() - began < 1.2 * TIMEOUT + SLACK
        assert (head.phase(2), other.ended.done()) == (Phase.WAITING, False)
        other.close()


@pytest.mark.parametrize(("lateness", "stalls"), [(0.0, False), (0.24, False), (0.26, True), (15.0, True)])
def test_a_tick_that_is_a_little_late_is_no_stall(
    monkeypatch: pytest.MonkeyPatch, lateness: float, stalls: bool
) -> None:
    """Else a machine under load, whose ticks are all late, would never notice a partition."""
    now = 100.0
    loop = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(stall, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    detector = StallDetector(interval=0.1, heartbeat_timeout=1.0)
    for _ in range(20):
        now += 0.1 + lateness
        assert (detector.check() == now) is stalls
    last = now
    for _ in range(20):
        now += 0.1
        assert (detector.check() == last) is stalls


async def _goes(peer: Peer) -> None:
    peer.close()


async def _resets(peer: Peer) -> None:
    peer.writer.transport.abort()


async def _says_nothing(_peer: Peer) -> None:
    pass


@pytest.mark.parametrize(("how", "silent"), [(_goes, False), (_resets, False), (_says_nothing, True)])
@looped
async def test_the_head_knows_whether_a_worker_fell_silent(how: object, silent: bool) -> None:
    async with a_head(heartbeat_timeout=TIMEOUT) as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        assert not head.call.members[1].fell_silent
        await how(peer)  # type: ignore[operator]
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert head.call.members[1].fell_silent is silent


@pytest.mark.parametrize(
    ("error", "silent"),
    [(TimeoutError(110, "timed out"), True), (OSError(113, "no route"), True), (ConnectionResetError(104, "x"), False)],
)
@looped
async def test_what_the_kernel_says_of_a_connection(error: OSError, silent: bool) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        connection = head.call.members[1].connection
        assert connection is not None
        connection._transport._fatal_error(error)  # type: ignore[union-attr]  # as asyncio does with an error of recv(2)
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert head.call.members[1].fell_silent is silent
