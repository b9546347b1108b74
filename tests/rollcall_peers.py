"""What the roll call's tests use: a head, workers, and peers that keep to the protocol as far as a test asks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bootstrap.files.certificates import Issued
from bootstrap.files.secret import NO_SECRET, Secret
from bootstrap.model import HeadAddress, Phase
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.hello import Hello, ObserverHello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.observer import Observer
from bootstrap.rollcall.server import RollCall

RUN = "run/7 of ü"
SECRET = b"correct horse battery staple"
PATIENCE = 10.0
"""Seconds after which a test counts as hanging; nothing here takes so long."""

ME = Hello(RUN, 0, 0, None, "head-host", "10.0.0.1", "0.1", "2.60.0", "3.11.7", 8, 0, "", 0.0)


def hello(rank: int | None = 1, **changes: Any) -> Hello:
    """A worker's, which fits the head's unless changed."""
    known = dataclasses.replace(ME, rank=rank, host=f"host-{rank}", ip=f"10.0.0.{10 + (rank or 0)}", time=time.time())
    return dataclasses.replace(known, **changes)


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test in a loop of its own; what reaches the loop's exception handler fails it, and so does hanging."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
            await asyncio.wait_for(test(*args, **kwargs), 3 * PATIENCE)
            gc.collect()  # a future whose exception nobody looked at complains when it goes
            await asyncio.sleep(0)

        asyncio.run(main())
        assert not complaints

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Head:
    """The real one, and what it said of its members."""

    call: RollCall
    port: int = 0
    news: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> HeadAddress:
        return HeadAddress("127.0.0.1", self.port)

    def note(self, member: Member, what: str) -> None:
        self.news.append(f"{member.rank}: {what}")
        self.changed.set()

    def note_refused(self, who: str) -> None:
        self.refused.append(who)
        self.changed.set()

    def note_misfit(self, what: str) -> None:
        self.misfits.append(what)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a change of a member, or a refusal, that makes this true."""
        while not condition():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE)

    def phase(self, rank: int) -> Phase | None:
        return self.call.members[rank].phase if rank in self.call.members else None


def given(secret: bytes | Secret | None) -> Secret:
    """What a user gave to every node, or nothing."""
    if isinstance(secret, Secret):
        return secret
    return NO_SECRET if secret is None else Secret(secret, "the test")


@contextlib.asynccontextmanager
async def a_head(
    secret: bytes | Secret | None = None,
    heartbeat_timeout: float = 30.0,
    port: int = 0,
    any_python_patch: bool = False,
    certify: Callable[[str, str, str], Issued] | None = None,
    **me: Any,
) -> AsyncIterator[Head]:
    call = RollCall(dataclasses.replace(ME, **me), given(secret), heartbeat_timeout, any_python_patch, certify)
    head = Head(call)
    call.on_change, call.on_refused, call.on_misfit = head.note, head.note_refused, head.note_misfit
    head.port = call.listen([port] if port else [0, 0, 0])
    try:
        yield head
    finally:
        call.close()
        await asyncio.sleep(0)


async def join(
    address: HeadAddress,
    who: Hello,
    secret: bytes | Secret | None = None,
    heartbeat_timeout: float = 30.0,
    timeout: float = 5.0,
) -> Membership:
    """A real worker, up to its welcome."""
    membership = Membership(who, given(secret), heartbeat_timeout)
    await membership.greet(address, timeout)
    await membership.enrol(timeout)
    return membership


async def watch(
    address: HeadAddress, secret: bytes | Secret | None = None, heartbeat_timeout: float = 30.0, **changes: Any
) -> Observer:
    """A real observer, up to its welcome."""
    who = {"hello": ObserverHello(RUN, 0, "elsewhere"), "secret": given(secret), **changes}
    observer = Observer(heartbeat_timeout=heartbeat_timeout, **who)
    await observer.greet(address, 5.0)
    await observer.enrol(5.0)
    return observer


def tag(challenge: str, run: str = RUN, attempt: int = 0) -> str:
    """As docs/rollcall.md has it; on purpose not the code under test."""
    return hmac.new(f"{run}\n{attempt}".encode(), challenge.encode(), "sha256").hexdigest()[:32]


def observer_key(secret: bytes, run: str = RUN, attempt: int = 0) -> bytes:
    """As docs/rollcall.md has it."""
    info = f"ray-bootstrap/6 observer\n{attempt}\n{run}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=b"", info=info).derive(secret).hex().encode()


@dataclass
class Keys:
    """One side's end of a connection with MACs, as docs/rollcall.md has it; the derivation is another library's."""

    secret: bytes
    side: str
    worker_nonce: str
    head_nonce: str
    run: str = RUN
    attempt: int = 0
    sent: int = 0
    heard: int = 0

    def _key(self, side: str) -> bytes:
        info = f"ray-bootstrap/6\n{side}\n{self.attempt}\n{self.run}".encode()
        salt = (self.worker_nonce + self.head_nonce).encode()
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(self.secret)

    def mac(self, side: str, number: int, text: bytes) -> bytes:
        return hmac.new(self._key(side), number.to_bytes(8, "big") + text, "sha256").hexdigest()[:32].encode()

    def sign(self, line: bytes) -> bytes:
        text = line.rstrip(b"\n")
        self.sent += 1
        return text + b" " + self.mac(self.side, self.sent - 1, text) + b"\n"

    def verify(self, line: bytes) -> bytes:
        text, mac = line.rstrip(b"\n").rsplit(b" ", 1)
        other = {"worker": "head", "head": "worker"}[self.side]
        assert mac == self.mac(other, self.heard, text)
        self.heard += 1
        return text


@dataclass
class Peer:
    """One end of a connection in the hands of the test."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    keys: Keys | None = None

    @classmethod
    async def connect(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    def send(self, what: bytes | dict[str, Any]) -> None:
        """Bytes as they are; a message as a line, with its MAC if there are keys."""
        if isinstance(what, bytes):
            self.writer.write(what)
            return
        line = json.dumps(what).encode() + b"\n"
        self.writer.write(line if self.keys is None else self.keys.sign(line))

    async def hear(self) -> dict[str, Any]:
        """The next message other than a heartbeat; an empty one at end of file."""
        while True:
            try:
                line = await asyncio.wait_for(self.reader.readline(), PATIENCE)
            except ConnectionResetError:
                return {}
            if self.keys is not None and line and not line.startswith(b'{"t":"refuse"'):
                line = self.keys.verify(line)
            message: dict[str, Any] = json.loads(line[: line.rindex(b"}") + 1]) if line else {}
            if message.get("t") != "beat":
                return message

    async def gone(self) -> bool:
        """Wait until the other side has closed."""
        while await self.hear():
            pass
        return True

    async def hail(self, nonce: str = "0" * 32, version: Any = 6, **more: Any) -> dict[str, Any]:
        self.send({"t": "hail", "v": version, "nonce": nonce, **more})
        return await self.hear()

    async def agree(self, secret: bytes | None = None, nonce: str = "0" * 32) -> None:
        """Up to the point where the hello comes next."""
        answer = await self.hail(nonce)
        if secret is not None:
            self.keys = Keys(secret, "worker", nonce, answer["nonce"])

    async def enrol(self, who: Hello, secret: bytes | None = None) -> dict[str, Any]:
        """The whole way to the head's answer."""
        await self.agree(secret)
        self.send({"t": "hello", **dataclasses.asdict(who)})
        return await self.hear()

    async def observe(self, secret: bytes | None = None, key: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """The same as an observer; its key is derived from the secret, unless it is given."""
        answer = await self.hail(**{"as": "observer"})
        if secret is not None or key is not None:
            self.keys = Keys(key or observer_key(secret or b""), "worker", "0" * 32, answer["nonce"])
        self.send({"t": "observe", "run": RUN, "attempt": 0, "host": "elsewhere", **changes})
        return await self.hear()

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def a_peer(port: int) -> AsyncIterator[Peer]:
    peer = await Peer.connect(port)
    try:
        yield peer
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def a_program(answer: Callable[[Peer], Awaitable[object]]) -> AsyncIterator[HeadAddress]:
    """Something that listens where a head might."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await answer(Peer(reader, writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield HeadAddress("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@dataclass
class Wire:
    """Between a worker and a head: remembers what was said, and can be cut as by a firewall, without a word."""

    address: HeadAddress
    said: dict[str, bytearray]
    _silent: asyncio.Event

    def fall_silent(self) -> None:
        self._silent.set()

    def messages(self, side: str) -> list[dict[str, Any]]:
        """All of them, without their MACs."""
        lines = bytes(self.said[side]).splitlines()
        return [json.loads(line[: line.rindex(b"}") + 1]) for line in lines]


@contextlib.asynccontextmanager
async def a_wire(port: int) -> AsyncIterator[Wire]:
    silent = asyncio.Event()
    said = {"worker": bytearray(), "head": bytearray()}

    async def pump(side: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not silent.is_set():
                said[side] += data
                sink.write(data)
        if silent.is_set():
            await asyncio.Event().wait()
        sink.close()

    async def serve(worker: Peer) -> None:
        head = await Peer.connect(port)
        pumps = [
            asyncio.ensure_future(pump("worker", worker.reader, head.writer)),
            asyncio.ensure_future(pump("head", head.reader, worker.writer)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            head.close()

    async with a_program(serve) as address:
        yield Wire(address, said, silent)
