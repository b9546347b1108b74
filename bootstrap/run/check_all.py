"""``ray-bootstrap check --run`` on the head: wait for all nodes, probe how they reach each other, print the matrix."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

from bootstrap import timeouts
from bootstrap.errors import PreflightFailed, QuorumTimeout
from bootstrap.launchers.look import finds_causes, how_to_look
from bootstrap.model import NodeIdentity, Phase, Verdict
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.run import quorum
from bootstrap.run.causes import UnseenCauses
from bootstrap.run.context import Context
from bootstrap.run.node_watch import NodeWatch, minimum_nodes
from bootstrap.run.pairs import Pairs
from bootstrap.run.shutdown import CHECK

_WHOLE = 16
"""Nodes up to which the matrix has a row for each."""


async def check_all(run: Context, identity: NodeIdentity, watch: NodeWatch) -> Verdict:
    """Return the verdict on a check that found nothing.

    :raises QuorumTimeout: if nodes are missing after ``--quorum-timeout``, with their ranks and the rejected
        connections.
    :raises PreflightFailed: if a pair of nodes does not reach each other, or a node is lost.
    """
    run.enter(Phase.WAITING)
    await _all_present(run, identity, watch)
    watch.quorum_reached = True  # the verdict waits for no other node
    # All that have come: one may have said in the next moment that it is unfit.
    probes, members = watch.probes, watch.roll_call.members
    ranks = [0, *sorted(members)]
    if len(ranks) > 1:
        run.log.say(f"all {len(ranks)} nodes are here after {run.seconds:.1f} s; probing")
    probes.probe_workers_range()
    with contextlib.suppress(TimedOut):
        await wait_for(timeouts.PROBES_LAST_S, _until(watch, lambda: not probes.pairs.outstanding))
    probes.report()
    pairs, slow = probes.pairs, probes.pairs.slow()
    text = "\n".join([*matrix(pairs, ranks), pairs.summary(), *slow]) + "\n"
    with contextlib.suppress(TimedOut, OSError):
        await run_in_thread(timeouts.LOG_FLUSH_S, lambda: print(text, end="", flush=True))
    gone = [members[rank] for rank in ranks[1:] if rank not in probes.ranks]
    faults = [f"{member.name} was lost during the check: {member.phase.value}: {member.detail}" for member in gone]
    if pairs.bad:
        faults.append(f"{len(pairs.bad)} pairs of nodes do not reach each other")
    if pairs.outstanding:
        faults.append(f"{pairs.outstanding} probes have no result after {timeouts.PROBES_LAST_S:g} s")
    if faults:
        culprit = pairs.culprit()
        raise PreflightFailed("\n".join([*faults, *([culprit[1]] if culprit else [])]), hint="see the pairs above")
    return Verdict(0, f"all nodes are fit; {pairs.summary()}", CHECK)


async def _all_present(run: Context, identity: NodeIdentity, watch: NodeWatch) -> None:
    wanted = identity.size or minimum_nodes(run.settings, identity)
    limit, probes = run.settings.quorum_timeout, watch.probes
    clock = asyncio.get_running_loop().time
    end = clock() + limit
    causes = UnseenCauses(finds_causes(identity.launcher, run.host), run.log, clock())
    while True:
        with contextlib.suppress(TimedOut):
            await wait_for(
                min(timeouts.STILL_LOOKING_S, end - clock()), _until(watch, lambda: len(probes.ranks) >= wanted)
            )
            return
        missing = [rank for rank in range(wanted) if rank not in probes.ranks]
        members = watch.roll_call.members
        causes.look([rank for rank in missing if rank not in members], clock())
        lines = quorum.table(members, missing, clock(), causes)
        there = f"{len(probes.ranks)} of {wanted} nodes"
        if clock() >= end:
            hint = f"{how_to_look(identity.launcher, run.host, missing)}; --quorum-timeout waits longer"
            error = QuorumTimeout("\n".join([f"{there} after {limit:g} s", *lines]), hint=hint)
            raise quorum.with_rejected(error, watch.roll_call.rejections, clock())
        run.log.say("\n".join([there, *lines]))


async def _until(watch: NodeWatch, condition: Callable[[], bool]) -> None:
    changed = watch.probes.changed
    while not condition():
        changed.clear()
        await changed.wait()


def matrix(pairs: Pairs, ranks: Sequence[int]) -> Iterator[str]:
    """Yield the lines of a table: a row for each node that probes, a column for each that is probed.

    With more than :data:`_WHOLE` nodes, a line for each bad pair instead.
    """
    if len(ranks) > _WHOLE:
        for source, to in sorted(pairs.bad):
            yield f"{pairs.name(source)} -> {pairs.name(to)}: {_cell(pairs, source, to)}"
        return
    rows = [["from \\ to", *map(str, ranks)]]
    rows += [[_row_name(pairs, source), *(_cell(pairs, source, to) for to in ranks)] for source in ranks]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row_name(pairs: Pairs, rank: int) -> str:
    place = pairs.places.get(rank)
    return f"{rank} {place.host}" if place else str(rank)


def _cell(pairs: Pairs, source: int, to: int) -> str:
    if source == to:
        return "."
    found = [outcome for (a, b, _), outcome in pairs.outcomes.items() if (a, b) == (source, to)]
    failed = [outcome for outcome in found if outcome.error]
    if not failed:
        return "ok" if found else "-"
    if failed[0].stalled:
        return "MTU"
    return next(
        (word for word in ("no answer", "no route", "refused", "unreachable") if word in failed[0].error), "failed"
    )
