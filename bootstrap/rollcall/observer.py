"""An observer's side of the roll call: it hears how the run fares, asks how far each node is, and may end the run."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from bootstrap.errors import RayDied, Refused
from bootstrap.model import Phase
from bootstrap.rollcall import auth, wire
from bootstrap.rollcall.head_connection import Challenge, HeadConnection
from bootstrap.rollcall.hello import ObserverHello
from bootstrap.rollcall.refusal import mismatch, refusal
from bootstrap.rollcall.wire import Connection, Message


@dataclass(frozen=True, slots=True)
class Row:
    """A node as the head knows it."""

    rank: int
    host: str
    ip: str
    phase: Phase
    seconds: int
    """Since when it is in this phase."""
    cpus: int
    gpus: int
    detail: str
    findings: tuple[str, ...]


@dataclass
class Observer(HeadConnection[ObserverHello]):
    """A connection that watches a run without being part of it.

    ``gcs`` resolves to GCS's address once the head's Ray is up, ``quorum`` once the cluster stands, ``ended`` to the
    verdict, and ``gone`` when the connection has ended: after :meth:`down`, once all nodes have cleaned up.
    """

    key: bytes | None = field(default=None, repr=False)
    """What an agent on this node has left for observers (:func:`bootstrap.rollcall.auth.observer_key`); without, it
    is derived from the secret."""
    gcs: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    quorum: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    gone: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    size: int | None = None
    """How many nodes the run has, as the answer to :meth:`nodes` says."""
    _rows: list[Row] = field(default_factory=list)
    _listed: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self._hear_kind = {
            "go": self._hear_go,
            "quorum": self._hear_quorum,
            "node": self._hear_node,
            "nodes": self._hear_nodes,
            "refuse": self._hear_refuse,
            "verdict": self._hear_verdict,
        }

    async def nodes(self) -> list[Row]:
        """Return what the head knows of each node that it has ever seen, itself included, by rank.

        :raises RayDied: if the connection ends meanwhile.
        """
        self._rows, self._listed = [], asyncio.get_running_loop().create_future()
        self._send({"t": "nodes", "from": 0})
        await asyncio.wait({self._listed, self.gone}, return_when=asyncio.FIRST_COMPLETED)
        if not self._listed.done():
            raise RayDied(f"lost the head {self.head} before it had listed the nodes")
        return self._rows

    def down(self, status: int, who: str) -> None:
        """Ask the head to end the run with this status; it may refuse, which then is what ``ended`` raises.

        :param who: who asks, for the run's last line.
        """
        self._send({"t": "down", "status": status, "who": who})

    def _hail(self) -> Message:
        return {"as": "observer", "credential": self.key is None}

    async def _agree(self, challenge: Challenge) -> None:
        if self.key is None:
            await super()._agree(challenge)
        elif challenge.auth == "none":
            self._decline(self.farewell)
            raise mismatch(self.secret, challenge.auth)
        else:
            super()._authenticate(self.key, challenge)

    def _authenticate(self, key: bytes, challenge: Challenge) -> None:
        super()._authenticate(auth.observer_key(key, self.hello.run, self.hello.attempt), challenge)

    def _futures(self) -> tuple[asyncio.Future[Any], ...]:
        return (*super()._futures(), self.gcs, self.quorum, self.gone)

    def _hear_go(self, _connection: Connection, message: Message) -> None:
        if not self.gcs.done():
            self.gcs.set_result(wire.text(message, "gcs"))

    def _hear_quorum(self, _connection: Connection, _message: Message) -> None:
        if not self.quorum.done():
            self.quorum.set_result(None)

    def _hear_node(self, _connection: Connection, message: Message) -> None:
        numbers = [wire.number(message, name) for name in ("rank", "seconds", "cpus", "gpus")]
        rank, seconds, cpus, gpus = numbers
        texts = (wire.text(message, name) for name in ("host", "ip", "phase", "detail", "findings"))
        host, ip, phase, detail, findings = texts
        self._rows.append(Row(rank, host, ip, Phase(phase), seconds, cpus, gpus, detail, tuple(findings.splitlines())))

    def _hear_nodes(self, connection: Connection, message: Message) -> None:
        self.size = None if message.get("size") is None else wire.number(message, "size")
        if message.get("next") is not None:
            connection.send({"t": "nodes", "from": wire.number(message, "next")})
        elif self._listed is not None and not self._listed.done():
            self._listed.set_result(None)

    def _hear_refuse(self, _connection: Connection, message: Message) -> None:
        if not self.ended.done():
            error = refusal(message)
            self.ended.set_exception(error if isinstance(error, Refused) else Refused(str(error)))
            self.ended.exception()  # mark it as retrieved

    def _closed(self, connection: Connection, reason: str) -> None:
        super()._closed(connection, reason)
        if not self.gone.done():
            self.gone.set_result(None)
