"""Observers on the head's side: they hear what the members hear, ask how far each node is, and may end the run.

An observer has no rank and is in no table: whether it comes or goes changes nothing for the run.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bootstrap import net, timeouts
from bootstrap.model import Phase
from bootstrap.rollcall.admission import other_run
from bootstrap.rollcall.hello import Hello, ObserverHello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.refusal import OPEN_RUN
from bootstrap.rollcall.wire import MAX_UNREAD, Connection, Message, encode, number, text

MOST = 64
"""Observers at a time, or as many as the run has nodes: each may wait for it."""
_PAGE = MAX_UNREAD // 4
"""Bytes of rows after which an observer has to ask for more, so that it is not cut off while it reads."""
_LONGEST_DETAIL, _LONGEST_FINDINGS = 1000, 4000
"""Characters of a row."""


@dataclass
class Observers:
    """The connected observers.

    :param me: the head's own hello.
    :param members: all nodes but the head, as they are at each question.
    :param closed_run: whether the nodes share a secret, which each observer has proved to know of.
    """

    me: Hello
    members: Mapping[int, Member]
    closed_run: bool
    own: Callable[[], Member] = field(init=False)
    """Returns the head as a member, for its row."""
    on_down: Callable[[int, str], None] = lambda _status, _who: None
    """Called with the exit status with which an observer ends the run, and who that is, in words."""
    _connected: dict[Connection, bool] = field(default_factory=dict)
    """Each observer, with whether it has ended the run and waits until all nodes are gone."""
    _asked: dict[Connection, int] = field(default_factory=dict)
    """Those that wait for rows, the first one first, and the rank from which on."""
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        began = asyncio.get_running_loop().time()
        self.own = lambda: Member(self.me, 0, Phase.PREPARING, began)

    def add(self, connection: Connection) -> None:
        """Take a connection that has been admitted."""
        self._connected[connection] = False

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended, if it was an observer's."""
        self._connected.pop(connection, None)
        self._asked.pop(connection, None)

    def __contains__(self, connection: Connection) -> bool:
        """Return whether this connection is an observer's."""
        return connection in self._connected

    def __iter__(self) -> Iterator[Connection]:
        """Return the observers' connections."""
        return iter(self._connected)

    def refusal(self, hello: ObserverHello) -> tuple[str, str] | None:
        """Return the kind and the reason of the refusal of an observer, or None if it may be added."""
        if what := other_run(self.me, hello):
            return "other-run", what
        return None if self._make_room() else ("refused", f"{MOST} others are here")

    def _make_room(self) -> bool:
        """Return whether there is room for another one.

        Whoever knows the id of an open run may fill it, so there the oldest from another machine makes room: else
        strangers could keep out those here, who alone may end it.
        """
        most = max(MOST, self.me.size or 0)
        if len(self._connected) < most:
            return True
        oldest = next((each for each in self._connected if not _is_here(each)), None)
        if self.closed_run or oldest is None:
            return False
        self.remove(oldest)
        oldest.cut(f"more than {most} observers")
        return True

    @property
    def await_the_end(self) -> bool:
        """Return whether an observer waits until all nodes are gone."""
        return any(self._connected.values())

    def close(self) -> None:
        """Close all connections once what was sent has gone out."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connected):
            connection.close("the roll call is over")

    def hear(self, connection: Connection, message: Message) -> None:
        """Answer an observer. :raises ValueError: if it does not speak the protocol."""
        if message["t"] == "nodes":
            if connection in self._asked:
                raise ValueError("nodes before the answer to the last one")
            self._asked[connection] = number(message, "from")
            if self._timer is None:
                self._answer()
        elif message["t"] == "down":
            self._end(connection, number(message, "status"), text(message, "who")[:256])
        else:
            raise ValueError(f"unknown message {message['t'][:40]!r}")

    def _answer(self) -> None:
        """Answer who has waited longest; pause then, whoever asks how often: the members come first."""
        self._timer = None
        if self._asked:
            connection = next(iter(self._asked))
            self._list(connection, self._asked.pop(connection))
            self._timer = asyncio.get_running_loop().call_later(timeouts.ROWS_PAUSE_S, self._answer)

    def _list(self, connection: Connection, first: int) -> None:
        """Send a row for each node from this rank on, as many as fit, and the rank at which to go on."""
        now, room, following = asyncio.get_running_loop().time(), _PAGE, None
        nodes = {0: self.own(), **self.members}
        for rank in sorted(rank for rank in nodes if rank >= first):
            if room <= 0:
                following = rank
                break
            line = encode(row(nodes[rank], now))
            connection.send(line)
            room -= len(line)
        connection.send({"t": "nodes", "next": following, "size": self.me.size})

    def _end(self, connection: Connection, status: int, who: str) -> None:
        if not 0 <= status <= 255:
            raise ValueError(f"down with status {status}")
        if not self.closed_run and not _is_here(connection):
            reason = f"nothing proves that {connection.peer} may end the run: its nodes share no secret"
            connection.send({"t": "refuse", "kind": OPEN_RUN, "reason": reason, "head": self.me.host, "tag": ""})
            connection.close(reason)
            return
        self._connected[connection] = True
        self.on_down(status, who)


def _is_here(connection: Connection) -> bool:
    """Return whether the peer is on this machine: both ends, since a proxy may stand in for others at one of them."""
    return net.is_loopback(connection.peer) and net.is_loopback(connection.own_address)


def row(member: Member, now: float) -> Message:
    """Return what an observer is sent of a node; ``now`` is the event loop's time."""
    hello = member.hello
    return {
        "t": "node",
        "rank": member.rank,
        "host": hello.host,
        "ip": hello.ip,
        "phase": member.phase.value,
        "seconds": int(max(0.0, now - member.since)),
        "cpus": hello.cpus,
        "gpus": hello.gpus,
        "detail": member.detail[:_LONGEST_DETAIL],
        "findings": "\n".join(member.findings)[:_LONGEST_FINDINGS],
    }
