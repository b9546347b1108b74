"""What the head knows about each node."""

from dataclasses import dataclass, field

from bootstrap.model import Phase
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.wire import Connection

MOST_FINDINGS, LONGEST_FINDING = 16, 1000
"""Findings that the head keeps of each node, and the characters that it keeps of one."""


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

    @property
    def name(self) -> str:
        """Return the node as people know it: ``rank 3 (node-3)``."""
        return f"rank {self.rank} ({self.hello.host})"

    @property
    def connected(self) -> bool:
        """Return whether its agent is connected."""
        return self.connection is not None and self.connection.open
