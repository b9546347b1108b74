"""A worker's side of the roll call."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from bootstrap import net, timeouts
from bootstrap.errors import BootstrapError, IdentityError, RayDied, Refused
from bootstrap.model import HeadAddress, Phase, Verdict
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.rollcall import wire
from bootstrap.rollcall.wire import Connection, Hello, Message


class NotThisHead(Exception):
    """The head of this run and attempt is not at that address; the search goes on."""


@dataclass
class Membership:
    """A worker's membership in the run, from the first message to the verdict.

    ``released`` resolves to GCS's address; ``ended`` resolves to the verdict, or raises RayDied if the connection to
    the head is lost without one.
    """

    hello: Hello
    secret: bytes | None
    heartbeat_timeout: float
    secrets_differ: bool = False
    """Whether the handshake failed because both sides have a secret, but not the same."""
    rank: int = -1
    head: str = ""
    released: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[Verdict] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _welcomed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _challenged: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _proof: str = ""
    _nonce: str = field(default_factory=wire.nonce)
    _connection: Connection | None = None
    _timer: asyncio.TimerHandle | None = None
    _trusted: bool = False

    async def greet(self, head: HeadAddress, timeout: float) -> None:
        """Connect and check, within ``timeout`` seconds, that this run's head is there and knows the secret.

        :raises NotThisHead: if it is not the head of this run and attempt, or does not answer.
        :raises Refused: if it is, but the secrets or the protocol versions differ.
        """
        await self._within(timeout, self._greet(head, timeout))

    async def enrol(self, timeout: float) -> None:
        """Prove knowledge of the secret, send the hello and wait up to ``timeout`` seconds for the welcome.

        :raises IdentityError: if the rank or the size is not what the head expects.
        :raises Refused: if the head rejects this node for another reason, such as its versions.
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
        self._connection = await self._connect(head, timeout)
        self._connection.send({"t": "hail", "v": wire.VERSION, "nonce": self._nonce})
        self._proof = await self._challenged

    async def _connect(self, head: HeadAddress, timeout: float) -> Connection:
        """Connect to the first address that answers.

        :raises OSError, UnicodeError: the error of the last address if none answers, or that of the look-up.
        """
        named = not net.is_address(head.host)
        addresses = await run_in_thread(timeout, lambda: net.look_up(head.host)) if named else [head.host]
        loop, failure = asyncio.get_running_loop(), OSError(f"{head.host} has no address")
        for address in addresses:  # each gets an equal share of the time, since one may drop packets
            try:
                connecting = loop.create_connection(self._line, address, head.port)
                return (await wait_for(timeout / len(addresses), connecting))[1]
            except TimedOut:
                failure = OSError(f"no answer from {address} within {timeout / len(addresses):g} s")
            except OSError as error:
                failure = error
        raise failure

    def _line(self) -> Connection:
        return Connection(self._hear, self._closed)

    async def _enrol(self) -> None:
        if self._connection is not None:
            self._connection.send({"t": "proof", "proof": self._proof})
            self._connection.send(self.hello.message())
        await self._welcomed
        # Spread the first heartbeats by rank, since many nodes may join at the same moment.
        first = self.heartbeat_timeout / wire.BEATS * (self.rank % 16) / 16
        self._timer = asyncio.get_running_loop().call_later(first, self._tick)

    def report(self, phase: Phase, detail: str = "", error: str = "") -> None:
        """Report this node's phase to the head; with ``failed``, also the name of the error."""
        if self._connection is not None:
            self._connection.send({"t": "phase", "phase": phase.value, "detail": detail, "error": error})

    async def leave(self, reason: str) -> None:
        """Send bye with the reason, so that the head does not report a lost connection, and close the connection."""
        if self._connection is not None and self._connection.open:
            self._connection.send({"t": "bye", "reason": reason})
            self._connection.close(reason)
            await asyncio.wait([self.ended], timeout=timeouts.LEAVE_S)
        self.close()

    def close(self) -> None:
        """Cut the connection, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.cut("left")
        futures: tuple[asyncio.Future[Any], ...] = (self._challenged, self._welcomed, self.released, self.ended)
        for future in futures:
            if not future.done():
                future.cancel()
            elif not future.cancelled():
                future.exception()  # mark it as retrieved, or asyncio logs it as never retrieved

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        left = self.heartbeat_timeout
        if self._connection is not None:
            left -= loop.time() - self._connection.last_heard
            if left <= 0:
                self._connection.cut(f"it was silent for {self.heartbeat_timeout:g} s")
                return
            self._connection.send(wire.BEAT)
        self._timer = loop.call_later(min(left, self.heartbeat_timeout / wire.BEATS), self._tick)

    def _hear(self, connection: Connection, message: Message) -> None:
        kind = message["t"]
        if kind == "challenge" and not self._trusted:
            self._answer(message)
        elif kind == "refuse":
            self._fail(_refusal(message) if self._trusted or self._is_ours(message) else NotThisHead("refused"))
        elif not self._trusted:
            raise ValueError(f"{kind!r} before a challenge")
        elif kind == "welcome":
            if not self._welcomed.done():
                self.rank, self.head = wire.number(message, "rank"), wire.text(message, "head")
                self._welcomed.set_result(None)
        elif kind == "go":
            if not self.released.done():
                self.released.set_result(wire.text(message, "gcs"))
        elif kind == "verdict":
            self._conclude(connection, message)
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _answer(self, message: Message) -> None:
        theirs, auth = wire.challenge(message), message.get("auth") is True
        if not self._is_ours(message):
            self._fail(NotThisHead("another run's head"))
            return
        if not wire.proves(message.get("proof"), wire.proof(self.secret, "head", theirs, self._nonce)):
            self.secrets_differ = auth and self.secret is not None
            if self.secrets_differ:
                what = "the secrets of this node and of the head differ"
            else:
                what = "only the head has a secret" if auth else "only this node has a secret"
            if self._connection is not None:
                self._connection.send({"t": "proof", "proof": "differs"})  # so that the head can report it, too
            self._fail(Refused(what, hint="give all nodes the same RAY_AUTH_TOKEN or --secret-file, or all --auth=off"))
            return
        self._trusted = True
        if not self._challenged.done():
            self._challenged.set_result(wire.proof(self.secret, "worker", self._nonce, theirs))

    def _is_ours(self, message: Message) -> bool:
        return wire.proves(message.get("tag"), wire.run_tag(self.hello.run, self.hello.attempt, self._nonce))

    def _conclude(self, connection: Connection, message: Message) -> None:
        verdict = Verdict(
            wire.number(message, "status") & 255, wire.text(message, "reason"), wire.text(message, "source")
        )
        connection.send({"t": "bye", "reason": "verdict received"})
        if not self.ended.done():
            self.ended.set_result(verdict)

    def _fail(self, error: Exception) -> None:
        waiting = self._welcomed if self._challenged.done() else self._challenged
        if not waiting.done():
            waiting.set_exception(error)
            waiting.exception()  # mark it as retrieved, since the waiter may be gone

    def _closed(self, _connection: Connection, reason: str) -> None:
        self._fail(NotThisHead(reason))
        if not self.ended.done():
            self.ended.set_exception(
                RayDied(f"lost the head {self.head} without a verdict: {reason}", hint="see the head's last lines")
            )
            self.ended.exception()  # likewise


def _refusal(message: Message) -> Exception:
    kind, reason = wire.text(message, "kind"), wire.text(message, "reason")
    if kind == "other-run":
        return NotThisHead(reason)
    error: type[BootstrapError] = IdentityError if kind == "identity" else Refused
    return error(f"refused by the head {wire.text(message, 'head')}: {reason}")
