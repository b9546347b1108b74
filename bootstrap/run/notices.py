"""What the nodes report of themselves, as the head shows it: the same text from many nodes is one line."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from bootstrap import timeouts
from bootstrap.model import Phase
from bootstrap.rollcall.member import Member

AT_ONCE = ("nvml", "head-address")
"""How the findings begin that the head shows as they come: a node that has lost its GPUs may join, and the run end with
0; one that reaches the head only at another address than Ray's does not join."""
FROM_HEAD = ("nofile", "neighbours", "cpus")
"""The checks whose warnings a worker leaves to the head: a site's nodes are alike, and under Slurm or mpirun all
write to one file."""
_NAMED = 6
"""Ranks with the same report that a line names."""
_LISTED = 8
"""Maximum number of ranks in a message."""
_FINDINGS = 8
"""Lines of findings in the table of missing ranks."""
_OF_ONE = 32
"""Texts of one node that are logged: in an open run anyone who knows its id may be a node."""
_LENGTH = 1000
"""Characters of a text that are logged."""


def listed(items: Sequence[object]) -> str:
    """Return ranks, or what is said of each, in a row: ``1, 2``; of many the first ones, ``and 12 more``."""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(map(str, items[:_LISTED])) + more


class GroupedReports:
    """Logs texts with the nodes that they are about, each text :data:`timeouts.REPORTS_TOGETHER_S` after it came first.

    A text that has been logged waits :data:`timeouts.STILL_LOOKING_S` for more nodes with it.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._waiting: dict[str, dict[int, Member]] = {}
        self._logged: dict[str, set[int]] = {}
        self._count: Counter[int] = Counter()

    def add(self, member: Member, text: str) -> None:
        """Log this text for this node, unless that was done before, or it has said enough."""
        text = text[:_LENGTH]
        if self._count[member.rank] >= _OF_ONE or member.rank in self._logged.setdefault(text, set()):
            return
        self._count[member.rank] += 1
        self._logged[text].add(member.rank)
        if text not in self._waiting:
            again = len(self._logged[text]) > 1
            delay = timeouts.STILL_LOOKING_S if again else timeouts.REPORTS_TOGETHER_S
            asyncio.get_running_loop().call_later(delay, self.flush, text)
        self._waiting.setdefault(text, {})[member.rank] = member

    def forget(self, member: Member) -> None:
        """Do not log what waits about this node: it has come to an end that says more."""
        for members in self._waiting.values():
            members.pop(member.rank, None)

    def flush(self, *texts: str) -> None:
        """Log these texts, or all that wait, now."""
        for text in texts or list(self._waiting):
            if members := self._waiting.pop(text, None):
                self._log(_about(members, text))


def _about(members: Mapping[int, Member], text: str) -> str:
    named = who(members)
    return text if text.startswith(named) else f"{named}: {text}"


def who(members: Mapping[int, Member]) -> str:
    """Return the nodes as people know them: ``rank 3 (node-3)``, ``rank 3 (node-3), 4, 7 and 20 more``."""
    first, *others = sorted(members)
    named = ", ".join([members[first].name, *map(str, others[: _NAMED - 1])])
    return named + (f" and {len(others) - _NAMED + 1} more" if len(others) >= _NAMED else "")


def findings_of(members: Mapping[int, Member], ranks: Iterable[int], own: Collection[str]) -> list[str]:
    """Return what these nodes have found wrong with themselves, each text once with its ranks.

    :param own: the head's findings; what it or a node that has joined has found, too, keeps no node from coming.
    """
    harmless = set(own).union(*(m.findings for m in members.values() if m.phase is Phase.JOINED))
    by_text: dict[str, dict[int, Member]] = {}
    for rank in ranks:
        for text in members[rank].findings if rank in members else ():
            if text not in harmless:
                by_text.setdefault(text, {})[rank] = members[rank]
    lines = [_about(found, text) for text, found in by_text.items()]
    more = len(lines) - _FINDINGS
    return lines if more <= 0 else [*lines[:_FINDINGS], f"and {more} more findings in the output of those nodes"]


class LateFindings:
    """The findings of nodes that do not become ready, each once."""

    def __init__(self, own: Collection[str]) -> None:
        self._own = own
        self._shown: set[str] = set()

    def new(self, members: Mapping[int, Member], ranks: Sequence[int], clock: float) -> list[str]:
        """Return the lines about nodes that have been in one phase for :data:`timeouts.LATE_RANK_S`.

        :param ranks: those that are not ready.
        :param clock: the event loop's time now.
        """
        late = [r for r in ranks if r in members and clock - members[r].since >= timeouts.LATE_RANK_S]
        lines = [line for line in findings_of(members, late, self._own) if line not in self._shown]
        self._shown.update(lines)
        return lines
