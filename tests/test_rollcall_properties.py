"""Any bytes, in any pieces, into either side of the roll call: no hang, no crash, no memory without bound.

The real head and worker, on a loop whose ``create_server`` and ``create_connection`` lead into memory, so that the
pieces arrive exactly as cut.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rollcall_peers import ME, RUN, SECRET, Keys, hello, tag
from rollcall_peers import given as given_secret

from bootstrap.errors import BootstrapError
from bootstrap.model import HeadAddress, Phase, Verdict
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.refusal import NotThisHead
from bootstrap.rollcall.server import RollCall
from bootstrap.rollcall.wire import BEAT, MAX_LINE, Connection, decode, encode

_EXAMPLES = settings(max_examples=settings().max_examples * 3 // 2, deadline=2000)
_MOST_SAID = 64 * 1024
"""Bytes that either side may answer to a stream; the streams here cause far fewer messages than that."""


class Pipe(asyncio.Transport):
    """A transport that remembers what is written, and whose other end is the test."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self._closing = False
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    async def feed(self, pieces: Iterator[bytes]) -> None:
        """As asyncio's own transports do: nothing is read any more once closing has begun."""
        for piece in pieces:
            if self._closing:
                break
            self.protocol.data_received(piece)
            kept = len(self.protocol._pending)
            assert kept < MAX_LINE
            await asyncio.sleep(0)
        self.close()
        await asyncio.sleep(0)

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line[: line.rindex(b"}") + 1]) for line in bytes(self.written).splitlines()]


def looped(scenario: Coroutine[Any, Any, None]) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        await asyncio.wait_for(scenario, 10)

    asyncio.run(main())
    assert not complaints


async def a_head_in_memory(secret: bytes | None) -> tuple[RollCall, Callable[[], Pipe]]:
    """The head, and what connects to it."""
    call = RollCall(ME, given_secret(secret), 30)

    def connect() -> Pipe:
        connection = call._meet("192.0.2.1")
        assert connection is not None
        return Pipe(connection)

    return call, connect


async def a_worker_in_memory(secret: bytes | None) -> tuple[Membership, asyncio.Task[None], Pipe]:
    """A worker that has just hailed."""
    connected: asyncio.Future[Pipe] = asyncio.get_running_loop().create_future()

    async def create_connection(factory: Callable[[], Connection], *_: Any) -> tuple[Pipe, Connection]:
        pipe = Pipe(factory())
        connected.set_result(pipe)
        return pipe, pipe.protocol

    asyncio.get_running_loop().create_connection = create_connection  # type: ignore[method-assign,assignment]
    membership = Membership(hello(1), given_secret(secret), 30)

    async def join() -> None:
        await membership.greet(HeadAddress("127.0.0.1", 1), 5)
        await membership.enrol(5)

    joining = asyncio.ensure_future(join())
    pipe = await connected
    while not pipe.written:
        await asyncio.sleep(0)
    return membership, joining, pipe


# What to send: noise, and messages that are nearly or quite right, cut anywhere.

_GOOD: list[dict[str, Any]] = [
    {"t": "hail", "v": 6, "nonce": "0" * 32},
    {"t": "hello", **dataclasses.asdict(hello(2))},
    {"t": "phase", "phase": "joined", "detail": "", "error": ""},
    {"t": "bye", "reason": "gone"},
    {"t": "challenge", "nonce": "0" * 32, "tag": "", "auth": "none"},
    {"t": "welcome", "rank": 1, "head": "h"},
    {"t": "go", "gcs": "h:1"},
    {"t": "verdict", "status": 3, "reason": "r", "source": "workload"},
    {"t": "refuse", "kind": "identity", "reason": "r", "head": "h", "tag": ""},
    {"t": "beat"},
    {"t": "spans", "spans": [{"name": "preparing", "begin": -5}, {"name": "GCS", "begin": 0, "end": 3}]},
]
_FIELDS = sorted({name for message in _GOOD for name in message})
_KINDS = [message["t"] for message in _GOOD]
_PHASES = [phase.value for phase in Phase]
_NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 1 << 53, 1 << 2000]))
_SCALARS = st.one_of(
    st.none(), st.booleans(), _NUMBERS, st.text(max_size=40), st.sampled_from([*_KINDS, *_PHASES, RUN, "0" * 32])
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
_MESSAGES = st.builds(
    lambda kind, fields: {"t": kind, **fields},
    st.sampled_from(_KINDS),
    st.dictionaries(st.sampled_from([name for name in _FIELDS if name != "t"]), _VALUES, max_size=8),
)
_CHANGED = st.builds(
    lambda good, field, value: {**good, field: value}, st.sampled_from(_GOOD), st.sampled_from(_FIELDS), _VALUES
)
_NESTED = st.integers(1, 8000).map(lambda depth: b'{"t":"hail","v":' + b"[" * depth + b"]" * depth + b"}\n")
_LINES = st.one_of(
    st.one_of(_MESSAGES, st.sampled_from(_GOOD), _CHANGED).map(lambda m: json.dumps(m).encode() + b"\n"),
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda noise: noise + b"\n"),
    st.sampled_from([BEAT, b"\n", b"\r\n", b"\0" * 100, b"x" * MAX_LINE, b"x" * 3 * MAX_LINE + b"\n"]),
    _NESTED,
)
_STREAMS = st.builds(
    lambda lines, cuts: (b"".join(lines), sorted(cuts)),
    st.lists(_LINES, min_size=1, max_size=12),
    st.lists(st.integers(0, 4 * MAX_LINE), max_size=12),
)
Stream = tuple[bytes, list[int]]


def pieces(stream: Stream) -> Iterator[bytes]:
    data, cuts = stream
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if begin < min(end, len(data)):
            yield data[begin:end]


def byte_by_byte(data: bytes) -> Stream:
    return data, list(range(1, len(data)))


@_EXAMPLES
@given(_STREAMS, st.booleans())
@example(byte_by_byte(b"".join(json.dumps(m).encode() + b"\n" for m in _GOOD[:5])), False)
@example((b"[" * 100_000, [1, 50_000]), True)
def test_any_bytes_into_the_head(stream: Stream, with_secret: bool) -> None:
    async def scenario() -> None:
        call, connect = await a_head_in_memory(SECRET if with_secret else None)
        stranger = connect()
        await stranger.feed(pieces(stream))
        assert len(stranger.written) <= _MOST_SAID
        assert call.present == 0
        assert not {**call.handshakes._pending, **call._joined}
        assert len(call.members) <= 1
        assert all(len(line) < 2 * MAX_LINE for line in call.rejected)
        call.close()

    looped(scenario())


@_EXAMPLES
@given(_STREAMS)
@example((b'{"t":"bye","reason":"' + b"x" * 16_000 + b'"}\n', [1]))
def test_any_bytes_from_a_member_into_the_head(stream: Stream) -> None:
    async def scenario() -> None:
        call, connect = await a_head_in_memory(SECRET)
        call.release("h:1")
        quiet, loud = connect(), connect()
        for rank, pipe in enumerate((quiet, loud), 1):
            enrol(pipe, rank)
        assert call.present == 2
        await loud.feed(pieces(stream))
        assert call.present == 1
        assert call.members[2].phase in {Phase.LOST, Phase.LEFT, Phase.FAILED}
        assert (call.members[1].phase, call.members[1].connected) == (Phase.WAITING, True)
        assert len(loud.written) <= _MOST_SAID
        call.close()
        await asyncio.sleep(0)
        assert not {**call.handshakes._pending, **call._joined}

    looped(scenario())


def enrol(pipe: Pipe, rank: int) -> None:
    nonce = "a" * 32
    pipe.protocol.data_received(encode({"t": "hail", "v": 6, "nonce": nonce}))
    keys = Keys(SECRET, "worker", nonce, pipe.said()[-1]["nonce"])
    pipe.protocol.data_received(keys.sign(encode(hello(rank).message())))
    assert [m["t"] for m in pipe.said()] == ["challenge", "welcome", "go"]


@_EXAMPLES
@given(_STREAMS, st.booleans())
def test_any_bytes_into_a_worker_that_looks_for_its_head(stream: Stream, with_secret: bool) -> None:
    async def scenario() -> None:
        membership, joining, pipe = await a_worker_in_memory(SECRET if with_secret else None)
        await pipe.feed(pieces(stream))
        answer = await asyncio.wait_for(asyncio.gather(joining, return_exceptions=True), 1)
        assert isinstance(answer[0], NotThisHead)
        assert [m["t"] for m in pipe.said()] == ["hail"]
        assert membership.ended.done()

    looped(scenario())


@_EXAMPLES
@given(_STREAMS)
@example((b'{"t":"verdict","status":1e999,"reason":"","source":""}\n', [3]))
def test_any_bytes_from_the_head_into_a_member(stream: Stream) -> None:
    async def scenario() -> None:
        membership, joining, pipe = await a_worker_in_memory(SECRET)
        mine, theirs = pipe.said()[0]["nonce"], "b" * 32
        pipe.protocol.data_received(encode({"t": "challenge", "nonce": theirs, "tag": tag(mine), "auth": "secret"}))
        while len(pipe.said()) < 2:
            await asyncio.sleep(0)
        welcome = Keys(SECRET, "head", mine, theirs).sign(encode({"t": "welcome", "rank": 1, "head": "h"}))
        pipe.protocol.data_received(welcome)
        await asyncio.wait_for(joining, 1)
        await pipe.feed(pieces(stream))
        assert len(pipe.written) <= _MOST_SAID
        ended = await asyncio.wait_for(asyncio.gather(membership.ended, return_exceptions=True), 1)
        assert isinstance(ended[0], (Verdict, BootstrapError))
        if isinstance(ended[0], Verdict):
            assert 0 <= ended[0].status <= 255
        assert not membership.released.done() or isinstance(membership.released.result(), str)
        await membership.leave("test")

    looped(scenario())


# ------------------------------------------------------------------------------------------------------- the format

_TEXTS = st.text(st.characters(), max_size=300)
"""Lone surrogates and what needs escapes are among them."""


@given(st.dictionaries(st.text(max_size=20), st.one_of(_TEXTS, st.integers(), st.booleans(), st.none()), max_size=6))
def test_what_fits_comes_back_as_it_was(fields: dict[str, Any]) -> None:
    message = {**fields, "t": "phase"}
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == message


@given(st.lists(st.tuples(_TEXTS, st.integers(1, 2000)), min_size=1, max_size=5))
@example([("\U0001f600", 20_000)])
@example([("\0", MAX_LINE)])
@example([("a", MAX_LINE), ("b", MAX_LINE)])
def test_any_text_fits_and_its_end_is_kept(texts: list[tuple[str, int]]) -> None:
    message = {"t": "phase", **{f"f{n}": text * times for n, (text, times) in enumerate(texts)}}
    line = encode(message)
    assert len(line) <= MAX_LINE
    back = decode(line)
    assert back.keys() == message.keys()
    for name, value in back.items():
        assert message[name].endswith(value)
    if len(json.dumps(message)) > 2 * MAX_LINE:
        assert len(line) > MAX_LINE // 4  # and no more is dropped than need be


@given(st.one_of(_LINES, st.binary(max_size=2000)))
def test_a_line_is_a_message_or_a_value_error(line: bytes) -> None:
    try:
        message = decode(line)
    except ValueError:
        return
    assert isinstance(message["t"], str)
