"""Strangers in an open run's roll call, and neighbours at its head: they keep neither its nodes nor its user out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest
from rollcall_peers import (
    PATIENCE,
    RUN,
    SECRET,
    Head,
    Keys,
    Peer,
    a_head,
    a_peer,
    a_program,
    a_wire,
    hello,
    join,
    looped,
    observer_key,
    watch,
)

from bootstrap import net
from bootstrap.commands.node_table import table
from bootstrap.errors import Refused
from bootstrap.model import Phase
from bootstrap.rollcall import observers
from bootstrap.rollcall.member import Member

ELSEWHERE = "127.0.0.66"


@pytest.fixture(autouse=True)
def only_one_address_is_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "is_loopback", lambda address: address == "127.0.0.1")


async def stranger(head: Head, source: str = ELSEWHERE, to: str = "127.0.0.1") -> Peer:
    peer = Peer(*await asyncio.open_connection(to, head.port, local_addr=(source, 0)))
    assert (await peer.observe())["t"] == "welcome"
    return peer


@looped
async def test_they_do_not_keep_out_who_may_end_the_run() -> None:
    async with a_head() as head:
        crowd = [await stranger(head) for _ in range(observers.MOST + 1)]
        assert await crowd[0].gone()  # the oldest made room
        ended = asyncio.get_running_loop().create_future()
        head.call.observers.on_down = lambda status, _who: ended.set_result(status)
        mine = await watch(head.address)
        mine.down(7, "the user")
        assert await asyncio.wait_for(ended, PATIENCE) == 7
        crowd += [await stranger(head) for _ in range(observers.MOST)]
        assert not mine.gone.done()  # who is here makes room for none
        for each in (mine, *crowd):
            each.close()


@pytest.mark.parametrize(("source", "to"), [(ELSEWHERE, "127.0.0.1"), ("127.0.0.1", "127.0.0.77")])
@looped
async def test_one_end_on_this_machine_ends_no_run(source: str, to: str) -> None:
    """Such as a mesh's proxy in the pod, which speaks from 127.0.0.6 to the pod's address for whoever calls."""
    async with a_head() as head:
        head.call.observers.on_down = lambda *_: pytest.fail("ended")
        peer = await stranger(head, source, to)
        peer.send({"t": "down", "status": 0, "who": "x"})
        assert (await peer.hear())["kind"] == "open-run"
        peer.close()


@looped
async def test_one_that_asks_before_it_is_answered_is_cut() -> None:
    async with a_head() as head:
        peer, other = await stranger(head), await watch(head.address)
        peer.send(b'{"t":"nodes","from":0}\n' * 3)
        assert await peer.gone()
        assert [row.rank for row in await other.nodes()] == [0]
        other.close()


@pytest.mark.parametrize("secret", [None, SECRET])
@looped
async def test_their_questions_leave_time_for_the_members(secret: bytes | None) -> None:
    """Each costs the head up to 64 KiB of rows, and the asker 24 bytes."""
    async with a_head(secret, size=1001) as head:
        now = asyncio.get_running_loop().time()
        nodes = {rank: Member(hello(rank), rank, Phase.JOINED, now) for rank in range(2, 1001)}
        head.call.members.update(nodes)
        member = await join(head.address, hello(1), secret)
        threads = [threading.Thread(target=ask_and_ask, args=(head.port,), daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        worst, end = 0.0, time.monotonic() + 1.5
        while time.monotonic() < end:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - began)
        assert worst < 1.0
        assert not member.ended.done()
        member.close()


@looped
async def test_a_node_has_one_row() -> None:
    async with a_head() as head:
        forged = "up\n2     host-2   10.0.0.12  joined  3 s\t"
        node = await join(head.address, hello(1, host=forged, ip=f"10.0.0.11\n{forged}"))
        node.report(Phase.JOINED, f"\x1b[2J{forged}")
        node.report_finding(forged)
        await head.until(lambda: head.phase(1) is Phase.JOINED)
        observer = await watch(head.address)
        lines = table(await observer.nodes(), [])
        assert [line.split()[0] for line in lines] == ["rank", "0", "1"]
        assert all(line.isprintable() for line in lines)
        for each in (node, observer):
            each.close()


def ask_and_ask(port: int) -> None:
    """Without a secret it is not admitted where there is one."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as peer:
        said = [{"t": "hail", "v": 6, "nonce": "0" * 32, "as": "observer"}]
        said.append({"t": "observe", "run": RUN, "attempt": 0, "host": "x"})
        lines = peer.makefile("rb")
        for message in said:
            peer.sendall(json.dumps(message).encode() + b"\n")
            lines.readline()
        threading.Thread(target=read_all, args=(peer,), daemon=True).start()
        for _ in range(100):
            peer.sendall(b'{"t":"nodes","from":0}\n' * 2500)


def read_all(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while peer.recv(1 << 20):
            pass


@looped
async def test_a_recorded_down_ends_no_other_connections_run() -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as wire:
        ended: list[int] = []
        head.call.observers.on_down = lambda status, _who: ended.append(status)
        observer = await watch(wire.address, SECRET)
        observer.down(3, "the user")
        await observer.nodes()
        async with a_peer(head.port) as replayer:
            replayer.send(bytes(wire.said["worker"]))
            assert (await replayer.hear())["t"] == "challenge"
            assert (await replayer.hear())["kind"] == "secret"
            assert await replayer.gone()
        assert ended == [3]
        observer.close()


@pytest.mark.parametrize("other", [{"run": "another"}, {"attempt": 1}])
@looped
async def test_the_key_of_another_run_or_attempt_does_not_serve(other: dict[str, Any]) -> None:
    """Both have one secret: each agent leaves its run's key alone."""
    async with a_head(SECRET) as head, a_peer(head.port) as peer:
        assert (await peer.observe(key=observer_key(SECRET, **other)))["kind"] == "secret"


@pytest.mark.parametrize("secret", [None, SECRET])
@pytest.mark.parametrize("first", ["down", "nodes", "beat"])
@looped
async def test_nothing_is_done_before_the_welcome(secret: bytes | None, first: str) -> None:
    async with a_head(secret) as head, a_peer(head.port) as peer:
        head.call.observers.on_down = lambda *_: pytest.fail("ended")
        answer = await peer.hail(**{"as": "observer"})
        if secret is not None:
            peer.keys = Keys(observer_key(secret), "worker", "0" * 32, answer["nonce"])
        peer.send({"t": first, "status": 0, "who": "x", "from": 0})
        assert await peer.hear() == {}


@looped
async def test_a_hail_changed_on_its_way_makes_no_worker_an_observer() -> None:
    """Whoever can change packets can keep a worker out; it hears why, and is not admitted as another."""
    async with a_head(SECRET) as head:

        async def change(worker: Peer) -> None:
            behind = await Peer.connect(head.port)
            hail = json.loads(await worker.reader.readline())
            behind.send({**hail, "as": "observer"})
            worker.writer.write(await behind.reader.readline())
            behind.writer.write(await worker.reader.readline())
            worker.writer.write(await behind.reader.readline())
            behind.close()

        async with a_program(change) as address:
            with pytest.raises(Refused, match="its secret is not the head's"):
                await join(address, hello(1), SECRET)
        assert not head.call.members
        assert list(head.call.observers) == []
