"""What the head knows about each node."""

import asyncio
from dataclasses import dataclass, field

from bootstrap.cgroup import OOM
from bootstrap.model import Phase
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.offset import Offset
from bootstrap.rollcall.trail import Trail
from bootstrap.rollcall.wire import Connection, Message, text

MOST_FINDINGS, LONGEST_FINDING = 16, 1000
"""Findings that the head keeps of each node, and the characters that it keeps of one."""
OVER = "the roll call is over"
"""Why the head closes the connections that remain at its end."""


@dataclass(slots=True)
class Member:
    """What the head knows about one node."""

    hello: Hello
    rank: int
    phase: Phase
    since: float
    """Time of the last change of phase, on the event loop's clock."""
    detail: str = ""
    findings: list[str] = field(default_factory=list)
    """What this node has reported as a possible cause, should it not become ready."""
    error: str = ""
    """The name of its error (:mod:`bootstrap.errors`), if its phase is ``failed``."""
    hint: str = ""
    """What mends that, as that node says."""
    connection: Connection | None = None
    stopped: bool = False
    """Whether it has reported that a signal stops it, and asks whether to stay."""
    fell_silent: bool = False
    """Whether it was lost because nothing came from it any more (:attr:`Connection.fell_silent`)."""
    unconfirmed: bool = False
    """Whether it was lost before it said anything after its welcome, which came too late for it: it tries again."""
    trail: Trail | None = None
    """When it was in which phase; None of a node that was never admitted."""

    @property
    def name(self) -> str:
        """Return the node as people know it: ``rank 3 (node-3)``."""
        return f"rank {self.rank} ({self.hello.host})"

    @property
    def connected(self) -> bool:
        """Return whether its agent is connected."""
        return self.connection is not None and self.connection.open

    def end(self, connection: Connection, reason: str) -> str:
        """Note that this node's connection has ended; return its loss in words, or "" if it had left."""
        if self.trail is not None and reason != OVER:
            self.trail.ended = asyncio.get_running_loop().time()
        if self.phase in (Phase.LEFT, Phase.FAILED):
            return ""
        self.fell_silent = connection.fell_silent
        self.unconfirmed = self.phase is Phase.WAITING and connection.last_heard <= self.since
        return self.turn(Phase.LOST, reason)

    def turn(self, phase: Phase, detail: str) -> str:
        """Change the phase, or its detail; return that in words."""
        if phase is not self.phase:
            self.since = asyncio.get_running_loop().time()
            if self.trail is not None:
                self.trail.note(phase, self.since)
        self.phase, self.detail = phase, detail
        return f"{phase.value}: {detail}" if detail else phase.value

    def hear_phase(self, message: Message) -> str:
        """Take the phase that this node reports; return it in words, or "" if nothing has changed."""
        phase, detail, error = Phase(text(message, "phase")), text(message, "detail"), text(message, "error")[:40]
        if self.phase is Phase.FAILED:  # which is final
            return ""
        self.error, self.hint = error, text(message, "hint") if "hint" in message else ""
        return self.turn(phase, detail)

    def hear_spans(self, message: Message) -> None:
        """Keep when this node was in which phase. :raises ValueError: if the message does not say so."""
        if self.trail is not None:
            self.trail.hear(message, asyncio.get_running_loop().time())

    def hear_finding(self, message: Message) -> str:
        """Keep a finding that this node reports; return it, or "" if it is known, or one too many."""
        finding = text(message, "text")[:LONGEST_FINDING]
        most = MOST_FINDINGS - (not finding.startswith(OOM))  # the last one is said when a node leaves
        if len(self.findings) >= most or finding in self.findings:
            return ""
        self.findings.append(finding)
        return finding


def admitted(hello: Hello, rank: int, connection: Connection, clock: Offset) -> Member:
    """Return the member that a node becomes with its welcome."""
    since = connection.last_heard
    trail = Trail(clock, clock.stamped)
    trail.note(Phase.WAITING, since)
    return Member(hello, rank, Phase.WAITING, since, connection=connection, trail=trail)
