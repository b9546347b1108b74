"""What whoever sits between the nodes, or floods the head, gets: nothing (docs/rollcall.md)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from rollcall_peers import PATIENCE, SECRET, Peer, a_head, a_program, hello, join, looped

from bootstrap.errors import RayDied
from bootstrap.model import HeadAddress, Verdict

MINE = "127.0.0.9:6666"
"""Where the attacker would like the worker's Ray to bring its token."""

Change = Callable[[dict[str, Any]], dict[str, Any]]


@contextlib.asynccontextmanager
async def a_relay(port: int, change: Change) -> AsyncIterator[HeadAddress]:
    """Between a worker and the head at ``port``; what the head says is changed where that is still a message."""

    async def from_head(head: Peer, worker: Peer) -> None:
        while line := await head.reader.readline():
            text, mac = line[: line.rindex(b"}") + 1], line[line.rindex(b"}") + 1 :]
            message = json.loads(text)
            changed = change(dict(message))
            new = text if changed == message else json.dumps(changed, separators=(",", ":")).encode()
            worker.writer.write(new + mac)
        worker.close()

    async def serve(worker: Peer) -> None:
        head = await Peer.connect(port)
        back = asyncio.ensure_future(from_head(head, worker))
        try:
            while data := await worker.reader.read(65536):
                head.writer.write(data)
        finally:
            head.close()
            back.cancel()

    async with a_program(serve) as address:
        yield address


def _another_gcs(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "gcs": MINE} if message["t"] == "go" else message


def _all_is_well(message: dict[str, Any]) -> dict[str, Any]:
    """Ends the worker at once, as if the workload had succeeded."""
    if message["t"] == "go":
        return {"t": "verdict", "status": 0, "reason": "done", "source": "workload"}
    return message


@looped
async def test_a_relay_that_changes_nothing_is_not_noticed() -> None:
    async with a_head(SECRET) as head, a_relay(head.port, lambda message: message) as relay:
        worker = await join(relay, hello(), SECRET)
        head.call.release("10.0.0.1:6379")
        assert await asyncio.wait_for(worker.released, PATIENCE) == "10.0.0.1:6379"
        worker.close()


@pytest.mark.parametrize("change", [_another_gcs, _all_is_well])
@looped
async def test_a_relay_cannot_send_a_worker_elsewhere_nor_end_it_well(change: Change) -> None:
    async with a_head(SECRET) as head, a_relay(head.port, change) as relay:
        worker = await join(relay, hello(), SECRET)
        head.call.release("10.0.0.1:6379")
        with pytest.raises(RayDied, match="a line with a wrong MAC"):
            await asyncio.wait_for(asyncio.shield(worker.ended), PATIENCE)
        assert not worker.released.done()


@looped
async def test_a_line_cannot_be_said_twice_or_left_out() -> None:
    async def twice(peer: Peer) -> None:
        async with a_head(SECRET) as head:
            behind = await Peer.connect(head.port)
            peer_to_head = asyncio.ensure_future(_copy(peer, behind))
            for _ in range(2):  # the challenge, the welcome
                peer.writer.write(await behind.reader.readline())
            head.call.release("first:1")
            line = await behind.reader.readline()
            peer.writer.write(line + line)
            await peer_to_head
            behind.close()

    async def left_out(peer: Peer) -> None:
        async with a_head(SECRET) as head:
            behind = await Peer.connect(head.port)
            peer_to_head = asyncio.ensure_future(_copy(peer, behind))
            for _ in range(2):
                peer.writer.write(await behind.reader.readline())
            head.call.release("first:1")
            await behind.reader.readline()
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, head.call.deliver(Verdict(0, ""), 1))
            peer.writer.write(await behind.reader.readline())
            await peer_to_head
            behind.close()

    for attack in (twice, left_out):
        async with a_program(attack) as address:
            worker = await join(address, hello(), SECRET)
            with pytest.raises(RayDied, match="a line with a wrong MAC"):
                await asyncio.wait_for(asyncio.shield(worker.ended), PATIENCE)


async def _copy(source: Peer, sink: Peer) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.reader.read(65536):
            sink.writer.write(data)


FLOOD = """
import contextlib, socket, sys
while True:
    with contextlib.suppress(OSError), socket.socket() as each:
        each.bind(("127.0.0.2", 0))
        each.connect(("127.0.0.1", int(sys.argv[1])))
        each.send(b'{"t":"hail","v":2,"nonce":"00000000000000000000000000000000"}\\n')
"""
"""Connects as fast as one process can, and says something, so that the head has work with each connection."""
DELAY = 3.0
"""Seconds, generous on a busy machine; docs/rollcall.md promises 1."""


@looped
async def test_a_flood_from_one_address_does_not_keep_the_runs_own_nodes_out() -> None:
    async with a_head(SECRET, size=9) as head:
        flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(head.port)])  # noqa: ASYNC220 (starts at once)
        try:
            await head.until(lambda: any("127.0.0.2: more than 256 connections" in who for who in head.refused))
            for rank in range(1, 9):
                began = time.monotonic()
                worker = await join(head.address, hello(rank, size=9), SECRET)
                took = time.monotonic() - began
                print(f"{took:.3f} s")
                assert took < DELAY
                worker.close()
            assert len(head.call.handshakes._pending) <= 512  # bounded
        finally:
            flood.kill()
            flood.wait()
