"""The head's side of the roll call."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bootstrap.errors import IdentityError, UsageError
from bootstrap.model import Verdict
from bootstrap.rollcall.wire import (
    BEAT,
    VERSION,
    Connection,
    Hello,
    Message,
    encode,
    nonce,
    parse_hello,
    proof,
    proves,
    run_tag,
)

CLOCK_TOLERANCE = 5.0
"""Seconds by which a node's clock may differ before that is told."""
_BACKLOG = 4096
_STRANGERS = 512
"""Connections that have not yet shown who they are; beyond it the oldest is cut off."""


@dataclass(slots=True)
class Member:
    """What the head knows of one node."""

    hello: Hello
    rank: int
    phase: str
    """``waiting``, ``starting-ray``, ``joined``, ``left``, ``lost``, ``refused`` or ``failed``."""
    since: float
    """Monotonic time of the last change of phase."""
    detail: str = ""
    connection: Connection | None = None

    @property
    def here(self) -> bool:
        """Whether its agent is connected."""
        return self.connection is not None and self.connection.open


@dataclass(slots=True)
class _Stranger:
    since: float
    tag: str = ""
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
    members: dict[int, Member] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    """The last few connections that were turned away, in words."""
    _released: Message | None = None
    _strangers: dict[Connection, _Stranger] = field(default_factory=dict)
    _ranks: dict[Connection, int] = field(default_factory=dict)
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
        tried = ", ".join(map(str, ports))
        raise UsageError(
            [f"the roll call's port is taken (tried {tried})"], hint="--rollcall-port=PORT on all nodes chooses another"
        )

    def release(self, gcs_address: str) -> None:
        """Let every member, and all that come later, start Ray against this address."""
        self._released = {"t": "go", "gcs": gcs_address}
        for member in self.members.values():
            self._let_go(member)

    async def deliver(self, verdict: Verdict, timeout: float, expected: int = 0) -> None:
        """Tell the verdict to all, also to those that come later, and wait until they have left.

        :param timeout: seconds to wait at most.
        :param expected: how many members have to be told before the wait may end.
        """
        self._verdict = encode(
            {"t": "verdict", "status": verdict.status, "reason": verdict.reason, "source": verdict.source}
        )
        if not expected and self._server is not None:
            self._server.close()
        for member in self.members.values():
            self._conclude(member)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_told(expected), timeout)

    async def _until_told(self, expected: int) -> None:
        while self._ranks or self._told < expected:
            self._left.clear()
            await self._left.wait()

    def _conclude(self, member: Member) -> None:
        if self._verdict and member.connection is not None:
            member.connection.send(self._verdict)
            self._told += 1

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
        for connection in [*self._strangers, *self._ranks]:
            connection.cut("the roll call is over")

    def _tick(self) -> None:
        """Heartbeats out, silence noticed: one timer for all connections."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.heartbeat_timeout / 3, self._tick)
        silent_since = loop.time() - self.heartbeat_timeout
        for connection in list(self._ranks):
            if connection.last_heard < silent_since:
                connection.cut(f"silent for {self.heartbeat_timeout:g} s")
            else:
                connection.send(BEAT)
        for connection, stranger in list(self._strangers.items()):
            if stranger.since < silent_since:
                connection.cut("it never said who it is")

    def _meet(self) -> Connection:
        if len(self._strangers) >= _STRANGERS:
            next(iter(self._strangers)).cut("too many strangers at once")
        connection = Connection(self._hear, self._closed)
        self._strangers[connection] = _Stranger(connection.last_heard)
        return connection

    def _hear(self, connection: Connection, message: Message) -> None:
        rank = self._ranks.get(connection)
        if rank is not None:
            self._hear_member(self.members[rank], message)
            return
        stranger = self._strangers[connection]
        if stranger.expected is None:
            self._challenge(connection, stranger, message)
        elif not stranger.proved:
            self._check_proof(connection, stranger, message)
        else:
            self._admit(connection, parse_hello(message))

    def _challenge(self, connection: Connection, stranger: _Stranger, message: Message) -> None:
        """First line: the client's protocol version and challenge; ours goes back with our proof."""
        if message["t"] != "hail":
            raise ValueError("no hail")
        theirs, ours = str(message["nonce"]), nonce()
        tag = run_tag(self.me.run, self.me.attempt, theirs)
        if message["v"] != VERSION:
            self._refuse(
                connection, "refused", f"protocol {message['v']!r} there, {VERSION} on {self.me.host}", tag=tag
            )
            return
        stranger.tag, stranger.expected = tag, proof(self.secret, "worker", theirs, ours)
        mine = proof(self.secret, "head", ours, theirs)
        connection.send({"t": "challenge", "nonce": ours, "tag": tag, "proof": mine, "auth": self.secret is not None})

    def _check_proof(self, connection: Connection, stranger: _Stranger, message: Message) -> None:
        if message["t"] != "proof":
            raise ValueError("no proof")
        if stranger.expected is None or not proves(message["proof"], stranger.expected):
            self._refuse(connection, "refused", "the secrets of the two nodes differ", tag=stranger.tag)
            return
        stranger.proved = True

    def _admit(self, connection: Connection, hello: Hello) -> None:
        me = self.me
        if (hello.run, hello.attempt) != (me.run, me.attempt):
            what = f"this is run {me.run!r}, attempt {me.attempt}; not {hello.run!r}, attempt {hello.attempt}"
            self._refuse(connection, "other-run", what)
            return
        try:
            rank = self._rank_for(hello)
        except IdentityError as error:
            self._refuse(connection, "identity", error.message)
            return
        if clash := self._version_clash(hello):
            self._refuse(connection, "refused", clash)
            self._note_refused(Member(hello, rank, "refused", connection.last_heard, clash))
            return
        member = Member(hello, rank, "waiting", connection.last_heard, connection=connection)
        del self._strangers[connection]
        self._ranks[connection] = rank
        self.members[rank] = member
        connection.send({"t": "welcome", "rank": rank, "head": me.host})
        self._let_go(member)
        self._conclude(member)
        offset = hello.time - time.time()
        clock = f"; its clock differs by {offset:+.0f} s" if abs(offset) > CLOCK_TOLERANCE else ""
        self.on_change(member, f"{hello.host} ({hello.ip}) is here{clock}")

    def _rank_for(self, hello: Hello) -> int:
        """The rank it claims, or the lowest free one. :raises IdentityError: with both hosts in it."""
        size = self.me.size
        if hello.size is not None and size is not None and hello.size != size:
            raise IdentityError(f"{hello.host} was told of {hello.size} nodes, the head {self.me.host} of {size}")
        rank = hello.rank
        if rank is None:
            rank = next(r for r in range(1, len(self.members) + 2) if r not in self.members or not self.members[r].here)
        if rank < 0 or (size is not None and rank >= size):
            raise IdentityError(f"{hello.host} has rank {rank}, but the run on {self.me.host} has {size} nodes")
        holder = self.me if rank == 0 else self.members[rank].hello if rank in self.members else None
        if holder is not None and (rank == 0 or self.members[rank].here):
            has, wants = f"{holder.host} ({holder.ip})", f"{hello.host} ({hello.ip})"
            raise IdentityError(f"rank {rank} is claimed by two nodes: {has} has it, {wants} wants it")
        return rank

    def _version_clash(self, hello: Hello) -> str:
        """What Ray would reject later, more slowly: its and Python's full versions must match (_private/utils.py)."""
        me = self.me
        if hello.ray != me.ray:
            return f"Ray {hello.ray} on {hello.host}, Ray {me.ray} on {me.host}"
        level = 2 if self.any_python_patch else 3
        if hello.python.split(".")[:level] != me.python.split(".")[:level]:
            return f"Python {hello.python} on {hello.host}, Python {me.python} on {me.host}"
        return ""

    def _refuse(self, connection: Connection, kind: str, reason: str, tag: str = "") -> None:
        connection.send({"t": "refuse", "kind": kind, "reason": reason, "head": self.me.host, "tag": tag})
        connection.close(reason)
        self._note_strange(connection, reason)

    def _note_strange(self, connection: Connection, reason: str) -> None:
        self.strange = [*self.strange[-19:], f"{connection.peer}: {reason}"]

    def _note_refused(self, member: Member) -> None:
        holder = self.members.get(member.rank)
        if holder is None or not holder.here:
            self.members[member.rank] = member
        self.on_change(member, f"refused: {member.detail}")

    def _let_go(self, member: Member) -> None:
        if self._released is not None and member.connection is not None:
            member.connection.send(self._released)

    def _hear_member(self, member: Member, message: Message) -> None:
        kind = message["t"]
        if kind == "phase":
            self._turn(member, str(message["phase"])[:40], str(message.get("detail", "")))
        elif kind == "bye":
            self._turn(member, "left", str(message.get("reason", "")))
            if member.connection is not None:
                member.connection.close("said good-bye")
        else:
            raise ValueError(f"unknown message {kind!r}")

    def _turn(self, member: Member, phase: str, detail: str) -> None:
        member.phase, member.detail = phase, detail
        member.since = asyncio.get_running_loop().time()
        self.on_change(member, f"{phase}: {detail}" if detail else phase)

    def _closed(self, connection: Connection, reason: str) -> None:
        if self._strangers.pop(connection, None) is not None:
            self._note_strange(connection, reason)
        rank = self._ranks.pop(connection, None)
        if rank is None:
            return
        member = self.members[rank]
        member.connection = None
        self._left.set()
        if member.phase not in ("left", "failed"):
            self._turn(member, "lost", reason)
