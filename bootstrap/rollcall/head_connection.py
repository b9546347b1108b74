"""A connection to a head: what a worker's and an observer's share, from the first byte to the welcome, and the end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from bootstrap.errors import RayDied, Refused
from bootstrap.files.secret import Secret
from bootstrap.model import HeadAddress, Verdict
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall import auth, credential, wire
from bootstrap.rollcall.auth import Authenticator
from bootstrap.rollcall.dial import dial
from bootstrap.rollcall.hello import Hello, ObserverHello
from bootstrap.rollcall.refusal import NotThisHead, mismatch, refusal
from bootstrap.rollcall.stall import StallDetector
from bootstrap.rollcall.wire import Connection, Message

H = TypeVar("H", Hello, ObserverHello)


@dataclass(frozen=True, slots=True)
class Challenge:
    """A head's answer to the hail."""

    nonce: str
    auth: str
    """The kind of the head's secret (:attr:`Secret.kind`)."""
    credential: str
    """From MUNGE, or empty."""


@dataclass
class HeadConnection(Generic[H]):
    """A worker's connection to a head (:class:`bootstrap.rollcall.client.Membership`), or an observer's.

    ``ended`` resolves to the verdict, or raises RayDied if the connection is lost without one after the welcome.
    """

    hello: H
    """What it says of itself once it knows that this is its run's head."""
    secret: Secret
    """What it was given; with MUNGE, from the handshake on, the one received."""
    heartbeat_timeout: float
    farewell: str = "another kind of secret"
    """What it says to a head with which it shares no secret."""
    secrets_differ: bool = False
    """Whether the head refused it because its secret is another one."""
    head: str = ""
    """The head's host name."""
    address: HeadAddress | None = None
    """Where the head was greeted."""
    ended: asyncio.Future[Verdict] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _challenged: asyncio.Future[Challenge] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _welcomed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _nonce: str = field(default_factory=auth.nonce)
    _connection: Connection | None = None
    _timer: asyncio.TimerHandle | None = None
    _stalls: StallDetector = field(init=False, repr=False, compare=False)
    _said_hello: bool = False
    _hear_kind: Mapping[str, Callable[[Connection, Message], None]] = field(init=False, repr=False, compare=False)
    """What to do with each kind of message after the welcome."""

    async def greet(self, head: HeadAddress, timeout: float) -> None:
        """Connect and check, within ``timeout`` seconds, that a head of this run answers there.

        :raises NotThisHead: if it is not the head of this run and attempt, or does not answer.
        :raises Refused: if it is, but the protocol versions differ.
        """
        await self._within(timeout, self._greet(head, timeout))

    async def enrol(self, timeout: float) -> None:
        """Send the hello and wait up to ``timeout`` seconds for the welcome: each proves knowledge of the secret.

        :raises IdentityError: if the rank or the size is not what the head expects.
        :raises Refused: if the secrets differ, or the head rejects this peer for another reason, such as its versions.
        :raises NotThisHead: if the head does not answer.
        """
        await self._within(timeout, self._enrol())

    async def _within(self, timeout: float, step: Awaitable[None]) -> None:
        try:
            await wait_for(timeout, step)
        except (OSError, UnicodeError, TimedOut) as error:  # UnicodeError: the host name is malformed
            self.close()
            what = f"no answer within {timeout:g} s" if isinstance(error, TimedOut) else str(error)
            raise NotThisHead(what) from None
        except BaseException:
            self.close()
            raise

    async def _greet(self, head: HeadAddress, timeout: float) -> None:
        self.address = head
        self._connection = await dial(head, timeout, lambda: Connection(self._hear, self._hear_bad_mac, self._closed))
        self._connection.send({"t": "hail", "v": auth.VERSION, "nonce": self._nonce, **self._hail()})
        await self._challenged

    def _hail(self) -> Message:
        """Return what the hail says besides."""
        return {}

    async def _enrol(self) -> None:
        await self._agree(await self._challenged)
        self._said_hello = True
        if self._connection is not None:
            self._connection.send(self._introduction(self._connection).message())
        await self._welcomed
        interval = self.heartbeat_timeout / wire.BEATS
        self._stalls = StallDetector(interval, self.heartbeat_timeout)
        self._timer = asyncio.get_running_loop().call_later(interval * self._share(), self._tick)

    def _introduction(self, _connection: Connection) -> H:
        """Return the hello as it is to be said now."""
        return self.hello

    def _share(self) -> float:
        """Return after which part of the interval the first heartbeat is sent."""
        return 1.0

    async def _agree(self, challenge: Challenge) -> None:
        """Use MACs from now on, if there is a secret. :raises Refused: if the two secrets are of different kinds."""
        missing = self.secret.value is None and challenge.auth == "secret"
        if missing or challenge.auth != self.secret.kind:
            self._decline(self.farewell)
            raise mismatch(self.secret, challenge.auth)
        if challenge.auth == "munge":
            try:
                value = await credential.read(challenge.credential, self.hello, self._nonce)
            except Refused:
                self._decline("its MUNGE credential cannot be read here")
                raise
            self.secret = replace(self.secret, value=value)
        if self.secret.value is not None:
            self._authenticate(self.secret.value, challenge)

    def _authenticate(self, key: bytes, challenge: Challenge) -> None:
        if self._connection is not None:
            nonces = self._nonce + challenge.nonce
            self._connection.authenticator = Authenticator(key, "worker", nonces, self.hello.run, self.hello.attempt)

    def _decline(self, reason: str) -> None:
        """Leave before the hello, and let the head know that this is for its secret, so that it can report it, too."""
        if self._connection is not None:
            self._connection.send({"t": "bye", "reason": reason})
            self._connection.close(reason)

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def close(self) -> None:
        """Cut the connection, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.cut("left")
        for future in self._futures():
            if not future.done():
                future.cancel()
            elif not future.cancelled():
                future.exception()  # mark it as retrieved, or asyncio logs it as never retrieved

    def _futures(self) -> tuple[asyncio.Future[Any], ...]:
        """Return all that may be waited for."""
        return (self._challenged, self._welcomed, self.ended)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        left = self.heartbeat_timeout
        if self._connection is not None:
            left -= loop.time() - max(self._connection.last_heard, self._stalls.check())
            if left <= 0:
                self._connection.cut(f"it was silent for {self.heartbeat_timeout:g} s")
                return
            self._connection.send(wire.BEAT)
        self._timer = loop.call_later(min(left, self.heartbeat_timeout / wire.BEATS), self._tick)

    def _hear(self, connection: Connection, message: Message) -> None:
        kind = message["t"]
        if kind == "challenge" and not self._challenged.done():
            self._answer(message)
        elif kind == "refuse" and not self._welcomed.done():
            self._fail(refusal(message) if self._said_hello or self._is_ours(message) else NotThisHead("refused"))
        elif not self._said_hello:
            raise ValueError(f"{kind!r} before the hello")
        elif kind == "welcome":
            if not self._welcomed.done():
                self._hear_welcome(message)
                self._welcomed.set_result(None)
                connection.admitted = True
        elif not self._welcomed.done():
            raise ValueError(f"{kind!r} before the welcome")
        elif kind in self._hear_kind:
            self._hear_kind[kind](connection, message)
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _hear_welcome(self, message: Message) -> None:
        self.head = wire.text(message, "head")

    def _hear_verdict(self, _connection: Connection, message: Message) -> None:
        status, reason, source = (
            wire.number(message, "status"),
            wire.text(message, "reason"),
            wire.text(message, "source"),
        )
        if not self.ended.done():
            self.ended.set_result(Verdict(status & 255, reason, source))

    def _hear_bad_mac(self, _connection: Connection, line: bytes) -> None:
        """Take the one line that needs no MAC: the refusal by a head whose secret is another one."""
        message = wire.decode(line) if line.endswith(b"}") else {}
        if message.get("t") != "refuse" or not self._is_ours(message):
            raise ValueError("a line with a wrong MAC")
        self.secrets_differ = message.get("kind") == "secret"
        self._fail(refusal(message, f"; this node's is from {self.secret.source}" if self.secrets_differ else ""))

    def _answer(self, message: Message) -> None:
        found = message.get("credential", "")
        challenge = Challenge(wire.nonce(message), wire.text(message, "auth"), found if isinstance(found, str) else "")
        if self._is_ours(message):
            self._challenged.set_result(challenge)
        else:
            self._fail(NotThisHead("another run's head"))

    def _is_ours(self, message: Message) -> bool:
        return auth.is_tag(message.get("tag"), auth.run_tag(self.hello.run, self.hello.attempt, self._nonce))

    def _fail(self, error: Exception) -> None:
        waiting = self._welcomed if self._challenged.done() else self._challenged
        if not waiting.done():
            waiting.set_exception(error)
            waiting.exception()  # mark it as retrieved, since the waiter may be gone

    def _closed(self, _connection: Connection, reason: str) -> None:
        self._fail(NotThisHead(reason))
        if not self.ended.done():
            self.ended.set_exception(RayDied(f"lost the head {self.head} without a verdict: {reason}"))
            self.ended.exception()  # likewise
