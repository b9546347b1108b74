"""The head's side of the handshake: connections from the first byte to an authenticated hello, and their limits."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bootstrap.errors import Refused
from bootstrap.files.secret import FIX_MISMATCH, Channel, Secret
from bootstrap.process.bounded import TimedOut
from bootstrap.rollcall import auth, credential, wire
from bootstrap.rollcall.auth import Authenticator
from bootstrap.rollcall.hello import Hello, ObserverHello, parse_hello, parse_observer_hello
from bootstrap.rollcall.listener import Allowance, source_of
from bootstrap.rollcall.offset import Offset, measure
from bootstrap.rollcall.rejections import Rejections, Standing
from bootstrap.rollcall.wire import Connection, Message

MISMATCH = "its secret is not the head's"
_PER_SOURCE, _SPARE = 256, 64
"""Limit of unauthenticated connections from one source, or the run's size and some headroom if that is more. Twice as
many may be open from all sources together; beyond that the oldest is cut."""
_MUNGE_AT_ONCE = 8


EXCUSE = "unfit: "
"""How the reason of a bye begins by which a node without the secret says that it is unfit."""
_EXCUSE_MAX = 300


def excuse(line: bytes) -> str:
    """Return what a peer that does not know the secret says about itself: anyone may; empty if it says nothing."""
    try:
        message = wire.decode(line)
        reason = wire.text(message, "reason") if message["t"] == "bye" else ""
    except ValueError:
        return ""
    if not reason.startswith(EXCUSE):
        return ""
    return f"a node that could not prove that it is this run's says: {' '.join(reason.split())[:_EXCUSE_MAX]}"


@dataclass(slots=True)
class _Unauthenticated:
    since: float
    source: bytes
    tag: str = ""
    """The run tag for the peer's nonce, with which the peer trusts a refusal; empty until its hail has arrived."""
    challenged: float = 0.0
    """When the challenge was sent, on the event loop's clock."""
    clock: Offset | None = None
    """How far the peer's clock is from ours; None until its hello has arrived."""
    refused: bool = False
    observes: bool = False
    """Whether its hail says that it is an observer: it proves another key, and no fault of it counts as a node's."""


@dataclass
class Handshakes:
    """All connections that are not yet authenticated, or were refused.

    :param rejections: counts and logs those that were rejected.
    """

    me: Hello
    secret: Secret
    time_limit: float
    """Seconds for one handshake."""
    rejections: Rejections
    _pending: dict[Connection, _Unauthenticated] = field(default_factory=dict)
    _credentials: set[asyncio.Task[None]] = field(default_factory=set)
    """Pending calls to munged."""
    _munge: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MUNGE_AT_ONCE))

    def __post_init__(self) -> None:
        self._allowance = Allowance(max(_PER_SOURCE, (self.me.size or 0) + _SPARE), self.time_limit)

    def meet(self, address: str, connect: Callable[[], Connection]) -> Connection | None:
        """Return the connection for a peer at this address, or None if its source has opened too many."""
        source = source_of(address)
        if not self._allowance.take(source, asyncio.get_running_loop().time()):
            what = f"{address}: more than {self._allowance.most} connections that were not authenticated"
            self.rejections.log(source, what, Standing.STRANGER)
            return None
        # A worker authenticates within a few round trips, so the oldest connection is the least likely to be one.
        if len(self._pending) >= (limit := 2 * self._allowance.most):
            oldest = next(iter(self._pending))
            oldest.cut(reason := f"more than {limit} unauthenticated connections")
            self.closed(oldest, reason)
        connection = connect()
        self._pending[connection] = _Unauthenticated(connection.last_heard, source)
        return connection

    def hear(self, connection: Connection, message: Message) -> Hello | ObserverHello | None:
        """Take the next message; return the hello of a peer that is authenticated, or that needs no secret."""
        pending = self._pending[connection]
        if not pending.tag:
            self._challenge(connection, pending, message)
        elif self.secret.value is not None and connection.authenticator is None:
            raise ValueError(f"{message['t'][:40]!r} before the challenge")
        elif message["t"] == "bye":  # it has seen that its secret is of another kind than ours
            self.refuse_secret(connection)
        elif pending.observes:
            return parse_observer_hello(message)
        else:
            hello = parse_hello(message)
            if pending.clock is None:
                arrived = asyncio.get_running_loop().time()
                pending.clock = measure(hello.time, time.time(), arrived - pending.challenged, arrived)
            return hello
        return None

    def refuse_secret(self, connection: Connection, line: bytes = b"") -> None:
        """Refuse a peer that does not know the secret, in a line that it can read: without a MAC.

        :param line: what it sent: perhaps a bye that says why it cannot know the secret.
        """
        connection.authenticator = None
        pending = self._pending[connection]
        if why := excuse(line):
            pending.refused = True
            connection.close(why)
            self._reject(connection, pending, why, Standing.UNPROVED, "unfit")
            self.rejections.log(pending.source, f"{connection.peer}: {why}", Standing.UNPROVED)
            return
        self.refuse(connection, "secret", MISMATCH, pending.tag)

    def refuse(self, connection: Connection, kind: str, reason: str, tag: str = "") -> None:
        """Send the refusal and close; with a ``tag`` if the peer does not trust this head yet."""
        if (pending := self._pending.get(connection)) is None:
            return  # it has gone while munged was busy
        pending.refused = True
        connection.send({"t": "refuse", "kind": kind, "reason": reason, "head": self.me.host, "tag": tag})
        connection.close(reason)
        proved = Standing.PROVED if pending.clock is not None else Standing.UNPROVED
        standing = Standing.OTHER_RUN if kind == "other-run" else proved
        reason = f"an observer: {reason}" if pending.observes else reason
        self._reject(connection, pending, reason, standing, "" if pending.observes else kind)
        if kind != "other-run":
            who = f"{connection.peer}: {reason}" + (f"; fix: {FIX_MISMATCH}" if kind == "secret" else "")
            self.rejections.log(pending.source, who, standing)

    def end(self, connection: Connection) -> Offset:
        """Let a connection go, as its node has been admitted; return how far that node's clock is from ours."""
        connection.admitted = True
        pending = self._pending.pop(connection)
        self._allowance.give_back(pending.source, connection.last_heard)
        return pending.clock or Offset(0.0)

    def closed(self, connection: Connection, reason: str) -> None:
        """Keep the reason why a connection was closed, if its node was neither admitted nor refused."""
        pending = self._pending.pop(connection, None)
        if pending is None or pending.refused or pending.clock is not None:  # a node that waited for a rank comes again
            return
        if pending.observes and reason == wire.LEFT:  # it looks for another run
            return
        if pending.tag and reason == wire.LEFT:
            reason = "disconnected after the challenge: a node of another run, or a second rank 0"
        standing = Standing.OTHER_RUN if pending.tag else Standing.STRANGER
        self._reject(connection, pending, reason, standing)

    def _reject(
        self, connection: Connection, pending: _Unauthenticated, cause: str, standing: Standing, kind: str = ""
    ) -> None:
        now = asyncio.get_running_loop().time()
        self.rejections.add(pending.source, connection.peer, cause, standing, now, kind)

    def cut_slow(self, since: float) -> None:
        """Cut the connections that were opened before that time."""
        for connection, pending in list(self._pending.items()):
            if pending.since >= since:
                break  # the rest are newer
            connection.cut(f"not authenticated within {self.time_limit:g} s")

    def close(self) -> None:
        """Cut all connections."""
        for task in self._credentials:
            task.cancel()
        for connection in list(self._pending):
            connection.cut("the roll call is over")

    def _challenge(self, connection: Connection, pending: _Unauthenticated, message: Message) -> None:
        """Answer the hail, which carries the peer's protocol version and nonce, with the run tag and our nonce.

        Nothing in the answer is derived from the secret, so it does not help to guess the secret.
        """
        if message["t"] != "hail":
            raise ValueError("no hail")
        version, theirs, ours = wire.number(message, "v"), wire.nonce(message), auth.nonce()
        pending.tag = auth.run_tag(self.me.run, self.me.attempt, theirs)
        pending.observes = message.get("as") == "observer"
        if version != auth.VERSION:
            what = f"protocol {version} on {connection.peer}, {auth.VERSION} on {self.me.host}"
            self.refuse(connection, "refused", what, pending.tag)
            return
        challenge = {"t": "challenge", "nonce": ours, "tag": pending.tag, "auth": self.secret.kind}
        if self.secret.channel is not Channel.MUNGE or message.get("credential") is False:
            self._send(connection, challenge, theirs)
            return
        task = asyncio.ensure_future(self._send_with_credential(connection, challenge, theirs))
        self._credentials.add(task)
        task.add_done_callback(self._credentials.discard)

    def _send(self, connection: Connection, challenge: Message, theirs: str) -> None:
        if (pending := self._pending.get(connection)) is None:
            return
        pending.challenged = asyncio.get_running_loop().time()
        connection.send(challenge)
        if (key := self.secret.value) is not None:
            run, attempt, nonces = self.me.run, self.me.attempt, theirs + challenge["nonce"]
            key = auth.observer_key(key, run, attempt) if pending.observes else key
            connection.authenticator = Authenticator(key, "head", nonces, run, attempt)

    async def _send_with_credential(self, connection: Connection, challenge: Message, theirs: str) -> None:
        try:
            async with self._munge:
                if not connection.open:
                    return
                made = await credential.make(self.secret, self.me, theirs)
        except Refused as error:
            self.refuse(connection, "refused", error.message, challenge["tag"])
        except TimedOut:
            connection.cut("munged did not answer in time")  # not for good: any user may keep it busy
        else:
            self._send(connection, {**challenge, "credential": made}, theirs)
