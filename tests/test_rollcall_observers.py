"""Observers of the roll call: what they hear and may do, and that they change nothing for the run."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from rollcall_peers import (
    PATIENCE,
    RUN,
    SECRET,
    Keys,
    a_head,
    a_peer,
    a_wire,
    hello,
    join,
    looped,
    observer_key,
    watch,
)

from bootstrap import net
from bootstrap.errors import RayDied, Refused
from bootstrap.model import Phase, Verdict
from bootstrap.rollcall import auth, observers
from bootstrap.rollcall.hello import ObserverHello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.refusal import NotThisHead

DONE = Verdict(7, "the workload said 7", "workload")


def test_the_key_is_as_documented() -> None:
    """The value is openssl's, in docs/rollcall.md; another library derives it, too."""
    documented = b"adb8af91ee4df6efb52b10334b791fad27c563875f1ca54a3657c77f97b8447c"
    assert auth.observer_key(SECRET, "r", 3) == observer_key(SECRET, "r", 3) == documented


@pytest.mark.parametrize("secret", [None, SECRET])
@looped
async def test_it_hears_all_announcements_also_the_earlier_ones(secret: bytes | None) -> None:
    async with a_head(secret) as head:
        head.call.release("10.0.0.1:6379")
        observer = await watch(head.address, secret)
        assert await observer.gcs == "10.0.0.1:6379"
        assert not observer.quorum.done()
        head.call.reach_quorum()
        await observer.quorum
        await head.call.deliver(DONE, PATIENCE)
        assert await observer.ended == DONE
        late = await watch(head.address, secret) if head.call.listening else None
        assert late is None  # deliver has closed the port
        head.call.close()
        await observer.gone


@looped
async def test_it_is_in_no_table() -> None:
    async with a_head(SECRET) as head:
        observer = await watch(head.address, SECRET)
        worker = await join(head.address, hello(1), SECRET)
        assert (set(head.call.members), head.call.present) == ({1}, 1)
        worker.close()
        await head.until(lambda: head.phase(1) is Phase.LOST)
        await asyncio.wait_for(head.call.until_empty(PATIENCE), PATIENCE / 2)
        observer.close()
        assert head.news == ["1: host-1 (10.0.0.11) connected", "1: lost: closed by the other side"]


@looped
async def test_the_rows_of_all_nodes_the_head_first() -> None:
    async with a_head(SECRET, size=4) as head:
        worker = await join(head.address, hello(2, cpus=16, gpus=8), SECRET)
        worker.report(Phase.STARTING_RAY, "2 of 4 daemons")
        worker.report_finding("shm: too small; fix: more")
        await head.until(lambda: head.phase(2) is Phase.STARTING_RAY)
        observer = await watch(head.address, SECRET)
        rows = await observer.nodes()
        assert [(row.rank, row.host, row.phase) for row in rows] == [
            (0, "head-host", Phase.PREPARING),
            (2, "host-2", Phase.STARTING_RAY),
        ]
        assert (rows[1].ip, rows[1].cpus, rows[1].gpus, rows[1].detail) == ("10.0.0.12", 16, 8, "2 of 4 daemons")
        assert rows[1].findings == ("shm: too small; fix: more",)
        assert observer.size == 4
        worker.close()
        observer.close()


@looped
async def test_thousands_of_nodes_do_not_overrun_an_observer() -> None:
    """Their rows are far more than a connection may leave unread, and each is within the limit of a line."""
    nodes, wordy = 5000, "€" * 20_000
    async with a_head(SECRET) as head:
        for rank in range(1, nodes + 1):
            findings = [wordy] * 16 if rank % 100 == 0 else []
            head.call.members[rank] = Member(hello(rank), rank, Phase.JOINED, 0.0, "a slow disk", findings)
        observer = await watch(head.address, SECRET)
        rows = await observer.nodes()
        assert [row.rank for row in rows] == list(range(nodes + 1))
        assert not observer.gone.done()
        observer.close()


@looped
async def test_who_does_not_know_the_secret_is_refused_and_no_node_is_blamed() -> None:
    async with a_head(SECRET) as head:
        with pytest.raises(Refused, match="its secret is not the head's"):
            await watch(head.address, b"another secret of 16 bytes")
        with pytest.raises(Refused, match="this node has no secret"):
            await watch(head.address)
        groups = head.call.rejections.ranked
        assert {group.kind for group in groups} == {""}  # "secret" would count as a missing node's
        assert all("an observer" in group.cause for group in groups)


@looped
async def test_who_is_of_another_run_is_sent_on_without_a_word() -> None:
    async with a_head(SECRET) as head:
        with pytest.raises(NotThisHead):
            await watch(head.address, SECRET, hello=ObserverHello("another", 0, "elsewhere"))
        await asyncio.sleep(0.05)
        assert head.call.rejected == []
        async with a_peer(head.port) as peer:
            assert (await peer.observe(SECRET, attempt=1))["kind"] == "other-run"


@looped
async def test_the_key_alone_lets_observe_but_not_join() -> None:
    key = observer_key(SECRET)
    async with a_head(SECRET) as head:
        observer = await watch(head.address, key=key)
        assert [row.rank for row in await observer.nodes()] == [0]
        observer.close()
        async with a_peer(head.port) as peer:  # as a worker, with the key in the place of the secret
            assert (await peer.enrol(hello(1), key))["kind"] == "secret"
        async with a_peer(head.port) as peer:  # as an observer, with a hello
            answer = await peer.hail(**{"as": "observer"})
            peer.keys = Keys(key, "worker", "0" * 32, answer["nonce"])
            peer.send({"t": "hello", **dataclasses.asdict(hello(1))})
            assert await peer.gone()
        assert not head.call.members


@looped
async def test_a_key_is_not_used_on_an_open_head() -> None:
    async with a_head() as head:
        with pytest.raises(Refused, match="the head has no secret"):
            await watch(head.address, key=observer_key(SECRET))


@pytest.mark.parametrize(
    "message",
    [{"t": "phase", "phase": "joined", "detail": "", "error": ""}, {"t": "nodes"}, {"t": "nodes", "from": "0"}]
    + [{"t": "down", "status": status, "who": "x"} for status in (-1, 256, None, True)],
)
@looped
async def test_another_message_cuts_it(message: dict[str, Any]) -> None:
    async with a_head(SECRET) as head, a_peer(head.port) as peer:
        assert (await peer.observe(SECRET))["t"] == "welcome"
        peer.send(message)
        assert await peer.gone()


@looped
async def test_there_is_room_for_so_many() -> None:
    async with a_head() as head:
        crowd = [await watch(head.address) for _ in range(observers.MOST)]
        with pytest.raises(Refused, match=f"{observers.MOST} others are here"):
            await watch(head.address)
        worker = await join(head.address, hello(1))  # nodes have room of their own
        crowd[0].close()
        await asyncio.sleep(0.05)
        crowd[0] = await watch(head.address)
        for each in (*crowd, worker):
            each.close()


@looped
async def test_one_that_falls_silent_is_cut() -> None:
    async with a_head(heartbeat_timeout=0.8) as head, a_wire(head.port) as between:
        silent, other = await watch(between.address, heartbeat_timeout=30.0), await watch(head.address, None, 0.8)
        between.fall_silent()
        while len(list(head.call.observers)) > 1:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        assert not other.gone.done()  # both sides send beats
        silent.close()
        other.close()


# --------------------------------------------------------------------------------------------------------------- down


@looped
async def test_down_reaches_the_head_with_status_and_name() -> None:
    async with a_head(SECRET) as head:
        said: list[tuple[int, str]] = []
        head.call.observers.on_down = lambda status, who: said.append((status, who))
        observer = await watch(head.address, SECRET)
        assert not head.call.observers.await_the_end
        observer.down(3, "login-1 (ada)")
        await observer.nodes()  # which is answered after it
        assert said == [(3, "login-1 (ada)")]
        assert head.call.observers.await_the_end
        observer.close()
        await asyncio.sleep(0.05)
        assert not head.call.observers.await_the_end  # it waits no longer


@looped
async def test_an_open_run_is_ended_from_the_heads_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_head() as head:
        said: list[int] = []
        head.call.observers.on_down = lambda status, _who: said.append(status)
        near, far = await watch(head.address), await watch(head.address)
        monkeypatch.setattr(net, "is_loopback", lambda _address: False)
        far.down(0, "a stranger")
        with pytest.raises(Refused, match=r"nothing proves that 127\.0\.0\.1 may end the run") as refused:
            await far.ended
        assert "on the head's node" in refused.value.hint
        assert said == []
        monkeypatch.undo()
        near.down(0, "its user")
        await near.nodes()
        assert said == [0]
        near.close()


@looped
async def test_its_connection_lasts_until_the_workers_have_cleaned_up() -> None:
    async with a_head(SECRET) as head:
        workers = [await join(head.address, hello(rank), SECRET) for rank in (1, 2)]
        observer = await watch(head.address, SECRET)
        observer.down(0, "me")
        await asyncio.wait_for(head.call.deliver(DONE, PATIENCE), PATIENCE / 2)  # all have said bye, and are still here
        for worker in workers:
            await worker.leave("the end")  # changes nothing: the agent ends with its clean-up
        assert [head.phase(rank) for rank in (1, 2)] == [Phase.LEFT] * 2
        cleaned = asyncio.ensure_future(head.call.until_empty(PATIENCE, clean=True))
        workers[0].report_finding("what a cleaning node still says is not heard")
        workers[0].close()
        await asyncio.sleep(0.1)
        assert not cleaned.done()
        workers[1].close()
        await asyncio.wait_for(cleaned, PATIENCE)
        assert not observer.gone.done()
        head.call.close()
        await observer.gone
        assert head.call.members[1].findings == []


@looped
async def test_a_head_that_is_killed_is_lost_to_it() -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as between:
        observer = await watch(between.address, SECRET, 0.8)
        between.fall_silent()
        with pytest.raises(RayDied, match="lost the head head-host without a verdict: it was silent"):
            await observer.ended
        with pytest.raises(RayDied, match="before it had listed the nodes"):
            await observer.nodes()


@looped
async def test_a_lone_head_listens_on_loopback_and_does_not_tick() -> None:
    async with a_head(SECRET) as head:
        head.call._listener.close()  # type: ignore[union-attr]
        head.port = head.call.listen([0], loopback=True)
        assert head.call.heartbeat._timer is None
        observer = await watch(head.address, SECRET)
        assert head.call.heartbeat._timer is not None
        assert {each.getsockname()[0] for each in head.call._listener._sockets} == {"127.0.0.1"}  # type: ignore[union-attr]
        assert observer.hello.run == RUN
        observer.close()
