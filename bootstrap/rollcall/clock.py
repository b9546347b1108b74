"""How far the nodes' clocks are from the head's, measured within the handshake."""

from dataclasses import dataclass, field

from bootstrap.rollcall.member import Member

CLOCK_TOLERANCE = 5.0
"""Seconds by which a node's clock may differ before the head reports it."""
_ALIKE = 3
"""Nodes whose clocks must agree against the head's before the head's counts as the wrong one."""


@dataclass(frozen=True, slots=True)
class Offset:
    """By how much a clock differs from the head's, in seconds."""

    seconds: float
    uncertainty: float = 0.0
    """The true offset is at most this much smaller or larger."""

    @property
    def is_off(self) -> bool:
        """Return whether it is certainly more than the tolerance."""
        return abs(self.seconds) - self.uncertainty > CLOCK_TOLERANCE

    def __str__(self) -> str:
        """Return it with its sign, and its uncertainty if that is a second or more."""
        return f"{self.seconds:+.0f} s" + (f" (±{self.uncertainty:.0f} s)" if self.uncertainty >= 1 else "")


def measure(stamped: float, now: float, elapsed: float) -> Offset:
    """Return the offset of the clock that stamped a message between our question and its arrival.

    :param stamped: seconds since the epoch, by the other clock.
    :param now: the same by ours, on arrival.
    :param elapsed: seconds from the question to the arrival, by a clock that is never set.
    """
    return Offset(stamped - (now - elapsed / 2), elapsed / 2)


@dataclass
class Clocks:
    """The offsets of all nodes so far; decides whose clock is reported."""

    _offsets: dict[int, Offset] = field(default_factory=dict)
    _accused: list[tuple[Member, str]] = field(default_factory=list)
    """With the finding that was added to each."""
    _head_is_off: bool = False

    def add(self, member: Member, offset: Offset) -> str:
        """Note a node's offset; return what to say about it now, or "".

        A clock that is off becomes a finding of its node. Once most of the run's nodes, and at least three, agree
        against the head's, it is the head's that is off: that is said once, and no node is accused of it.
        """
        self._offsets[member.rank] = offset
        if not offset.is_off:
            return ""
        alike = [each for each in self._offsets.values() if abs(each.seconds - offset.seconds) <= CLOCK_TOLERANCE]
        if len(alike) >= _ALIKE and 2 * len(alike) > len(self._offsets) + 1:  # the head's is one of them, too
            return self._blame_head(alike)
        finding = f"its clock differs by {offset} from the head's; fix: `timedatectl` on both shows which is wrong"
        member.findings.append(finding)
        self._accused.append((member, finding))
        return finding

    def _blame_head(self, alike: list[Offset]) -> str:
        for member, finding in self._accused:
            if finding in member.findings and self._offsets[member.rank] in alike:
                member.findings.remove(finding)
        if self._head_is_off:
            return ""
        self._head_is_off = True
        middle = Offset(-sorted(each.seconds for each in alike)[len(alike) // 2])
        count = f"{len(alike)} of {len(self._offsets)} nodes"
        return f"the head's clock is off: it differs by {middle} from those of {count}; fix: `timedatectl` on the head"
