"""What a stranger gets from the listener for probes, and makes the head believe: nothing (docs/rollcall.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from rollcall_peers import PATIENCE, SECRET, a_head, hello, join, looped

from bootstrap import timeouts
from bootstrap.probe import exchange
from bootstrap.probe.dialer import probe
from bootstrap.probe.messages import PROBE, Outcome, Target
from bootstrap.probe.responder import _MOST_STRANGERS, Responder
from bootstrap.rollcall import auth
from bootstrap.run.pairs import Pairs

KEY = exchange.make_key(SECRET, "run", 0)


@contextlib.contextmanager
def a_responder() -> Iterator[tuple[Responder, int]]:
    responder = Responder()
    port = responder.bind([0])
    responder.begin(KEY, 2)
    try:
        yield responder, port
    finally:
        responder.close()


async def says(port: int, *lines: bytes) -> tuple[bytes, bytes]:
    """What a client gets for its first line, and for all that follow."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    first, *others = lines
    answers = [b"", b""]
    with contextlib.suppress(ConnectionError):
        writer.write(first)
        answers[0] = await asyncio.wait_for(reader.readline(), PATIENCE)
        writer.write(b"".join(others))
        answers[1] = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.transport.abort()
    return answers[0], answers[1]


GUESSED = exchange.make_key(None, "run", 0)
"""Of a stranger who knows the run and not its secret."""
STRANGE = {
    "a browser": b"GET / HTTP/1.1\r\n",
    "another run": exchange.ask(exchange.make_key(SECRET, "another", 0), auth.nonce()),
    "a wrong secret": exchange.ask(GUESSED, auth.nonce()),
    "no nonce": exchange.ask(KEY, ""),
    "no end": b"x" * 4096,
    "not text": b"\xff\xfe\n",
    "an echo first": exchange.echo(KEY, "ab" * 16, "cd" * 16),
}


@pytest.mark.parametrize("line", STRANGE.values(), ids=STRANGE)
@looped
async def test_a_stranger_gets_no_byte(line: bytes) -> None:
    with a_responder() as (_, port):
        assert await says(port, line, bytes(1000)) == (b"", b"")


@looped
async def test_a_recorded_line_said_again_makes_no_echo() -> None:
    """Whoever listens on the wire may send a whole probe again: the listener's nonce is another one then."""
    with a_responder() as (_, port):
        mine = auth.nonce()
        ask = exchange.ask(KEY, mine)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask)
        theirs, _ = exchange.read_answer(KEY, mine, await reader.readline())
        echo = exchange.echo(KEY, mine, theirs) + bytes(1000)
        writer.write(echo)
        assert len(await reader.readexactly(1000)) == 1000
        writer.transport.abort()

        answer, echoed = await says(port, ask, echo)
        assert answer.startswith(b"rank ")
        assert echoed == b""


@looped
async def test_an_echo_has_an_end() -> None:
    with a_responder() as (_, port):
        mine = auth.nonce()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(exchange.ask(KEY, mine))
        theirs, _ = exchange.read_answer(KEY, mine, await reader.readline())
        writer.write(exchange.echo(KEY, mine, theirs))
        echoed = 0
        with contextlib.suppress(ConnectionError):
            writer.write(bytes(3 * exchange.PAYLOAD))
            while data := await asyncio.wait_for(reader.read(65536), PATIENCE):
                echoed += len(data)
        assert echoed <= exchange.PAYLOAD
        writer.transport.abort()


@looped
async def test_connections_that_say_nothing_keep_no_node_out() -> None:
    with a_responder() as (responder, port):
        idle = []
        for number in range(2 * _MOST_STRANGERS):  # loopback's other addresses count as one source, so from several
            local = (f"127.0.0.{1 + number % 2}", 0)
            idle.append(await asyncio.open_connection("127.0.0.1", port, local_addr=local))
        await asyncio.sleep(0.05)
        assert len(responder._open) <= _MOST_STRANGERS
        reached = await probe(Target(2, "::1", PROBE, port, True), KEY, 1)
        assert reached.error == ""
        for _, writer in idle:
            writer.transport.abort()


@looped
async def test_a_connection_that_says_nothing_is_cut() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeouts, "PROBE_S", 0.1)
        with a_responder() as (responder, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            assert not responder._open
            writer.transport.abort()


@looped
async def test_a_false_listener_is_not_taken_for_the_node() -> None:
    """Whoever answers at a node's address without its secret is a finding, and cannot pose as the node."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, nonce, _ = (await reader.readline()).decode().split()
        writer.write(exchange.answer(GUESSED, nonce, auth.nonce(), 2))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = await probe(Target(2, "127.0.0.1", PROBE, port, True), KEY, 1)
    assert outcome.error == "another program, or a node of another run, answers there"
    server.close()


@looped
async def test_a_result_before_the_welcome_is_no_result() -> None:
    """Only a member reports; a stranger's line cuts the stranger."""
    heard: asyncio.Queue[tuple[int, object]] = asyncio.Queue()
    async with a_head(SECRET) as head:
        head.call.on_probed = lambda member, message: heard.put_nowait((member.rank, message["error"]))
        reader, writer = await asyncio.open_connection("127.0.0.1", head.port)
        writer.write(b'{"t":"probed","rank":0,"port":"gcs","error":"lies","us":0,"rate":0,"stalled":false}\n')
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        worker = await join(head.address, hello(), SECRET)
        worker.report_probe(Outcome(0, PROBE, "true").message())
        assert await asyncio.wait_for(heard.get(), PATIENCE) == (1, "true")
        assert heard.empty()
        worker.close()


def test_a_member_cannot_fill_the_heads_memory_with_results() -> None:
    pairs = Pairs()
    for rank in range(100_000):
        pairs.record(1, Outcome(rank, PROBE, "lies"))
    assert not pairs.outcomes
    assert pairs.report() == ([], [])
