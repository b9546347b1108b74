"""Who is here, who is missing, and when the workload may start.

The truth is GCS's node table: alive nodes that carry this run's label, matched to ranks, with the GPUs that they were
asked to have. The roll call only explains it: how far a rank that is not in the table has got, and since when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bootstrap.errors import QuorumTimeout
from bootstrap.log import Log
from bootstrap.process.bounded import wait_for
from bootstrap.raynode.command import RANK_LABEL, RUN_LABEL
from bootstrap.rollcall.server import Member

_ASK_AGAIN = 1.0
"""Seconds after which GCS is asked even though no node said that it joined."""
_MANY, _REST = 100, 4
"""With more nodes GCS's table is long and changes often: it then has that many times an answer's length in peace."""
_STILL_WAITING = 30.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What the run needs before its workload starts."""

    run_hash: str
    size: int | None
    """Nodes asked for; None: as many as come, ``least`` at least."""
    least: int
    expect_gpus: int | None
    timeout: float
    last_call: float
    """Seconds to wait for the rest once ``least`` are there."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What GCS knows of one rank."""

    rank: int
    ip: str
    gpus: float


@dataclass(frozen=True, slots=True)
class Count:
    """The ranks that stand, and those that are in the table but have too few GPUs."""

    ready: Mapping[int, Presence]
    short: Mapping[int, Presence]


def count(nodes: Sequence[Mapping[str, Any]], goal: Goal) -> Count:
    """Match GCS's table to ranks; dead nodes and those of other runs do not count."""
    ready: dict[int, Presence] = {}
    short: dict[int, Presence] = {}
    for node in nodes:
        labels = node["labels"]
        if not node["alive"] or labels.get(RUN_LABEL) != goal.run_hash or not labels.get(RANK_LABEL, "").isdecimal():
            continue
        here = Presence(int(labels[RANK_LABEL]), node["ip"], float(node["resources"].get("GPU", 0)))
        lacking = goal.expect_gpus is not None and here.gpus < goal.expect_gpus
        (short if lacking else ready)[here.rank] = here
    return Count(ready, short)


async def wait(
    goal: Goal,
    ask: Callable[[], Awaitable[Mapping[str, Any]]],
    changed: asyncio.Event,
    members: Mapping[int, Member],
    log: Log,
) -> Count:
    """Wait until all nodes stand, or ``least`` of them ``last_call`` seconds after they do.

    :param ask: GCS's node table, as :mod:`bootstrap.raynode.child_main` answers.
    :param changed: set by the roll call when there may be news.
    :raises QuorumTimeout: naming who is missing, how far each got, and what to do.
    """
    loop = asyncio.get_running_loop()
    begin = told = loop.time()
    enough_since: float | None = None
    shown, now = "", Count({}, {})
    while True:
        changed.clear()
        asked = loop.time()
        answer = await _answer(ask, goal, begin)
        now = count(answer.get("nodes", ()), goal)
        rest = (loop.time() - asked) * _REST if len(members) > _MANY else 0.0
        there, clock = len(now.ready), loop.time()
        if there >= (goal.size or goal.least):
            return now
        if there >= goal.least:
            enough_since = enough_since or clock
            if clock - enough_since >= goal.last_call:
                return now
        if clock - begin >= goal.timeout:
            said = f"GCS does not tell its nodes: {answer['error']}\n" if "error" in answer else ""
            raise QuorumTimeout(said + _shortfall(goal, now, members, clock), hint=_remedy(goal, now, members))
        line = f"{there} of {goal.size or goal.least} nodes; {_missing_in_brief(goal, now, members)}"
        if line != shown or clock - told >= _STILL_WAITING:
            waited = f" after {clock - begin:.0f} s" if line == shown else ""
            log.progress(line + waited)
            shown, told = line, clock
        ends = [begin + goal.timeout, clock + _ASK_AGAIN]
        if enough_since is not None:
            ends.append(enough_since + goal.last_call)
        await asyncio.wait([changing := asyncio.ensure_future(changed.wait())], timeout=max(0.0, min(ends) - clock))
        changing.cancel()
        await asyncio.sleep(rest)


async def _answer(ask: Callable[[], Awaitable[Mapping[str, Any]]], goal: Goal, begin: float) -> Mapping[str, Any]:
    """GCS's answer. :raises QuorumTimeout: if it does not come before the time is up."""
    left = max(1.0, begin + goal.timeout - asyncio.get_running_loop().time())
    try:
        return await wait_for(left, ask())
    except asyncio.TimeoutError:
        raise QuorumTimeout(
            f"GCS on this node timed out after {left:.0f} s", hint="its log is below Ray's logs, in the last line"
        ) from None


def missing(goal: Goal, now: Count) -> list[int]:
    """Ranks that do not stand; where nobody said how many there are, those up to the least."""
    return [rank for rank in range(goal.size or goal.least) if rank not in now.ready]


def _missing_in_brief(goal: Goal, now: Count, members: Mapping[int, Member]) -> str:
    def how_far(rank: int) -> str:
        if rank in now.short:
            return f"{rank} ({now.short[rank].gpus:g} of {goal.expect_gpus} GPUs)"
        return (
            f"{rank} ({members[rank].hello.host}: {members[rank].phase})" if rank in members else f"{rank} (not seen)"
        )

    ranks = missing(goal, now)
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return "waiting for rank " + ", ".join(how_far(rank) for rank in ranks[:8]) + more


def table(members: Mapping[int, Member], ranks: Sequence[int], clock: float) -> list[str]:
    """One line per rank: host, address, last phase, how long ago, and what it said."""
    lines = []
    for rank in ranks:
        if (member := members.get(rank)) is None:
            lines.append(f"rank {rank}: never seen")
            continue
        where = f"{member.hello.host} ({member.hello.ip})"
        said = f": {member.detail}" if member.detail else ""
        lines.append(f"rank {rank}: {where} {member.phase} {clock - member.since:.0f} s ago{said}")
    return lines


def _shortfall(goal: Goal, now: Count, members: Mapping[int, Member], clock: float) -> str:
    ranks = missing(goal, now)
    joined = ", ".join(map(str, sorted(now.ready))) or "none"
    head = f"{len(now.ready)} of {goal.least} nodes after {goal.timeout:g} s; joined: rank {joined}"
    lines = table(members, ranks[:32], clock)
    for position, rank in enumerate(ranks[:32]):
        if rank in now.short:
            gpus, ip = now.short[rank].gpus, now.short[rank].ip
            lines[position] = f"rank {rank}: {ip} has {gpus:g} GPUs, {goal.expect_gpus} expected"
    return "\n".join([head, *lines])


def _remedy(goal: Goal, now: Count, members: Mapping[int, Member]) -> str:
    ranks = missing(goal, now)
    if any(rank in now.short for rank in ranks):
        return "run `ray-bootstrap detect` on the nodes that are short of GPUs, or lower --expect-gpus"
    if all(rank not in members for rank in ranks):
        return (
            "the missing ranks never reached this head: look at their own output first (`kubectl get pods`, `squeue`);"
            " if they run, --head-address, the network policy or --rollcall-port; --min-nodes starts with fewer"
        )
    return "see what the missing ranks say above and in their own output; --quorum-timeout waits longer"
