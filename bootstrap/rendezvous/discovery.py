"""A worker's search for its head: the rendezvous names candidates, the roll call checks them, tenacity retries.

Also a head's search for another head of its run.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from bootstrap import net, timeouts
from bootstrap.errors import BootstrapError, HeadNotFound, IdentityError, Refused
from bootstrap.files.secret import NO_SECRET, Secret, check_required
from bootstrap.log import Log
from bootstrap.model import HeadAddress
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.refusal import NotThisHead
from bootstrap.settings import Settings

_LOOKS_PER_SECOND = 1000
"""Limit for all nodes of a large run together, to spare the file server or the name server."""
_SHOWN = 6
"""Maximum number of candidates in a message."""


async def find_head(
    settings: Settings, rendezvous: Rendezvous, hello: Hello, given: Secret, timeout: float, log: Log
) -> Membership:
    """Search for the head; return the membership in its roll call, with the secret that both know.

    :param given: the secret that this node was given, or the channel through which it comes.
    :param timeout: seconds to search.
    :raises HeadNotFound: after ``timeout`` seconds, with what was found instead; also if the rendezvous hangs.
    :raises IdentityError, Refused: if the head refuses this node.
    """
    import tenacity  # noqa: PLC0415 (its 30 ms must not delay the starter)

    cap = max(timeouts.LOOK_AGAIN_S, (hello.size or 0) / _LOOKS_PER_SECOND)
    seen: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    begin = reported = loop.time()
    search = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(NotThisHead),
        wait=tenacity.wait_exponential(multiplier=timeouts.FIRST_LOOK_AGAIN_S, max=cap)
        + tenacity.wait_random(0, cap / 4),
        stop=tenacity.stop_after_delay(timeout),
        reraise=False,
    )
    try:
        async for attempt in search:
            with attempt:
                if loop.time() - reported > timeouts.STILL_LOOKING_S:
                    reported = loop.time()
                    log.say(f"still looking for the head after {reported - begin:.0f} s: {_in_brief(seen)}")
                left = max(timeouts.LAST_LOOK_S, begin + timeout - loop.time())
                return await _look_and_join(settings, rendezvous, hello, given, left, seen)
    except tenacity.RetryError:
        pass
    raise HeadNotFound(
        f"no head of run {hello.run!r}, attempt {hello.attempt}, found within {timeout:g} s: {_in_brief(seen)}",
        hint="see the output of rank 0 first; --head-address=HOST names the head, --head-timeout waits longer",
    )


async def _look_and_join(
    settings: Settings, rendezvous: Rendezvous, hello: Hello, given: Secret, seconds: float, seen: dict[str, str]
) -> Membership:
    """Look once and join the head if it is there; return the membership.

    :param seen: receives what was found instead.
    :raises NotThisHead: if no candidate is the head of this run.
    :raises UsageError: if ``--auth=required`` and the nodes have no way to share a secret.
    """
    lookup = await _look(rendezvous, seconds)
    seen.clear()
    seen.update(dict.fromkeys(lookup.ignored, "ignored"))
    check_required(given, settings)
    secret = replace(given, value=lookup.secret) if given.value is None and given.is_in_record else given
    try:
        return await _join_one_of(lookup.candidates, hello, secret, settings.heartbeat_timeout, seen)
    except Refused:
        # The record may have been an earlier head's, or reach this node later than the head's answer.
        if secret.value is None and secret.is_in_record and await _secret_appears(rendezvous):
            raise NotThisHead from None
        raise


async def _secret_appears(rendezvous: Rendezvous) -> bool:
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeouts.RECORD_LATE_S
    while clock() < deadline:
        await asyncio.sleep(timeouts.LOOK_AGAIN_S)
        if (await _look(rendezvous, timeouts.CANDIDATE_S)).secret is not None:
            return True
    return False


async def _look(rendezvous: Rendezvous, seconds: float) -> Lookup:
    """Look once. :raises HeadNotFound: if the rendezvous does not answer, such as a network file system that hangs."""
    try:
        return await run_in_thread(seconds, rendezvous.lookup)
    except TimedOut:
        raise HeadNotFound(
            f"looking for the head: {rendezvous.place} timed out after {seconds:.0f} s",
            hint="check that folder with `ls`, or the name server; --head-address=HOST names the head",
        ) from None


async def _join_one_of(
    candidates: Sequence[HeadAddress], hello: Hello, secret: Secret, heartbeat_timeout: float, seen: dict[str, str]
) -> Membership:
    """Greet all candidates at once and join the first that is this run's head.

    :param seen: receives what each of the others was instead.
    :raises NotThisHead: if none is this run's head.
    :raises IdentityError, Refused: if none accepts this node and a head of this run refuses it.
    """
    tries = [asyncio.ensure_future(_greet(hello, secret, heartbeat_timeout, head)) for head in candidates]
    refusal: BootstrapError | None = None
    found: Membership | None = None
    try:
        # Greet all at once, since one that drops packets takes the whole time-out; join only one, since two addresses
        # may belong to the same head.
        for greeting in asyncio.as_completed(tries):
            try:
                membership = await greeting
                await _enrol(membership)
                found = membership
                return found
            except NotThisHead as answer:
                seen[str(answer.args[0])] = str(answer.args[-1])
            except (IdentityError, Refused) as answer:
                refusal = answer
    finally:
        for task in tries:
            if not task.cancel() and not task.cancelled() and task.exception() is None and task.result() is not found:
                task.result().close()
    if refusal is not None:
        raise refusal
    raise NotThisHead


async def _greet(hello: Hello, secret: Secret, heartbeat_timeout: float, head: HeadAddress) -> Membership:
    membership = Membership(hello, secret, heartbeat_timeout)
    try:
        await membership.greet(head, timeouts.CANDIDATE_S)
    except NotThisHead as answer:
        raise NotThisHead(head, str(answer)) from None
    return membership


async def _enrol(membership: Membership) -> None:
    try:
        await membership.enrol(timeouts.CANDIDATE_S)
    except Refused:
        if membership.secrets_differ and membership.secret.is_in_record:
            # The head has just replaced another one, whose record we read.
            raise NotThisHead("the head", "its secret differs from the one in its record") from None
        raise


def _in_brief(seen: dict[str, str]) -> str:
    if not seen:
        return "no address was found"
    return "; ".join(f"{where}: {what}" for where, what in list(seen.items())[:_SHOWN])


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
