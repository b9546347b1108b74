"""Which nodes are ready, which are missing, and when the workload may start.

GCS's node table decides: a rank is ready if an alive node carries its label and this run's, and has the expected
resources. The roll call only explains a missing rank: its last phase, and since when.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bootstrap import timeouts
from bootstrap.errors import QuorumTimeout
from bootstrap.files.secret import FIX_MISMATCH
from bootstrap.launchers.events import Causes
from bootstrap.log import Log
from bootstrap.model import HeadAddress, Role
from bootstrap.node import by_role
from bootstrap.node.by_role import in_words
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.raynode import endings
from bootstrap.raynode.command import RANK_LABEL, RUN_LABEL
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.rejections import Rejections, Standing
from bootstrap.run.causes import UnseenCauses
from bootstrap.run.notices import LateFindings, findings_of, listed
from bootstrap.settings import Settings

Ask = Callable[[], Awaitable[Mapping[str, Any]]]
_MANY_NODES, _REST = 100, 4
"""With more nodes, pause between queries for that many times as long as the last one took: GCS's table is long then."""
_SHOWN = 32
"""Maximum number of missing ranks in the final error."""
_REJECTED_SHOWN = 5
"""Maximum number of rejected connections in the message of a time-out."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the run needs before its workload starts."""

    run_hash: str
    size: int | None
    """Number of nodes in the run; None if unknown: ``minimum`` or more."""
    minimum: int
    settings: Settings
    """The source of what is expected of each node, of ``quorum_timeout`` and of ``last_call``."""
    look: Callable[[Sequence[int], Sequence[str]], str] = lambda ranks, _hosts: f"look at rank {ranks}"
    """Returns what to type to look at these ranks, with the names of their hosts as far as they are known."""
    listens: str = ""
    """Where the head's roll call listens, in words, for when no node has reached it."""
    own_findings: Collection[str] = ()
    """The head's warnings from its preflight."""
    why: Callable[[], Causes] | None = None
    """Finds out why nodes were never seen, if the launcher can tell; it may block, and raises an OSError."""

    def expected(self, rank: int) -> Mapping[str, float]:
        """Return how much of which resource the node with this rank must offer."""
        return by_role.expected(by_role.settings_of(self.settings, Role.WORKER if rank else Role.HEAD))


@dataclass(frozen=True, slots=True)
class Presence:
    """What GCS knows about one rank."""

    rank: int
    ip: str
    resources: Mapping[str, float]
    lacking: Mapping[str, float]
    """What is expected, of the resources of which it has less."""

    def shortfall(self) -> Iterator[tuple[str, float, float]]:
        """Yield each resource of which there is less than expected: its name, how much there is, and is expected."""
        return ((name, self.resources.get(name, 0.0), wanted) for name, wanted in self.lacking.items())


@dataclass(frozen=True, slots=True)
class Count:
    """The ranks in GCS's table."""

    ready: Mapping[int, Presence]
    underprovisioned: Mapping[int, Presence]
    """Ranks with less of a resource than expected."""

    @property
    def gpus(self) -> float:
        """Return the number of GPUs of all ready nodes."""
        return sum(presence.resources.get("GPU", 0.0) for presence in self.ready.values())


def count(nodes: Sequence[Mapping[str, Any]], goal: Goal) -> Count:
    """Match GCS's table to ranks, without dead nodes and those of other runs, and return the count."""
    ready: dict[int, Presence] = {}
    underprovisioned: dict[int, Presence] = {}
    for node in nodes:
        labels = node["labels"]
        if not node["alive"] or labels.get(RUN_LABEL) != goal.run_hash or not labels.get(RANK_LABEL, "").isdecimal():
            continue
        rank, has = int(labels[RANK_LABEL]), node["resources"]
        lacking = {name: wanted for name, wanted in goal.expected(rank).items() if has.get(name, 0) < wanted}
        (underprovisioned if lacking else ready)[rank] = Presence(rank, node["ip"], has, lacking)
    return Count(ready, underprovisioned)


async def wait(goal: Goal, ask: Ask, changed: asyncio.Event, members: Mapping[int, Member], log: Log) -> Count:
    """Wait until all nodes are ready, or until ``last_call`` seconds after ``minimum`` of them are; return the count.

    :param ask: returns GCS's node table.
    :param changed: set by the roll call when the table may have changed.
    :raises QuorumTimeout: naming the missing ranks, how far each got, and what to do.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time()
    enough_since: float | None = None
    waiting = _Waiting(goal, members, log, begin)
    while True:
        changed.clear()
        asked = loop.time()
        answer = await _answer(ask, goal, begin)
        now = count(answer.get("nodes", ()), goal)
        rest = (loop.time() - asked) * _REST if len(members) > _MANY_NODES else 0.0
        there, clock = len(now.ready), loop.time()
        if there >= goal.minimum:
            enough_since = enough_since or clock
            if there >= (goal.size or goal.minimum) or clock - enough_since >= goal.settings.last_call:
                return now
        if clock - begin >= goal.settings.quorum_timeout:
            fault = f"GCS does not list its nodes: {answer['error']}\n" if "error" in answer else ""
            what = fault + _shortfall(goal, now, members, clock, waiting.causes)
            raise QuorumTimeout(what, hint=_remedy(goal, now, members, waiting.causes))
        waiting.say(now, clock)
        ends = [begin + goal.settings.quorum_timeout, clock + timeouts.ASK_GCS_AGAIN_S]
        if enough_since is not None:
            ends.append(enough_since + goal.settings.last_call)
        await asyncio.wait([changing := asyncio.ensure_future(changed.wait())], timeout=max(0.0, min(ends) - clock))
        changing.cancel()
        await asyncio.sleep(rest)


class _Waiting:
    """Logs which ranks are missing: at each change, after a while with what they say of themselves."""

    def __init__(self, goal: Goal, members: Mapping[int, Member], log: Log, begin: float) -> None:
        self._goal, self._members, self._log, self._begin = goal, members, log, begin
        self._said, self._said_at = "", begin
        self._findings = LateFindings(goal.own_findings)
        self._looked = False
        self.causes = UnseenCauses(goal.why, log, begin)

    def say(self, now: Count, clock: float) -> None:
        goal, members = self._goal, self._members
        there = f"{len(now.ready)} of {goal.size or goal.minimum} nodes"
        line = f"{there}; {_missing_in_brief(goal, now, members)}"
        if changed := line != self._said:
            self._log.progress(line)
        elif again := clock - self._said_at >= timeouts.STILL_LOOKING_S:
            details = _missing_in_brief(goal, now, members, details=True)
            waited = clock - self._begin
            listens = goal.listens if not members and waited >= timeouts.UNSEEN_S else ""
            self._log.progress("; ".join(filter(None, [there, f"{details} after {waited:.0f} s", listens])))
        if changed or again:
            self._said, self._said_at = line, clock
        unseen = [rank for rank in missing(goal, now) if rank not in members]
        self.causes.look(unseen, clock)
        if clock - self._begin >= timeouts.UNSEEN_S and not self._looked:
            self._looked = True
            if unseen:
                what = f"rank {listed(unseen)} never seen after {clock - self._begin:.0f} s"
                self._log.warn(f"{what}; fix: {goal.look(unseen, [])}")
        for finding in self._findings.new(members, missing(goal, now), clock):
            self._log.warn(finding)


async def _answer(ask: Ask, goal: Goal, begin: float) -> Mapping[str, Any]:
    """Return GCS's answer. :raises QuorumTimeout: if it does not arrive in time."""
    left = max(1.0, begin + goal.settings.quorum_timeout - asyncio.get_running_loop().time())
    try:
        return await wait_for(left, ask())
    except TimedOut:
        raise QuorumTimeout(
            f"GCS on this node timed out after {left:.0f} s", hint="see gcs_server.out in Ray's logs (last line)"
        ) from None


def missing(goal: Goal, now: Count) -> list[int]:
    """Return the ranks that are not ready; if the run's size is unknown, only those below the minimum."""
    return [rank for rank in range(goal.size or goal.minimum) if rank not in now.ready]


def _missing_in_brief(goal: Goal, now: Count, members: Mapping[int, Member], *, details: bool = False) -> str:
    def how_far(rank: int) -> str:
        if rank in now.underprovisioned:
            short = now.underprovisioned[rank].shortfall()
            return f"{rank} ({', '.join(f'{has:.12g} of {in_words(name, wanted)}' for name, has, wanted in short)})"
        if rank in members:
            detail = members[rank].detail if details else ""
            return f"{rank} ({': '.join(filter(None, [members[rank].hello.host, members[rank].phase.value, detail]))})"
        return f"{rank} (not seen)"

    return f"waiting for rank {listed([how_far(rank) for rank in missing(goal, now)])}"


def table(
    members: Mapping[int, Member], ranks: Sequence[int], clock: float, causes: UnseenCauses | None = None
) -> list[str]:
    """Return one line per rank: host, address, last phase, how long ago, and why.

    :param clock: the event loop's time now.
    :param causes: why ranks that were never seen have not come.
    """
    lines = []
    for rank in ranks:
        if (member := members.get(rank)) is None:
            lines.append(": ".join(filter(None, [f"rank {rank}: never seen", causes.of(rank) if causes else ""])))
            continue
        where = f"{member.hello.host} ({member.hello.ip})"
        detail = f": {member.detail}" if member.detail else ""
        lines.append(f"rank {rank}: {where} {member.phase.value} {clock - member.since:.0f} s ago{detail}")
    return lines


def _shortfall(goal: Goal, now: Count, members: Mapping[int, Member], clock: float, causes: UnseenCauses) -> str:
    ranks = missing(goal, now)
    joined = ", ".join(map(str, sorted(now.ready))) or "none"
    head = f"{len(now.ready)} of {goal.minimum} nodes after {goal.settings.quorum_timeout:g} s; joined: rank {joined}"
    lines = table(members, ranks[:_SHOWN], clock, causes)
    for position, rank in enumerate(ranks[:_SHOWN]):
        if rank in now.underprovisioned:
            here = now.underprovisioned[rank]
            short = (f"{in_words(name, has)}, {wanted:.12g} expected" for name, has, wanted in here.shortfall())
            lines[position] = f"rank {rank}: {here.ip} has {'; '.join(short)}"
    listens = [goal.listens] if goal.listens and not members else []
    return "\n".join([head, *lines, *listens, *findings_of(members, ranks, goal.own_findings)])


def _remedy(goal: Goal, now: Count, members: Mapping[int, Member], causes: UnseenCauses) -> str:
    ranks = missing(goal, now)
    if lacking := {name for rank, short in now.underprovisioned.items() if rank in ranks for name in short.lacking}:
        return by_role.remedy(sorted(lacking), goal.settings)
    unseen = [rank for rank in ranks if rank not in members]
    slow = [rank for rank in ranks if rank in members]
    known = (members[rank].hint or endings.remedy_of(members[rank].detail) for rank in slow)
    if cause := next(filter(None, known), ""):
        return cause
    if slow:
        gone = [rank for rank in slow if members[rank].phase.is_loss]
        look = goal.look(gone or slow, [members[rank].hello.host for rank in gone or slow])
        return look if gone else f"{look}; --quorum-timeout waits longer"
    if all(map(causes.of, unseen)):
        return f"mend what keeps them from starting: {goal.look(unseen, [])}; --min-nodes starts with fewer"
    return (
        f"the missing ranks never reached this head: {goal.look(unseen, [])}; if they run, check there the way to it:"
        " `getent hosts HEAD`, `ip route get ADDRESS`, `nft list ruleset` (in Kubernetes the NetworkPolicy),"
        " --head-address and --rollcall-port; --min-nodes starts with fewer"
    )


def describe_address(address: HeadAddress) -> str:
    """Return where the roll call listens, and at which other addresses it may be reached."""
    others = ", ".join(address.others)
    more = f"; its other addresses: {others} (--node-ip, --interface)" if others else ""
    return f"no node has joined this head, whose roll call listens at {address}{more}"


def with_rejected(error: QuorumTimeout, rejections: Rejections, now: float) -> QuorumTimeout:
    """Return the error extended by the rejected connections: those that are most likely this run's, then others.

    :param now: the event loop's time.
    """
    if not (groups := rejections.ranked):
        return error
    lines = ["rejected:", *(group.line(now) for group in groups[:_REJECTED_SHOWN])]
    if len(groups) > _REJECTED_SHOWN:
        lines.append(f"and {len(groups) - _REJECTED_SHOWN} more peers or causes")
    hint = error.hint
    if any(group.kind == "secret" for group in groups):
        hint = FIX_MISMATCH
    elif groups[0].kind == "unfit":
        hint = f"mend what {groups[0].peer} says of itself, if that is a node of this run"
    elif any(group.standing < Standing.UNPROVED for group in groups):
        hint = f"first check whether the rejected connections are this run's; then {error.hint}"
    return QuorumTimeout("\n".join([error.message, *lines]), hint=hint)
