"""End the run of a head that seems to be cut off from its workers."""

import asyncio
import math

from bootstrap import net
from bootstrap.errors import RayDied
from bootstrap.model import Phase
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.server import RollCall
from bootstrap.run.context import Context


class IsolationTimer:
    """Counts from the moment when the last worker has fallen silent; a worker that connects stops the count.

    A head whose own link is down would otherwise work on alone and end with 0, while the scheduler, which has lost
    sight of it too, has already started the run anew: two instances would write the same checkpoints.

    :param timeout: seconds; infinite if the head is to go on.
    """

    def __init__(self, run: Context, timeout: float, roll_call: RollCall) -> None:
        self._run = run
        self._timeout = timeout
        self._roll_call = roll_call
        self._last: Member | None = None
        """While it counts: the worker that fell silent last."""
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Start or stop counting; call it at the quorum, and then whenever a node changes."""
        if self._roll_call.present:
            if self._last is not None:
                self._run.log.say("a worker is connected again: this node is not cut off, and the run goes on")
            self.cancel()
            return
        last = max(self._workers(), key=lambda member: member.since, default=None)
        if self._last is None and last is not None and last.fell_silent and self._timeout < math.inf:
            self._last, self._since = last, asyncio.get_running_loop().time()
            self._run.log.warn(
                f"no worker is connected, and the last one, {last.name}, fell silent: this node may be cut off; the"
                f" run ends in {self._timeout:g} s (--isolation-timeout) unless a worker connects"
            )
            self._count()

    def cancel(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
        self._last = self._timer = None

    def _count(self) -> None:
        loop = asyncio.get_running_loop()
        # While this node itself was stopped, no worker could connect. This may run before the roll call's own tick.
        left = max(self._since, self._roll_call.heartbeat.stalls.check()) + self._timeout - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._count)
        elif self._last is not None:
            look = "`ip -brief address`, `ip route` and `nft list ruleset` on this node"
            hint = f"{look}; --isolation-timeout=off, or a longer time, keeps such a run going"
            self._run.lifecycle.stop(RayDied(self._describe(self._last, loop.time()), hint=hint))

    def _describe(self, last: Member, now: float) -> str:
        me, count = self._roll_call.me, len(self._workers())
        silent = sum(member.fell_silent for member in self._workers())
        who = f"all {count} workers" if silent == count else f"{silent} of {count} workers"
        who = f"{who} fell silent, the last one," if count > 1 else "its only worker fell silent,"
        alike = "" if count > 1 else "; with two nodes a dead worker looks the same"
        return (
            f"this node ({me.host}, {_where(me.ip)}) seems to be cut off: {who} {last.name},"
            f" {now - last.since:.0f} s ago, and none has connected since{alike}"
        )

    def _workers(self) -> list[Member]:
        return [member for member in self._roll_call.members.values() if member.phase is not Phase.REFUSED]


def _where(ip: str) -> str:
    """Return the address with its interface and whether that is up, as far as the kernel says so now."""
    try:
        interface = next((each for each in net.interfaces() if ip in each.addresses), None)
    except OSError:
        return ip
    return f"{ip} on {interface.name}, {'up' if interface.up else 'down'}" if interface else f"{ip} on no interface"
