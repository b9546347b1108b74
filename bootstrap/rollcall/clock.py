"""Whose clock is off: a node's, or the head's own."""

from dataclasses import dataclass, field

from bootstrap.rollcall.member import Member
from bootstrap.rollcall.offset import CLOCK_TOLERANCE, Offset

_ALIKE = 3
"""Nodes whose clocks must agree against the head's before the head's counts as the wrong one."""


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
