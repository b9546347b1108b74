"""The roll call's messages about probes: ``peers`` (whom to probe) and ``probed`` (what came of it)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bootstrap.rollcall.wire import MAX_NAME, Message, number, text

PROBE, WORKER, NODE_MANAGER, OBJECT_MANAGER, GCS = "probe", "worker", "node-manager", "object-manager", "gcs"
ANSWERED = (PROBE, WORKER)
"""Ports on which an agent answers. On the others, which are Ray's, a connection is all that is tried."""
PORTS: Mapping[str, str] = {
    PROBE: "its probe port",
    WORKER: "a port of its workers' range",
    NODE_MANAGER: "its node manager",
    OBJECT_MANAGER: "its object manager",
    GCS: "GCS",
}
"""What each port is called in a finding."""
_PER_MESSAGE = 32
_MOST_BITS = 1 << 50


@dataclass(frozen=True, slots=True)
class Target:
    """One port of one node, to be probed."""

    rank: int
    ip: str
    name: str
    """One of :data:`PORTS`."""
    port: int
    echo: bool = False
    """Whether to send the packet test, too."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one probe."""

    rank: int
    """The target's."""
    name: str
    error: str = ""
    """Why the target was not reached; empty if it was."""
    round_trip: int = 0
    """Microseconds."""
    rate: int = 0
    """Bits per second in the packet test, both directions together; 0 without one."""
    stalled: bool = False
    """Whether small packets came through, and the packet test did not."""

    def message(self) -> Message:
        """Return the message that carries it."""
        where = {"t": "probed", "rank": self.rank, "port": self.name, "error": self.error, "stalled": self.stalled}
        return {**where, "us": self.round_trip, "rate": self.rate}


def parse_probed(message: Message) -> Outcome:
    """Return the outcome in a message. :raises ValueError: if a field is missing, of another type or too large."""
    name, error = text(message, "port"), text(message, "error")[:MAX_NAME]
    if name not in PORTS:
        raise ValueError("probed without a valid 'port'")
    measured = number(message, "us"), number(message, "rate")
    if not all(0 <= value < _MOST_BITS for value in measured):
        raise ValueError("probed with a measure out of range")
    return Outcome(number(message, "rank"), name, error, *measured, message.get("stalled") is True)


def peers(targets: Sequence[Target]) -> Iterator[Message]:
    """Yield the messages that name these targets."""
    for start in range(0, len(targets), _PER_MESSAGE):
        some = targets[start : start + _PER_MESSAGE]
        rows = [{"rank": t.rank, "ip": t.ip, "port": t.name, "number": t.port, "echo": t.echo} for t in some]
        yield {"t": "peers", "peers": rows}


OVER: Message = {"t": "peers", "peers": [], "over": True}
"""No more probes follow: the nodes stop listening for them."""


def is_over(message: Message) -> bool:
    """Return whether no more probes follow."""
    return message.get("over") is True


def parse_peers(message: Message) -> list[Target]:
    """Return the targets in a message. :raises ValueError: if a field is missing, of another type or too large."""
    rows = message.get("peers")
    if not isinstance(rows, list) or len(rows) > _PER_MESSAGE or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("peers without a valid 'peers'")
    return [_parse_target({"t": "peers", **row}) for row in rows]


def _parse_target(row: Message) -> Target:
    target = Target(
        number(row, "rank"), text(row, "ip"), text(row, "port"), number(row, "number"), row.get("echo") is True
    )
    if target.name not in PORTS or not 0 < target.port < 1 << 16 or len(target.ip) > MAX_NAME:
        raise ValueError("peers with a target out of range")
    return target
