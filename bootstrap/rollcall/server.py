"""The head's side of the roll call."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bootstrap.errors import IdentityError, UsageError
from bootstrap.files.certificates import Issued
from bootstrap.files.secret import Secret
from bootstrap.model import Phase, Verdict
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall.admission import claimed_twice, misfit, other_run, rank_for, tls_clash, version_clash
from bootstrap.rollcall.announcements import Announcements
from bootstrap.rollcall.claims import Claims
from bootstrap.rollcall.clock import Clocks
from bootstrap.rollcall.handshake import Handshakes
from bootstrap.rollcall.heartbeat import Heartbeat
from bootstrap.rollcall.hello import Hello, ObserverHello
from bootstrap.rollcall.listener import Listener
from bootstrap.rollcall.member import OVER, Member, admitted
from bootstrap.rollcall.observers import Observers
from bootstrap.rollcall.rejections import Rejections
from bootstrap.rollcall.wire import Connection, Message, text


@dataclass
class RollCall:
    """The server: it listens, admits the nodes of this run, and sends them the release and the verdict.

    :param me: the head's own hello, against which the others are checked.
    :param secret: the nodes' shared secret, if they have one.
    :param heartbeat_timeout: seconds of silence after which a node counts as lost.
    :param any_python_patch: whether Python versions may differ in their patch level.
    :param certify: signs a member's certificate request, for this address and host name; None answers no request.
        :raises ValueError: saying what is wrong with the request.
    :param on_change: called with a changed member and, in words, what changed.
    """

    me: Hello
    secret: Secret
    heartbeat_timeout: float
    any_python_patch: bool = False
    certify: Callable[[str, str, str], Issued] | None = None
    on_change: Callable[[Member, str], None] = lambda _member, _what: None
    on_refused: Callable[[str], None] = lambda _who: None
    """Called once per address and reason with each peer that knew this run but was rejected, in words."""
    on_misfit: Callable[[str], None] = lambda _what: None
    """Called with each node of this run whose rank or size does not fit, in words."""
    on_finding: Callable[[Member, str], None] = lambda _member, _finding: None
    """Called with each member that reports a finding for the first time, and the finding."""
    on_probed: Callable[[Member, Message], None] = lambda _member, _message: None
    """Called with each member that reports a probe of another node, and its message."""
    on_stopped: Callable[[Member], None] = lambda _member: None
    """Called once with each member that was stopped by a signal; :meth:`answer_stopped` answers it."""
    members: dict[int, Member] = field(default_factory=dict)
    concluded: bool = False  # whether the verdict has been sent
    _joined: dict[Connection, Member] = field(default_factory=dict)
    _cleaning: dict[Connection, Member] = field(default_factory=dict)
    """Those of members that have acknowledged the verdict; each ends with its agent."""
    _free: int = 1
    """Lowest rank that may be free; all below it are taken."""
    _listener: Listener | None = None
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.rejections = Rejections(self._report)
        self.handshakes = Handshakes(self.me, self.secret, self.heartbeat_timeout, self.rejections)
        self._claims, self._clocks = Claims(self._admit, self._conflict), Clocks()
        self.observers = Observers(self.me, self.members, self.secret.value is not None)
        self.announcements = Announcements(lambda: (*self._joined, *self.observers))
        self.heartbeat = Heartbeat(self.heartbeat_timeout, self._admitted, self.handshakes.cut_slow)
        self._hear_kind: Mapping[str, Callable[[Member, Message], None]] = {
            "phase": self._hear_phase,
            "finding": self._hear_finding,
            "spans": Member.hear_spans,
            "probed": lambda member, message: self.on_probed(member, message),  # noqa: PLW0108 (it may be set later)
            "request": self._hear_request,
            "stopped": self._hear_stopped,
            "bye": self._hear_bye,
        }

    def listen(self, ports: Sequence[int], *, loopback: bool = False) -> int:
        """Listen on the first free one of ``ports``; return that port.

        :param loopback: whether only this machine is to reach it: a single node has observers alone.
        :raises UsageError: if none is free.
        """
        self._listener = Listener(self._meet, loopback=loopback)
        if (chosen := self._listener.listen_on_one_of(ports)) is not None:
            return chosen
        fault = f"no port is free for the roll call (tried {', '.join(map(str, ports))})"
        raise UsageError([fault], hint="set --rollcall-port=PORT on all nodes")

    def release(self, gcs_address: str, deadline: float | None = None) -> None:
        """Let every member, including those that join later, start Ray with GCS at this address.

        :param deadline: until when the head waits for that, on the event loop's clock; None for as long as it lasts.
        """
        self.announcements.release(gcs_address, deadline)

    def reach_quorum(self) -> None:
        """Tell every member, including those that join later, that the cluster is complete."""
        self.announcements.reach_quorum()

    async def deliver(self, verdict: Verdict, timeout: float, *, listen: bool = False) -> None:
        """Send the verdict to every member, and wait until they have left.

        :param timeout: seconds to wait at most.
        :param listen: whether to go on listening: nodes that join later get the verdict, too.
        """
        self.concluded = True
        if not listen and self._listener is not None:
            self._listener.close()
        self.announcements.conclude(verdict)
        self._claims.admit_all()
        await self.until_empty(timeout)

    async def until_empty(self, timeout: float, *, clean: bool = False) -> None:
        """Wait until every member has left, for ``timeout`` seconds at most; ``clean``: until it has cleaned up."""
        with contextlib.suppress(TimedOut):
            await wait_for(timeout, self.until(lambda: not (self._joined or (clean and self._cleaning))))

    def answer_stopped(self, member: Member, *, stay: bool) -> None:
        """Tell a member that was stopped by a signal to stay, since the run ends, or to drain Ray and leave."""
        if member.connection is not None:
            member.connection.send({"t": "stay" if stay else "drain"})

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition``, which is asked now and whenever a member has left, returns True."""
        while not condition():
            self._left.clear()
            await self._left.wait()

    @property
    def rejected(self) -> list[str]:
        """Return the rejected connections in words, grouped, this run's own nodes first."""
        now = asyncio.get_running_loop().time()
        return [group.line(now) for group in self.rejections.ranked]

    @property
    def present(self) -> int:
        """Return how many nodes are connected, without the head."""
        return len(self._joined)

    @property
    def listening(self) -> bool:
        """Return whether nodes can still join."""
        return self._listener is not None and self._listener.port is not None

    def close(self) -> None:
        """Stop listening and cut the remaining connections."""
        self.heartbeat.stop()
        if self._listener is not None:
            self._listener.close()
        self._claims.close()
        self.handshakes.close()
        self.observers.close()
        for connection in [*self._joined, *self._cleaning]:
            connection.cut(OVER)

    def _admitted(self) -> list[tuple[Connection, int]]:
        """Return the connections that get heartbeats, each with a number by which they take turns."""
        others = enumerate((*self._cleaning, *self.observers))
        return [(connection, member.rank) for connection, member in self._joined.items()] + [
            (connection, turn) for turn, connection in others
        ]

    def _report(self, who: str) -> None:
        self.on_refused(who)  # which may be set later

    def _meet(self, address: str) -> Connection | None:
        strangers = self.handshakes
        self.heartbeat.start()
        return strangers.meet(address, lambda: Connection(self._hear, strangers.refuse_secret, self._closed))

    def _hear(self, connection: Connection, message: Message) -> None:
        if (member := self._joined.get(connection)) is not None:
            if message["t"] not in self._hear_kind:
                raise ValueError(f"unknown message {message['t']!r}")
            self._hear_kind[message["t"]](member, message)
        elif connection in self._claims:
            raise ValueError(f"{message['t'][:40]!r} before the welcome")
        elif connection in self.observers:
            self.observers.hear(connection, message)
        elif connection in self._cleaning:
            if message["t"] == "spans":  # the rest it said before it had read the verdict
                self._cleaning[connection].hear_spans(message)
        elif isinstance(hello := self.handshakes.hear(connection, message), ObserverHello):
            self._admit_observer(connection, hello)
        elif hello is not None:
            self._admit(connection, hello)

    def _admit_observer(self, connection: Connection, hello: ObserverHello) -> None:
        if refusal := self.observers.refusal(hello):
            self.handshakes.refuse(connection, *refusal)
        else:
            self.handshakes.end(connection)
            self.observers.add(connection)
            self._welcome(connection, {})

    def _welcome(self, connection: Connection, rank: Mapping[str, int]) -> None:
        connection.send({"t": "welcome", **rank, "head": self.me.host})
        self.announcements.repeat(connection)

    def _admit(self, connection: Connection, hello: Hello) -> None:
        me = self.me
        if what := other_run(me, hello):
            self.handshakes.refuse(connection, "other-run", what)
            return
        if what := misfit(me, hello):
            self._refuse_misfit(connection, what)
            return
        try:
            rank = rank_for(me, hello, self._lowest_free())
        except IdentityError as error:
            self.handshakes.refuse(connection, "identity", error.message)
            return
        # With the verdict, a rank matters no more; each node of the run is to hear it.
        # A holder whose connection is closing has yet to be reported as lost: that comes first.
        if not self.concluded and (holder := self.members.get(rank)) is not None and holder.connection is not None:
            self._claims.hold(connection, hello, holder)
            return
        versions, tls = version_clash(me, hello, any_python_patch=self.any_python_patch), tls_clash(me, hello)
        if clash := versions or tls:
            self.handshakes.refuse(connection, "refused" if versions else "tls", clash)
            refused = self.members[rank] = Member(hello, rank, Phase.REFUSED, connection.last_heard, clash)
            self.on_change(refused, f"refused: {clash}")
            return
        member = admitted(hello, rank, connection, offset := self.handshakes.end(connection))
        self._joined[connection] = self.members[rank] = member
        self._welcome(connection, {"rank": rank})
        clock = self._clocks.add(member, offset)
        self.on_change(member, f"{hello.host} ({hello.ip}) connected" + (f"; {clock}" if clock else ""))

    def _conflict(self, newcomer: Connection, hello: Hello, holder: Member) -> None:
        self._refuse_misfit(newcomer, claimed_twice(holder.rank, holder.hello, hello))

    def _refuse_misfit(self, connection: Connection, what: str) -> None:
        self.handshakes.refuse(connection, "identity", what)
        self.on_misfit(what)

    def _lowest_free(self) -> int:
        while (member := self.members.get(self._free)) is not None and member.connected:
            self._free += 1
        return self._free

    def _hear_phase(self, member: Member, message: Message) -> None:
        if what := member.hear_phase(message):
            self.on_change(member, what)

    def _hear_finding(self, member: Member, message: Message) -> None:
        if finding := member.hear_finding(message):
            self.on_finding(member, finding)

    def _hear_request(self, member: Member, message: Message) -> None:
        if self.certify is not None and member.connection is not None:
            issued = self.certify(text(message, "pem"), member.hello.ip, member.hello.host)
            member.connection.send({"t": "certificate", **asdict(issued)})

    def _hear_stopped(self, member: Member, _message: Message) -> None:
        if not member.stopped:
            member.stopped = True
            self.on_stopped(member)

    def _hear_bye(self, member: Member, message: Message) -> None:
        if member.phase is not Phase.FAILED:  # keep the reason of the failure
            self.on_change(member, member.turn(Phase.LEFT, text(message, "reason")))
        if member.connection is None:
            return
        if self.concluded:
            self._cleaning[member.connection] = member
            self._leave(member.connection)
        else:
            member.connection.close("said bye")

    def _closed(self, connection: Connection, reason: str) -> None:
        self.handshakes.closed(connection, reason)
        self._claims.forget(connection)
        self.observers.remove(connection)
        self._left.set()
        member = self._leave(connection) or self._cleaning.pop(connection, None)
        if member is not None and (what := member.end(connection, reason)):
            self.on_change(member, what)

    def _leave(self, connection: Connection) -> Member | None:
        """Return the member, which is one no longer; None if the connection is not a member's."""
        member = self._joined.pop(connection, None)
        if member is not None:
            member.connection = None
            self._free = min(self._free, member.rank)
            self._left.set()
        return member
