"""``ray-bootstrap check --run`` on the head: wait for all nodes, probe how they reach each other, print the matrix."""

import asyncio
import contextlib
from collections.abc import Callable

from bootstrap import timeouts
from bootstrap.errors import PreflightFailed, QuorumTimeout
from bootstrap.model import NodeIdentity, Phase, Verdict
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.run import quorum
from bootstrap.run.context import Context
from bootstrap.run.node_watch import NodeWatch, minimum_nodes
from bootstrap.run.pairs import matrix
from bootstrap.run.shutdown import CHECK

_PRINT_S = 5.0


async def check_all(run: Context, identity: NodeIdentity, watch: NodeWatch) -> Verdict:
    """Return the verdict on a check that found nothing.

    :raises QuorumTimeout: if nodes are missing after ``--quorum-timeout``, with their ranks.
    :raises PreflightFailed: if a pair of nodes does not reach each other.
    """
    run.enter(Phase.WAITING)
    await _all_present(run, identity, watch)
    probes = watch.probes
    run.log.say(f"all {len(probes.ranks)} nodes are here after {run.seconds:.1f} s; probing")
    probes.probe_workers_range()
    with contextlib.suppress(TimedOut):
        await wait_for(timeouts.PROBES_LAST_S, _until(watch, lambda: not probes.pairs.outstanding))
    probes.report()
    pairs, slow = probes.pairs, probes.pairs.slow()
    text = "\n".join([*matrix(pairs, probes.ranks), pairs.summary(), *slow]) + "\n"
    with contextlib.suppress(TimedOut, OSError):
        await run_in_thread(_PRINT_S, lambda: print(text, end="", flush=True))
    if pairs.bad or pairs.outstanding:
        late = f", {pairs.outstanding} probes without a result" if pairs.outstanding else ""
        culprit = pairs.culprit()
        what = f"{len(pairs.bad)} pairs of nodes do not reach each other{late}"
        raise PreflightFailed(
            "\n".join([what, *([culprit[1]] if culprit else [])]), hint="see the lines above for each pair"
        )
    return Verdict(0, f"all nodes are fit; {pairs.summary()}", CHECK)


async def _all_present(run: Context, identity: NodeIdentity, watch: NodeWatch) -> None:
    wanted = minimum_nodes(run.settings, identity)
    limit, probes = run.settings.quorum_timeout, watch.probes
    try:
        await wait_for(limit, _until(watch, lambda: len(probes.ranks) >= wanted))
    except TimedOut:
        there = probes.ranks
        missing = [rank for rank in range(wanted) if rank not in there]
        clock = asyncio.get_running_loop().time()
        lines = quorum.table(watch.roll_call.members, missing, clock)
        head = f"{len(there)} of {wanted} nodes after {limit:g} s"
        hint = "see the missing ranks' own output first; --quorum-timeout waits longer"
        raise QuorumTimeout("\n".join([head, *lines]), hint=hint) from None


async def _until(watch: NodeWatch, condition: Callable[[], bool]) -> None:
    changed = watch.probes.changed
    while not condition():
        changed.clear()
        await changed.wait()
