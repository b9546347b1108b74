"""Whose clock is off, measured within the handshake."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from rollcall_peers import Peer, a_head, a_peer, hello, join, looped

from bootstrap.model import Phase
from bootstrap.rollcall.clock import Clocks
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.offset import Offset, measure

WRONG = " from the head's; fix: `timedatectl` on both shows which is wrong"


@pytest.mark.parametrize(
    ("stamped", "now", "elapsed", "seconds", "uncertainty"),
    [(100.0, 100.0, 0.0, 0.0, 0.0), (99.0, 100.0, 2.0, 0.0, 1.0), (190.0, 100.0, 0.0, 90.0, 0.0)],
)
def test_the_offset_is_measured_from_the_middle(
    stamped: float, now: float, elapsed: float, seconds: float, uncertainty: float
) -> None:
    assert measure(stamped, now, elapsed) == Offset(seconds, uncertainty)


@pytest.mark.parametrize(("offset", "off"), [((5.1, 0.0), True), ((-6.0, 0.5), True), ((6.0, 1.5), False)])
def test_an_offset_that_may_be_the_delay_is_not_reported(offset: tuple[float, float], off: bool) -> None:
    assert Offset(*offset).is_off is off


def test_the_uncertainty_is_shown_where_it_matters() -> None:
    assert [str(Offset(-90.0, 0.1)), str(Offset(20.0, 2.0))] == ["-90 s", "+20 s (±2 s)"]


@looped
async def test_a_clock_that_differs_is_reported_as_the_node_joins() -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        await peer.enrol(hello(1, time=time.time() - 90))
        assert head.news == [f"1: host-1 (10.0.0.11) connected; its clock differs by -90 s{WRONG}"]
        assert [finding[:39] for finding in head.call.members[1].findings] == [
            "its clock differs by -90 s from the hea"
        ]


@looped
async def test_the_hello_is_stamped_when_it_is_sent_not_before_the_search() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1, time=time.time() - 600))
        assert head.news == ["1: host-1 (10.0.0.11) connected"]
        worker.close()


@looped
async def test_a_node_that_takes_its_time_is_not_accused() -> None:
    """Its stamp is 5.9 s off on arrival; but a second passed since the challenge, so its clock may be 4.9 s off."""
    async with a_head() as head, a_peer(head.port) as peer:
        await peer.agree()
        stamped = time.time() - 4.9
        await asyncio.sleep(1.0)
        peer.send(hello(1, time=stamped).message())
        await peer.hear()
        assert head.news == ["1: host-1 (10.0.0.11) connected"]


def member(rank: int) -> Member:
    return Member(hello(rank), rank, Phase.WAITING, 0.0)


def test_most_nodes_against_the_head_are_right() -> None:
    clocks, members = Clocks(), [member(rank) for rank in range(1, 6)]
    said = [clocks.add(each, Offset(90.0 + each.rank / 10)) for each in members]
    accused, head = [bool(text) for text in said], said[2]
    assert accused == [True, True, True, False, False]
    assert head == (
        "the head's clock is off: it differs by -90 s from those of 3 of 3 nodes; fix: `timedatectl` on the head"
    )
    assert [each.findings for each in members] == [[]] * 5


def test_one_more_clock_that_is_off_is_still_named() -> None:
    clocks, members = Clocks(), [member(rank) for rank in range(1, 5)]
    said = [clocks.add(each, Offset(offset)) for each, offset in zip(members, (90, 90, 90, -40), strict=True)]
    assert said[3] == f"its clock differs by -40 s{WRONG}"
    assert [len(each.findings) for each in members] == [0, 0, 0, 1]


@pytest.mark.parametrize("offsets", [(0, 0, 90, 90), (90, 90), (0, 0, 0, 90, 90, 90), (90, -90, 40, -40)])
def test_few_nodes_or_nodes_that_disagree_are_named_each(offsets: tuple[float, ...]) -> None:
    clocks, members = Clocks(), [member(rank) for rank in range(1, len(offsets) + 1)]
    said = [clocks.add(each, Offset(offset)) for each, offset in zip(members, offsets, strict=True)]
    assert said == [f"its clock differs by {offset:+} s{WRONG}" if offset else "" for offset in offsets]


@looped
async def test_the_heads_own_clock_is_blamed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_head() as head:
        peers: list[Any] = []
        for rank in range(1, 6):
            peers.append(await Peer.connect(head.port))
            await peers[-1].enrol(hello(rank, time=time.time() + 300))
        assert sum("the head's clock is off" in line for line in head.news) == 1
        assert sum("its clock differs" in line for line in head.news) == 2
        assert all(not each.findings for each in head.call.members.values())
        for peer in peers:
            peer.close()
