"""A worker's side of the roll call."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bootstrap import timeouts
from bootstrap.files.certificates import Issued
from bootstrap.model import Phase, Span
from bootstrap.rollcall import trail, wire
from bootstrap.rollcall.head_connection import HeadConnection
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.wire import Connection, Message


@dataclass
class Membership(HeadConnection[Hello]):
    """A worker's membership in the run, from the first message to the verdict.

    ``released`` resolves to GCS's address; ``ended`` resolves to the verdict, or raises RayDied if the connection to
    the head is lost without one.
    """

    rank: int = -1
    deadline: float | None = None
    """Until when the head waits for this node's Ray, on the event loop's clock; None for as long as the run lasts."""
    released: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    quorum: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done once the head has reached its quorum, after which its workload starts."""
    stays: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """The head's answer to :meth:`report_stopped`: whether it is stopping, too, so that this node is to stay."""
    last_finding: Callable[[], str] = lambda: ""  # called before this node says bye; what it returns the head hears
    _stamped: float = 0.0
    """When the hello was stamped, on the monotonic clock."""
    _certified: asyncio.Future[Issued] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    on_peers: Callable[[Message], None] = field(init=False, repr=False, compare=False)
    """Called with each message that names nodes to probe; at first those are kept in ``early_peers``."""
    early_peers: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_peers = self.early_peers.append
        self._hear_kind = {
            "go": self._hear_go,
            "quorum": self._hear_quorum,
            "certificate": self._hear_certificate,
            "stay": self._hear_answer,
            "drain": self._hear_answer,
            "ping": lambda connection, _message: connection.send(wire.BEAT),
            "peers": lambda _connection, message: self.on_peers(message),
            "verdict": self._hear_verdict,
        }

    def _introduction(self, connection: Connection) -> Hello:
        # Stamped now, not before a long search: the head measures by it how far this node's clock is off.
        self._stamped = time.monotonic()
        return replace(self.hello.leaving_from(connection.own_address), time=time.time())

    def _share(self) -> float:
        # Spread the first heartbeats by rank, since many nodes may join at the same moment.
        return (self.rank % 16) / 16

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

    def report_spans(self, spans: Sequence[Span]) -> None:
        """Report when this node was in which phase, on its monotonic clock."""
        self._send(trail.to_message(spans, self._stamped))

    def report_probe(self, outcome: Message) -> None:
        """Report the result of a probe of another node."""
        self._send(outcome)

    def report_stopped(self) -> None:
        """Report that a signal stops this node; the head answers within a second (:attr:`stays`), unless it hangs."""
        self._send({"t": "stopped"})

    async def leave(self, reason: str) -> None:
        """Send bye with the reason, so that the head does not report a lost connection, and close the connection.

        After the verdict, whose receipt it has acknowledged, do neither: the connection lasts as long as this agent, so
        that the head knows when this node has cleaned up.
        """
        if self.has_verdict:
            return
        if self._connection is not None and self._connection.open:
            self._say_bye(self._connection, reason)
            self._connection.close(reason)
            await asyncio.wait([self.ended], timeout=timeouts.LEAVE_S)
        self.close()

    @property
    def has_verdict(self) -> bool:
        """Return whether the head has said how the run ended."""
        return self.ended.done() and not self.ended.cancelled() and self.ended.exception() is None

    def _say_bye(self, connection: Connection, reason: str) -> None:
        self.report_finding(self.last_finding())
        connection.send({"t": "bye", "reason": reason})

    def _futures(self) -> tuple[asyncio.Future[Any], ...]:
        return (*super()._futures(), self._certified, self.released, self.quorum, self.stays)

    def _hear_welcome(self, message: Message) -> None:
        super()._hear_welcome(message)
        self.rank = wire.number(message, "rank")

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

    def _hear_verdict(self, connection: Connection, message: Message) -> None:
        super()._hear_verdict(connection, message)
        self._say_bye(connection, "verdict received")
