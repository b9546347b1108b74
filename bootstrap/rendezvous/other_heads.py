"""Other heads: the search for one of this run, before a head listens and after its record; its own sign of life."""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

from bootstrap import net, timeouts
from bootstrap.errors import IdentityError, Refused
from bootstrap.files.secret import NO_SECRET
from bootstrap.model import HeadAddress
from bootstrap.process.bounded import Call, TimedOut, run_in_thread
from bootstrap.rendezvous.protocol import FileRecord, Rendezvous
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.refusal import NotThisHead


async def check_no_other_head(rendezvous: Rendezvous, me: Hello) -> None:
    """Check that the rendezvous shows no other head of this run; skip the check if it does not answer in time.

    Call it before this node listens or writes a record, so that any head that answers is another one.

    :raises IdentityError: naming the other head.
    """

    def look() -> Sequence[HeadAddress]:
        candidates = rendezvous.lookup().candidates
        # Without a record, the candidates include this node's own address.
        return _elsewhere(candidates) if rendezvous.record is None else candidates

    with contextlib.suppress(TimedOut):
        await _refuse_two(await run_in_thread(timeouts.CANDIDATE_S, look), me)


async def check_still_head(rendezvous: Rendezvous, me: Hello, own: HeadAddress) -> None:
    """Check that no other head has replaced this one's record; return at once if the rendezvous has no record.

    Two heads that start at the same moment both pass :func:`check_no_other_head`; the later record wins.

    :raises IdentityError: naming the other head.
    """
    if rendezvous.record is None:
        return
    with contextlib.suppress(TimedOut):
        lookup = await run_in_thread(timeouts.CANDIDATE_S, rendezvous.lookup)
        await _refuse_two([head for head in lookup.candidates if (head.host, head.port) != (own.host, own.port)], me)


def _elsewhere(heads: Sequence[HeadAddress]) -> Sequence[HeadAddress]:
    """Return the heads on other machines, without those whose names do not resolve."""
    own = net.own_addresses()
    addresses = {host: net.resolve(host) for host in {head.host for head in heads}}
    return [head for head in heads if addresses[head.host] and own.isdisjoint(addresses[head.host])]


async def _refuse_two(heads: Sequence[HeadAddress], me: Hello) -> None:
    answers = await asyncio.gather(*map(partial(_leads, me), heads))
    for head, leads in zip(heads, answers, strict=True):
        if leads:
            raise IdentityError(
                f"rank 0 of run {me.run!r} is claimed by two nodes: {head} already leads it",
                hint="give each node its own --rank and each run its own --run-id, or wait for the other run to end",
            )


async def _leads(me: Hello, head: HeadAddress) -> bool:
    """Return whether a head of this run answers at that address, whatever its secret."""
    membership = Membership(me, NO_SECRET, timeouts.CANDIDATE_S)
    try:
        await membership.greet(head, timeouts.OTHER_HEAD_S)
    except NotThisHead:
        return False
    except Refused:
        return True
    finally:
        membership.close()
    return True


def keep_fresh(record: FileRecord) -> None:
    """Renew the time of the head's record every :data:`timeouts.RECORD_REFRESH_S`, in threads: its folder may hang."""
    loop = asyncio.get_running_loop()

    def again() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(keep_fresh, record)

    loop.call_later(timeouts.RECORD_REFRESH_S, lambda: Call(record.refresh, again))
