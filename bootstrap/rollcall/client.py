"""A worker's side of the roll call."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bootstrap import timeouts
from bootstrap.errors import RayDied, Refused
from bootstrap.files.certificates import Issued
from bootstrap.files.secret import Secret
from bootstrap.model import HeadAddress, Phase, Verdict
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall import auth, credential, wire
from bootstrap.rollcall.auth import Authenticator
from bootstrap.rollcall.dial import dial
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.refusal import NotThisHead, mismatch, refusal
from bootstrap.rollcall.stall import StallDetector
from bootstrap.rollcall.wire import Connection, Message


@dataclass(frozen=True, slots=True)
class _Challenge:
    nonce: str
    auth: str
    """The kind of the head's secret (:attr:`Secret.kind`)."""
    credential: str
    """From MUNGE, or empty."""


@dataclass
class Membership:
    """A worker's membership in the run, from the first message to the verdict.

    ``released`` resolves to GCS's address; ``ended`` resolves to the verdict, or raises RayDied if the connection to
    the head is lost without one.
    """

    hello: Hello
    secret: Secret
    """What this node was given; with MUNGE, from the handshake on, the one received."""
    heartbeat_timeout: float
    farewell: str = "another kind of secret"
    """What this node says to a head with which it shares no secret."""
    secrets_differ: bool = False
    """Whether the head refused this node because its secret is another one."""
    rank: int = -1
    head: str = ""
    deadline: float | None = None
    """Until when the head waits for this node's Ray, on the event loop's clock; None for as long as the run lasts."""
    released: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    quorum: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done once the head has reached its quorum, after which its workload starts."""
    stays: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """The head's answer to :meth:`report_stopped`: whether it is stopping, too, so that this node is to stay."""
    ended: asyncio.Future[Verdict] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    last_finding: Callable[[], str] = lambda: ""  # called before this node says bye; what it returns the head hears
    _challenged: asyncio.Future[_Challenge] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _welcomed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _certified: asyncio.Future[Issued] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _nonce: str = field(default_factory=auth.nonce)
    _connection: Connection | None = None
    _timer: asyncio.TimerHandle | None = None
    _stalls: StallDetector = field(init=False, repr=False, compare=False)
    _said_hello: bool = False
    on_peers: Callable[[Message], None] = field(init=False, repr=False, compare=False)
    """Called with each message that names nodes to probe; at first those are kept in ``early_peers``."""
    early_peers: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_peers = self.early_peers.append
        self._hear_kind: Mapping[str, Callable[[Connection, Message], None]] = {
            "go": self._hear_go,
            "quorum": self._hear_quorum,
            "certificate": self._hear_certificate,
            "stay": self._hear_answer,
            "drain": self._hear_answer,
            "ping": lambda connection, _message: connection.send(wire.BEAT),
            "peers": lambda _connection, message: self.on_peers(message),
            "verdict": self._hear_verdict,
        }

    async def greet(self, head: HeadAddress, timeout: float) -> None:
        """Connect and check, within ``timeout`` seconds, that a head of this run answers there.

        :raises NotThisHead: if it is not the head of this run and attempt, or does not answer.
        :raises Refused: if it is, but the protocol versions differ.
        """
        await self._within(timeout, self._greet(head, timeout))

    async def enrol(self, timeout: float) -> None:
        """Send the hello and wait up to ``timeout`` seconds for the welcome: each proves knowledge of the secret.

        :raises IdentityError: if the rank or the size is not what the head expects.
        :raises Refused: if the secrets differ, or the head rejects this node for another reason, such as its versions.
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
        self._connection = await dial(head, timeout, lambda: Connection(self._hear, self._hear_bad_mac, self._closed))
        self._connection.send({"t": "hail", "v": auth.VERSION, "nonce": self._nonce})
        await self._challenged

    async def _enrol(self) -> None:
        await self._agree(await self._challenged)
        self._said_hello = True
        if self._connection is not None:
            hello = self.hello.leaving_from(self._connection.own_address)
            # Stamped now, not before a long search: the head measures by it how far this node's clock is off.
            self._connection.send(replace(hello, time=time.time()).message())
        await self._welcomed
        # Spread the first heartbeats by rank, since many nodes may join at the same moment.
        interval = self.heartbeat_timeout / wire.BEATS
        self._stalls = StallDetector(interval, self.heartbeat_timeout)
        self._timer = asyncio.get_running_loop().call_later(interval * (self.rank % 16) / 16, self._tick)

    async def _agree(self, challenge: _Challenge) -> None:
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
        if self.secret.value is not None and self._connection is not None:
            nonces = self._nonce + challenge.nonce
            self._connection.authenticator = Authenticator(
                self.secret.value, "worker", nonces, self.hello.run, self.hello.attempt
            )

    def _decline(self, reason: str) -> None:
        """Leave before the hello, and let the head know that this is for its secret, so that it can report it, too."""
        if self._connection is not None:
            self._connection.send({"t": "bye", "reason": reason})
            self._connection.close(reason)

    async def certify(self, request: str) -> Issued:
        """Ask the head for a certificate; it may never answer, if the run ends first.

        :param request: in PEM, from :func:`bootstrap.files.authority.make_request`.
        """
        self._send({"t": "request", "pem": request})
        return await asyncio.shield(self._certified)

    def report(self, phase: Phase, detail: str = "", error: str = "", hint: str = "") -> None:
        """Report this node's phase to the head; with ``failed``, also the name of the error, and what mends it."""
        message = {"t": "phase", "phase": phase.value, "detail": detail, "error": error}
        self._send({**message, "hint": hint} if hint else message)

    def report_finding(self, finding: str) -> None:
        """Report a possible cause, if not empty, for the head to show should this node not become ready."""
        if finding:
            self._send({"t": "finding", "text": finding})

    def report_probe(self, outcome: Message) -> None:
        """Report the result of a probe of another node."""
        self._send(outcome)

    def report_stopped(self) -> None:
        """Report that a signal stops this node; the head answers within a second (:attr:`stays`), unless it hangs."""
        self._send({"t": "stopped"})

    def _send(self, message: Message) -> None:
        if self._connection is not None:
            self._connection.send(message)

    async def leave(self, reason: str) -> None:
        """Send bye with the reason, so that the head does not report a lost connection, and close the connection."""
        if self._connection is not None and self._connection.open:
            self._say_bye(self._connection, reason)
            self._connection.close(reason)
            await asyncio.wait([self.ended], timeout=timeouts.LEAVE_S)
        self.close()

    def _say_bye(self, connection: Connection, reason: str) -> None:
        self.report_finding(self.last_finding())
        connection.send({"t": "bye", "reason": reason})

    def close(self) -> None:
        """Cut the connection, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.cut("left")
        waiting: tuple[asyncio.Future[Any], ...] = (self._challenged, self._welcomed, self._certified)
        for future in (*waiting, self.released, self.quorum, self.stays, self.ended):
            if not future.done():
                future.cancel()
            elif not future.cancelled():
                future.exception()  # mark it as retrieved, or asyncio logs it as never retrieved

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
        elif kind == "refuse":
            self._fail(refusal(message) if self._said_hello or self._is_ours(message) else NotThisHead("refused"))
        elif not self._said_hello:
            raise ValueError(f"{kind!r} before the hello")
        elif kind == "welcome":
            if not self._welcomed.done():
                self.rank, self.head = wire.number(message, "rank"), wire.text(message, "head")
                self._welcomed.set_result(None)
                connection.admitted = True
        elif not self._welcomed.done():
            raise ValueError(f"{kind!r} before the welcome")
        elif kind in self._hear_kind:
            self._hear_kind[kind](connection, message)
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _hear_go(self, _connection: Connection, message: Message) -> None:
        if not self.released.done():
            gcs = wire.text(message, "gcs")
            if "milliseconds" in message:
                self.deadline = asyncio.get_running_loop().time() + wire.number(message, "milliseconds") / 1000
            self.released.set_result(gcs)

    def _hear_quorum(self, _connection: Connection, _message: Message) -> None:
        if not self.quorum.done():
            self.quorum.set_result(None)

    def _hear_answer(self, _connection: Connection, message: Message) -> None:
        if not self.stays.done():
            self.stays.set_result(message["t"] == "stay")

    def _hear_certificate(self, connection: Connection, message: Message) -> None:
        if connection.authenticator is None:
            raise ValueError("a certificate on an open connection")
        if not self._certified.done():
            self._certified.set_result(Issued(wire.text(message, "certificate"), wire.text(message, "ca")))

    def _hear_bad_mac(self, _connection: Connection, line: bytes) -> None:
        """Take the one line that needs no MAC: the refusal by a head whose secret is another one."""
        message = wire.decode(line) if line.endswith(b"}") else {}
        if message.get("t") != "refuse" or not self._is_ours(message):
            raise ValueError("a line with a wrong MAC")
        self.secrets_differ = message.get("kind") == "secret"
        self._fail(refusal(message, f"; this node's is from {self.secret.source}" if self.secrets_differ else ""))

    def _answer(self, message: Message) -> None:
        found = message.get("credential", "")
        challenge = _Challenge(wire.nonce(message), wire.text(message, "auth"), found if isinstance(found, str) else "")
        if self._is_ours(message):
            self._challenged.set_result(challenge)
        else:
            self._fail(NotThisHead("another run's head"))

    def _is_ours(self, message: Message) -> bool:
        return auth.is_tag(message.get("tag"), auth.run_tag(self.hello.run, self.hello.attempt, self._nonce))

    def _hear_verdict(self, connection: Connection, message: Message) -> None:
        verdict = Verdict(
            wire.number(message, "status") & 255, wire.text(message, "reason"), wire.text(message, "source")
        )
        self._say_bye(connection, "verdict received")
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
            self.ended.set_exception(RayDied(f"lost the head {self.head} without a verdict: {reason}"))
            self.ended.exception()  # likewise
