"""A worker's search for its head: the rendezvous names candidates, the roll call checks them, tenacity retries."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from bootstrap import timeouts
from bootstrap.errors import BootstrapError, HeadNotFound, IdentityError, Refused
from bootstrap.files.secret import Secret, check_required
from bootstrap.log import Log
from bootstrap.model import HeadAddress
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.rendezvous.around import RANK_0, Surroundings, Trail
from bootstrap.rendezvous.ending import End, RunEnded
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.head_connection import HeadConnection
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.refusal import NotThisHead
from bootstrap.settings import Settings

C = TypeVar("C", bound=HeadConnection[Any])
_LOOKS_PER_SECOND = 1000
"""Limit for all nodes of a large run together, to spare the file server or the name server."""


async def find_head(
    settings: Settings, rendezvous: Rendezvous, hello: Hello, given: Secret, timeout: float, log: Log
) -> Membership:
    """Search for the head; return the membership in its roll call, with the secret that both know.

    :param given: the secret that this node was given, or the channel through which it comes.
    :param timeout: seconds to search.
    :raises HeadNotFound: after ``timeout`` seconds, with what was found instead; also if the rendezvous hangs.
    :raises IdentityError, Refused: if the head refuses this node.
    :raises RunEnded: if the head has ended before, and has left its verdict.
    """
    import tenacity  # noqa: PLC0415 (its 30 ms must not delay the starter)

    cap = max(timeouts.LOOK_AGAIN_S, (hello.size or 0) / _LOOKS_PER_SECOND)
    loop = asyncio.get_running_loop()
    trail = Trail(hello.run, loop.time())
    report_at = trail.begin + timeouts.FIRST_REPORT_S
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
                if loop.time() > report_at:
                    report_at = loop.time() + timeouts.STILL_LOOKING_S
                    found = await _look_around(rendezvous, trail)
                    what = f"still looking for the head after {loop.time() - trail.begin:.0f} s: {trail.in_brief()}"
                    log.say(_joined(what, found.what) + f"; fix: {found.fix}")
                left = max(timeouts.LAST_LOOK_S, trail.begin + timeout - loop.time())
                return await _look_and_join(settings, rendezvous, hello, given, left, trail, log)
    except tenacity.RetryError:
        pass
    found = await _look_around(rendezvous, trail)
    what = f"no head of run {hello.run!r}, attempt {hello.attempt}, found within {timeout:g} s: {trail.in_brief()}"
    raise HeadNotFound(_joined(what, found.what), hint=f"{found.fix}; --head-timeout waits longer")


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


async def _look_around(rendezvous: Rendezvous, trail: Trail) -> Surroundings:
    """Return what there is where the head was expected."""
    now = asyncio.get_running_loop().time()
    try:
        return await run_in_thread(timeouts.SURVEY_S, lambda: trail.describe(rendezvous.survey(), now))
    except (OSError, TimedOut) as error:
        what = str(error) or f"{rendezvous.place} did not answer within {timeouts.SURVEY_S:g} s"
        return trail.describe(Surroundings(what, RANK_0), now)


async def _look_and_join(
    settings: Settings, rendezvous: Rendezvous, hello: Hello, given: Secret, seconds: float, trail: Trail, log: Log
) -> Membership:
    """Look once and join the head if it is there; return the membership.

    :param trail: receives what was found instead.
    :raises NotThisHead: if no candidate is the head of this run.
    :raises UsageError: if ``--auth=required`` and the nodes have no way to share a secret.
    """
    lookup = await _look(rendezvous, seconds)
    trail.note(lookup.candidates, lookup.faults, asyncio.get_running_loop().time())
    check_required(given, settings)
    secret = replace(given, value=lookup.secret) if given.value is None and given.is_in_record else given
    try:
        make = partial(Membership, hello, secret, settings.heartbeat_timeout)
        joining = join_one_of(lookup.candidates, make, trail.seen)
        if lookup.ended is None:
            membership, head = await joining
        else:
            membership, head = await _unless_ended(joining, rendezvous, lookup.ended, trail.begin)
    except Refused:
        # The record may have been an earlier head's, or reach this node later than the head's answer.
        if secret.value is None and secret.is_in_record and await _secret_appears(rendezvous):
            raise NotThisHead from None
        raise
    if head.instead_of:
        _warn_of_other_address(membership, head, log)
    return membership


def _warn_of_other_address(membership: Membership, head: HeadAddress, log: Log) -> None:
    what = (
        f"this node reaches the head only at {head.host}, not at its node address {head.instead_of}, which Ray uses;"
        f" fix: --node-ip={head.host}, or --interface= with its name, on the head; or a route to {head.instead_of}"
    )
    log.warn(what)
    membership.report_finding(f"head-address: {what}")


async def _unless_ended(
    joining: Coroutine[Any, Any, tuple[Membership, HeadAddress]], rendezvous: Rendezvous, end: End, since: float
) -> tuple[Membership, HeadAddress]:
    """Join a live head after all, or believe the record of the end.

    :param since: when the search began, on the event loop's clock.
    :raises RunEnded: once the search has lasted for :data:`timeouts.END_BELIEVED_S`: a new head with the same run id
        replaces the record.
    """
    try:
        # Addresses of a machine that is gone may answer nothing, for longer than this node is to look.
        return await wait_for(timeouts.END_BELIEVED_S, joining)
    except (TimedOut, NotThisHead):
        if asyncio.get_running_loop().time() - since < timeouts.END_BELIEVED_S:
            raise NotThisHead from None
    record = rendezvous.record or rendezvous.secret_record
    if record is not None:
        with contextlib.suppress(OSError, TimedOut):
            await run_in_thread(timeouts.CANDIDATE_S, lambda: record.take(end))
    raise RunEnded(end.verdict_there())


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


async def join_one_of(
    candidates: Sequence[HeadAddress], make: Callable[[], C], seen: dict[str, str]
) -> tuple[C, HeadAddress]:
    """Greet all candidates at once and join the first that is this run's head; return the address, too.

    :param make: makes a connection that has yet to be opened: a membership or an observer.
    :param seen: receives what each of the others was instead.
    :raises NotThisHead: if none is this run's head.
    :raises IdentityError, Refused: if none accepts this node and a head of this run refuses it.
    """
    first = [asyncio.ensure_future(_greet(make(), head)) for head in candidates]
    others = [
        replace(head, host=other, others=(), instead_of=head.host) for head in candidates for other in head.others
    ]
    tries = [*first, *(asyncio.ensure_future(_greet(make(), each, first)) for each in others)]
    refusal: BootstrapError | None = None
    found: C | None = None
    try:
        # Greet all at once, since one that drops packets takes the whole time-out; join only one, since two addresses
        # may belong to the same head.
        for greeting in asyncio.as_completed(tries):
            try:
                connection, head = await greeting
                await _enrol(connection)
                found = connection
                return connection, head
            except NotThisHead as answer:
                seen[str(answer.args[0])] = str(answer.args[-1])
            except (IdentityError, Refused) as answer:
                refusal = answer
    finally:
        for task in tries:
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                connection, _ = task.result()
                if connection is not found:
                    connection.close()
    if refusal is not None:
        raise refusal
    raise NotThisHead


async def _greet(
    connection: C, head: HeadAddress, first: Sequence[asyncio.Future[tuple[C, HeadAddress]]] = ()
) -> tuple[C, HeadAddress]:
    """Greet a candidate; return the connection to it, with the address.

    :param first: the attempts to wait for, a second at most, as the addresses that they try are better ones.
    """
    if first:
        await asyncio.wait(first, timeout=timeouts.OTHER_ADDRESS_S)
    try:
        await connection.greet(head, timeouts.CANDIDATE_S)
    except NotThisHead as answer:
        raise NotThisHead(head, str(answer)) from None
    return connection, head


async def _enrol(connection: HeadConnection[Any]) -> None:
    try:
        await connection.enrol(timeouts.CANDIDATE_S)
    except Refused:
        if connection.secrets_differ and connection.secret.is_in_record:
            # The head has just replaced another one, whose record we read.
            raise NotThisHead("the head", "its secret differs from the one in its record") from None
        raise


async def introduce(
    heads: Sequence[HeadAddress], hello: Hello, given: Secret, heartbeat_timeout: float, farewell: str
) -> Membership:
    """Greet these heads in turn, until one of this run answers and admits this node; the caller limits the time.

    :param farewell: what a head hears that shares no secret with this node, as it would have come through the record.
    :raises Refused, IdentityError: if the head does not admit it.
    :raises HeadNotFound: if there is no address to try.
    """
    while heads:
        for head in heads:
            membership = Membership(hello, given, heartbeat_timeout, farewell=farewell)
            with contextlib.suppress(NotThisHead):
                await membership.greet(head, timeouts.OTHER_HEAD_S)
                await membership.enrol(timeouts.CANDIDATE_S)
                return membership
        await asyncio.sleep(timeouts.LOOK_AGAIN_S)
    raise HeadNotFound("the launcher does not say where the head is")
