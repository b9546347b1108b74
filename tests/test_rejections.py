"""The list of rejected connections: this run's own nodes first, and no stranger hides them."""

from __future__ import annotations

import pytest
from rollcall_peers import SECRET, Peer, a_head, a_peer, hello, join, looped

from bootstrap.errors import Refused
from bootstrap.rollcall.rejections import Rejected, Rejections, Standing

STRANGER, OTHER_RUN, UNPROVED, PROVED = Standing


def rejections() -> tuple[Rejections, list[str]]:
    logged: list[str] = []
    return Rejections(logged.append), logged


def add(into: Rejections, peer: str, cause: str, standing: Standing, now: float, kind: str = "") -> None:
    into.add(peer.encode(), peer, cause, standing, now, kind)


def test_a_peer_that_tries_again_is_counted() -> None:
    made, _ = rejections()
    for now in range(14):
        add(made, "10.77.1.12", "its secret is not the head's", UNPROVED, now, "secret")
    add(made, "10.77.1.13", "no hail", STRANGER, 14)
    assert [group.line(16) for group in made.ranked] == [
        "10.77.1.12: its secret is not the head's (14 times, last 3 s ago)",
        "10.77.1.13: no hail (2 s ago)",
    ]


def test_this_runs_nodes_come_first_whenever_they_came() -> None:
    made, _ = rejections()
    for now, standing in enumerate((PROVED, UNPROVED, OTHER_RUN, STRANGER, STRANGER)):
        add(made, f"10.0.0.{now}", "cause", standing, now)
    assert [group.peer for group in made.ranked] == ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.3"]


def test_strangers_go_first_when_the_list_is_full() -> None:
    made, _ = rejections()
    new: list[Rejected] = []
    made.on_new = new.append
    add(made, "10.0.0.1", "its secret is not the head's", UNPROVED, 0, "secret")
    for n in range(1000):
        add(made, f"10.1.{n // 250}.{n % 250}", "no hail", STRANGER, n + 1)
    assert len(made.ranked) == 64
    assert (made.ranked[0].peer, new[0].kind) == ("10.0.0.1", "secret")


def test_one_source_with_ever_new_causes_pushes_out_only_its_own() -> None:
    made, logged = rejections()
    add(made, "10.0.0.1", "its secret is not the head's", UNPROVED, 0)
    for n in range(1000):
        add(made, "10.0.0.66", f"protocol {n}", UNPROVED, n + 1)
        made.log(b"10.0.0.66", f"10.0.0.66: protocol {n}", UNPROVED)
    made.log(b"10.0.0.1", "10.0.0.1: its secret is not the head's", UNPROVED)
    assert len(made.ranked) == 9
    assert made.ranked[-1].peer == "10.0.0.1"
    assert len(logged) == 5
    assert logged[-1] == "10.0.0.1: its secret is not the head's"


def test_strangers_from_everywhere_leave_room_in_the_log_for_proved_nodes() -> None:
    made, logged = rejections()
    for n in range(1000):
        made.log(str(n).encode(), f"{n}: its secret is not the head's", UNPROVED)
    made.log(b"1", "1: rank 1 is claimed by two nodes", PROVED)
    made.log(b"1", "1: rank 1 is claimed by two nodes", PROVED)
    assert len(logged) == 21
    assert logged[-1] == "1: rank 1 is claimed by two nodes"


@looped
async def test_each_kind_of_peer_gets_its_place_in_the_list() -> None:
    async with a_head(SECRET, size=2) as head:
        async with a_peer(head.port) as http:
            http.send(b"GET / HTTP/1.1\r\n\r\n")
            await http.gone()
        async with a_peer(head.port) as other:
            await other.agree()
        with pytest.raises(Refused):
            await join(head.address, hello(1), b"wrong")
        async with a_peer(head.port) as newer:
            await newer.hail(version=9)
        misfit = await Peer.connect(head.port)
        await misfit.enrol(hello(1, size=3), SECRET)
        misfit.close()
        found = [(group.standing, group.kind) for group in head.call.rejections.ranked]
        assert found[0] == (PROVED, "identity")
        assert set(found[1:3]) == {(UNPROVED, "secret"), (UNPROVED, "refused")}
        assert (STRANGER, "") in found[3:]
