"""The head's side of the roll call."""

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from bootstrap.errors import IdentityError, UsageError
from bootstrap.model import Phase, Verdict
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall import wire
from bootstrap.rollcall.admission import clock_offset, other_run, rank_for, version_clash
from bootstrap.rollcall.wire import Connection, Hello, Message, encode, text

_BACKLOG = 4096
_STRANGERS = 512
"""Connections that have not yet shown who they are, or twice the run's size; beyond it the oldest is cut off."""
_SCANS = 4
"""Per heartbeat: each looks for silence everywhere and sends its share of the beats, so that these are no burst."""
_MAX_REPORTED = 20
"""Nodes that were turned away of which the head tells; somebody may be trying secrets."""


@dataclass(slots=True)
class Member:
    """What the head knows of one node."""

    hello: Hello
    rank: int
    phase: Phase
    since: float
    """Monotonic time of the last change of phase."""
    detail: str = ""
    error: str = ""
    """With ``failed``: the name of its error (:mod:`bootstrap.errors`)."""
    connection: Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether its agent is connected."""
        return self.connection is not None and self.connection.open


@dataclass(slots=True)
class _Unauthenticated:
    since: float
    tag: str = ""
    """Ours, for its challenge: so that a refusal can be believed."""
    expected: str | None = None
    """The proof that it owes us; None until it has hailed."""
    proved: bool = False


@dataclass
class RollCall:
    """Listens, admits the nodes of this run, and speaks to all of them.

    :param me: the head's own hello; the yardstick for the others'.
    :param secret: what the nodes share, or None.
    :param heartbeat_timeout: seconds of silence after which a node counts as lost.
    :param any_python_patch: whether Python versions may differ in their patch level.
    :param on_change: called with a member (after its change) and what changed, in words.
    """

    me: Hello
    secret: bytes | None
    heartbeat_timeout: float
    any_python_patch: bool = False
    on_change: Callable[[Member, str], None] = lambda _member, _what: None
    on_refused: Callable[[str], None] = lambda _who: None
    """Called with an address that knew this run and was turned away, and why, once for each of them."""
    members: dict[int, Member] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    """The last few connections that were turned away, in words."""
    _go: bytes = b""
    _unauthenticated: dict[Connection, _Unauthenticated] = field(default_factory=dict)
    _joined: dict[Connection, Member] = field(default_factory=dict)
    _free: int = 1
    """No rank below is free."""
    _refused: set[str] = field(default_factory=set)
    _scan: int = 0
    _server: asyncio.Server | None = None
    _timer: asyncio.TimerHandle | None = None
    _verdict: bytes = b""
    _told: int = 0
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, ports: Sequence[int]) -> int:
        """Listen on all addresses on the first of ``ports`` that is free; returns it.

        :raises UsageError: if none is.
        """
        loop = asyncio.get_running_loop()
        for port in ports:
            try:
                self._server = await loop.create_server(self._meet, port=port, backlog=_BACKLOG)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                continue
            self._tick()
            return port
        fault = f"the roll call's port is taken (tried {', '.join(map(str, ports))})"
        raise UsageError([fault], hint="--rollcall-port=PORT on all nodes chooses another")

    def release(self, gcs_address: str) -> None:
        """Let every member, and all that come later, start Ray against this address."""
        self._go = encode({"t": "go", "gcs": gcs_address})
        for connection in self._joined:
            connection.send(self._go)

    async def deliver(self, verdict: Verdict, timeout: float, expected: int = 0) -> None:
        """Tell the verdict to all, also to those that come later, and wait until they have left.

        :param timeout: seconds to wait at most.
        :param expected: how many members have to be told before the wait may end.
        """
        self._verdict = encode({"t": "verdict", **asdict(verdict)})
        if not expected and self._server is not None:
            self._server.close()
        for connection in self._joined:
            self._conclude(connection)
        with contextlib.suppress(TimedOut):
            await wait_for(timeout, self._until_told(expected if self._server is not None else 0))

    async def _until_told(self, expected: int) -> None:
        while self._joined or self._told < expected:
            self._left.clear()
            await self._left.wait()

    def _conclude(self, connection: Connection) -> None:
        connection.send(self._verdict)
        self._told += 1

    @property
    def present(self) -> int:
        """How many nodes are connected, the head not counted."""
        return len(self._joined)

    @property
    def concluded(self) -> bool:
        """Whether the verdict is out."""
        return bool(self._verdict)

    def close(self) -> None:
        """Stop listening and cut off whoever is left."""
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in [*self._unauthenticated, *self._joined]:
            connection.cut("the roll call is over")

    def _tick(self) -> None:
        """Heartbeats out, silence noticed: one timer for all connections."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.heartbeat_timeout / wire.BEATS / _SCANS, self._tick)
        self._scan = (self._scan + 1) % _SCANS
        silent_since = loop.time() - self.heartbeat_timeout
        for connection, member in list(self._joined.items()):
            if connection.last_heard < silent_since:
                connection.cut(f"silent for {self.heartbeat_timeout:g} s")
            elif member.rank % _SCANS == self._scan:
                connection.send(wire.BEAT)
        for connection, stranger in list(self._unauthenticated.items()):
            if stranger.since >= silent_since:
                break  # the others are younger
            connection.cut("it never said who it is")

    def _meet(self) -> Connection:
        # A worker speaks at once and is a stranger for a round trip, so the oldest is the least likely to be one.
        if len(self._unauthenticated) >= max(_STRANGERS, 2 * (self.me.size or 0)):
            oldest = next(iter(self._unauthenticated))
            oldest.cut(reason := "too many strangers at once")
            self._reject(oldest, reason)
        connection = Connection(self._hear, self._closed)
        self._unauthenticated[connection] = _Unauthenticated(connection.last_heard)
        return connection

    def _hear(self, connection: Connection, message: Message) -> None:
        if (member := self._joined.get(connection)) is not None:
            self._hear_member(connection, member, message)
        elif (stranger := self._unauthenticated[connection]).expected is None:
            self._challenge(connection, stranger, message)
        elif not stranger.proved:
            self._check_proof(connection, stranger, message)
        else:
            self._admit(connection, wire.parse_hello(message))

    def _challenge(self, connection: Connection, stranger: _Unauthenticated, message: Message) -> None:
        """First line: the client's protocol version and challenge; ours goes back with our proof."""
        if message["t"] != "hail":
            raise ValueError("no hail")
        version, theirs, ours = wire.number(message, "v"), wire.challenge(message), wire.nonce()
        tag = wire.run_tag(self.me.run, self.me.attempt, theirs)
        if version != wire.VERSION:
            what = f"protocol {version} on {connection.peer}, {wire.VERSION} on {self.me.host}"
            self._refuse(connection, "refused", what, tag=tag)
            return
        stranger.tag, stranger.expected = tag, wire.proof(self.secret, "worker", theirs, ours)
        mine = wire.proof(self.secret, "head", ours, theirs)
        connection.send({"t": "challenge", "nonce": ours, "tag": tag, "proof": mine, "auth": self.secret is not None})

    def _check_proof(self, connection: Connection, stranger: _Unauthenticated, message: Message) -> None:
        if message["t"] != "proof":
            raise ValueError("no proof")
        if stranger.expected is None or not wire.proves(message.get("proof"), stranger.expected):
            self._refuse(
                connection, "refused", "the secrets of the two nodes differ, or one has none", tag=stranger.tag
            )
            return
        stranger.proved = True

    def _admit(self, connection: Connection, hello: Hello) -> None:
        me = self.me
        if what := other_run(me, hello):
            self._refuse(connection, "other-run", what)
            return
        try:
            rank = rank_for(me, hello, self._holder, self._lowest_free())
        except IdentityError as error:
            self._refuse(connection, "identity", error.message)
            return
        if clash := version_clash(me, hello, any_python_patch=self.any_python_patch):
            self._refuse(connection, "refused", clash)
            refused = self.members[rank] = Member(hello, rank, Phase.REFUSED, connection.last_heard, clash)
            self.on_change(refused, f"refused: {clash}")
            return
        member = Member(hello, rank, Phase.WAITING, connection.last_heard, connection=connection)
        del self._unauthenticated[connection]
        self._joined[connection] = self.members[rank] = member
        connection.send({"t": "welcome", "rank": rank, "head": me.host})
        if self._go:
            connection.send(self._go)
        if self._verdict:
            self._conclude(connection)
        clock = clock_offset(hello, time.time())
        self.on_change(member, f"{hello.host} ({hello.ip}) connected" + (f"; {clock}" if clock else ""))

    def _holder(self, rank: int) -> Hello | None:
        member = self.members.get(rank)
        return member.hello if member is not None and member.connected else None

    def _lowest_free(self) -> int:
        while self._holder(self._free) is not None:
            self._free += 1
        return self._free

    def _refuse(self, connection: Connection, kind: str, reason: str, tag: str = "") -> None:
        connection.send({"t": "refuse", "kind": kind, "reason": reason, "head": self.me.host, "tag": tag})
        connection.close(reason)
        told = f"{connection.peer}: {reason}"
        if kind != "other-run" and told not in self._refused and len(self._refused) < _MAX_REPORTED:
            self._refused.add(told)
            self.on_refused(told)

    def _reject(self, connection: Connection, reason: str) -> None:
        stranger = self._unauthenticated.pop(connection, None)
        if stranger is not None:
            if stranger.expected is not None and not stranger.proved and reason == wire.LEFT:
                reason = "asked whose head this is, and left: a node of another run, or a second rank 0"
            self.rejected = [*self.rejected[-19:], f"{connection.peer}: {reason}"]

    def _hear_member(self, connection: Connection, member: Member, message: Message) -> None:
        kind = message["t"]
        if kind == "phase":
            member.error = text(message, "error")[:40]
            self._turn(member, Phase(text(message, "phase")), text(message, "detail"))
        elif kind == "bye":
            if member.phase is not Phase.FAILED:  # why it failed says more than that it left
                self._turn(member, Phase.LEFT, text(message, "reason"))
            connection.close("said good-bye")
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _turn(self, member: Member, phase: Phase, detail: str) -> None:
        member.phase, member.detail = phase, detail
        member.since = asyncio.get_running_loop().time()
        self.on_change(member, f"{phase.value}: {detail}" if detail else phase.value)

    def _closed(self, connection: Connection, reason: str) -> None:
        self._reject(connection, reason)
        member = self._joined.pop(connection, None)
        if member is None:
            return
        member.connection = None
        self._free = min(self._free, member.rank)
        self._left.set()
        if member.phase not in (Phase.LEFT, Phase.FAILED):
            self._turn(member, Phase.LOST, reason)
