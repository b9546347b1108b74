"""Nodes that wait because a connected node has the rank that they claim."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bootstrap import timeouts
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.wire import Connection


@dataclass(slots=True)
class _Claim:
    hello: Hello
    holder: Member
    since: float
    pinged: float | None = None
    """When the holder was pinged on behalf of this claim."""


@dataclass
class Claims:
    """Finds out which of two nodes with one rank is alive; both have proved that they are of this run.

    A replacement may meet the half-open connection of its predecessor, whose machine is gone. So the holder is pinged.
    If anything comes from it after that, two living nodes have the same number. If its connection ends instead, at
    the latest after the heartbeat time-out, the newcomer takes its place.

    :param admit: called with a newcomer when the holder has gone.
    :param conflict: called with a newcomer when the holder has answered, and with the holder.
    """

    admit: Callable[[Connection, Hello], None]
    conflict: Callable[[Connection, Hello, Member], None]
    _claims: dict[Connection, _Claim] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None

    def hold(self, newcomer: Connection, hello: Hello, holder: Member) -> None:
        """Keep a newcomer waiting until it is clear whether the holder of its rank is alive."""
        self._claims[newcomer] = _Claim(hello, holder, asyncio.get_running_loop().time())
        self._look_again()

    def __contains__(self, newcomer: Connection) -> bool:
        """Return whether this connection waits."""
        return newcomer in self._claims

    def forget(self, newcomer: Connection) -> None:
        """Drop the claim of a newcomer whose connection has ended: it comes again."""
        self._claims.pop(newcomer, None)

    def admit_all(self) -> None:
        """Admit all that wait, whether the holders are alive or not."""
        for newcomer, claim in list(self._claims.items()):
            self.forget(newcomer)
            self.admit(newcomer, claim.hello)

    def close(self) -> None:
        """Forget all claims."""
        self._claims.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(timeouts.HOLDER_PING_S, self._look)

    def _look(self) -> None:
        self._timer, now = None, asyncio.get_running_loop().time()
        for newcomer, claim in list(self._claims.items()):
            line = claim.holder.connection
            if line is None:
                self.forget(newcomer)
                self.admit(newcomer, claim.hello)
            elif not line.open:
                continue  # the loss of the holder comes first, or it would count as that of the newcomer
            elif claim.holder.phase.is_loss:
                continue  # it is alive, but drains or is about to say bye: Kubernetes replaces pods that terminate
            elif claim.pinged is None:
                if now - claim.since >= timeouts.HOLDER_PING_S:
                    claim.pinged = now
                    line.send({"t": "ping"})
            elif line.last_heard > claim.pinged:
                self.forget(newcomer)
                self.conflict(newcomer, claim.hello, claim.holder)
        if self._claims:
            self._look_again()
