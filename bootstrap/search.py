"""A worker's search for its head: the rendezvous names candidates, the roll call judges, tenacity waits."""

from __future__ import annotations

import asyncio
import contextlib

from bootstrap import secret as secrets
from bootstrap.errors import BootstrapError, HeadNotFound, IdentityError, Refused
from bootstrap.logs import Log
from bootstrap.model import HeadAddress
from bootstrap.rendezvous import Rendezvous
from bootstrap.rollcall.client import Membership, NotThisHead
from bootstrap.rollcall.wire import Hello
from bootstrap.secret import Secret
from bootstrap.settings import Settings

TO_REPORT = 10.0
"""Seconds that an unfit node spends on telling the head so."""
_ANSWER = 5.0
"""Seconds for one candidate to answer."""
_FIRST_WAIT, _LEAST_CAP, _NODES_PER_SECOND = 0.05, 0.25, 1000
"""Looks at the rendezvous get rarer up to 4 a second and node, or 1 000 a second and run, whichever is rarer."""
_STILL_LOOKING = 30.0


async def find_head(
    settings: Settings, meeting: Rendezvous, hello: Hello, given: Secret, timeout: float, log: Log
) -> tuple[Membership, Secret]:
    """The membership in this run's roll call, and the secret that proved right.

    :raises HeadNotFound: after ``timeout`` seconds, with what was found instead.
    :raises IdentityError, Refused: as the head says.
    """
    import tenacity  # noqa: PLC0415 (30 ms that the first child need not wait for)

    cap = max(_LEAST_CAP, (hello.size or 0) / _NODES_PER_SECOND)
    seen: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    begin = told = loop.time()
    search = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(NotThisHead),
        wait=tenacity.wait_exponential(multiplier=_FIRST_WAIT, max=cap) + tenacity.wait_random(0, cap / 4),
        stop=tenacity.stop_after_delay(timeout),
        reraise=False,
    )
    try:
        async for attempt in search:
            with attempt:
                if loop.time() - told > _STILL_LOOKING:
                    told = loop.time()
                    log.say(f"still looking for the head after {told - begin:.0f} s: {_in_brief(seen)}")
                return await _look(settings, meeting, hello, given, seen)
    except tenacity.RetryError:
        pass
    raise HeadNotFound(
        f"no head of run {hello.run!r}, attempt {hello.attempt}, within {timeout:g} s: {_in_brief(seen)}",
        hint="see the output of rank 0 first; --head-address=HOST names the head, --head-timeout waits longer",
    )


async def _look(
    settings: Settings, meeting: Rendezvous, hello: Hello, given: Secret, seen: dict[str, str]
) -> tuple[Membership, Secret]:
    """One look: all candidates at once, the first that welcomes us wins. :raises NotThisHead: if none does."""
    candidates = await asyncio.to_thread(meeting.lookup)
    seen.clear()
    seen.update(dict.fromkeys(meeting.ignored, "ignored"))
    shared = await asyncio.to_thread(_shared_secret, settings, meeting, given)
    tries = [asyncio.ensure_future(_greet(hello, shared.value, settings.heartbeat_timeout, h)) for h in candidates]
    refusal: BootstrapError | None = None
    found: Membership | None = None
    try:
        # All are greeted at once, as a black hole among them takes its time; but only one is told that we are here,
        # as two addresses may be the same head's.
        for greeting in asyncio.as_completed(tries):
            try:
                membership = await greeting
                await membership.enrol(_ANSWER)
                found = membership
                return found, shared
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


async def _greet(hello: Hello, secret: bytes | None, heartbeat_timeout: float, head: HeadAddress) -> Membership:
    membership = Membership(hello, secret, heartbeat_timeout)
    try:
        await membership.greet(head, _ANSWER)
    except NotThisHead as answer:
        raise NotThisHead(head, str(answer)) from None
    return membership


def _shared_secret(settings: Settings, meeting: Rendezvous, given: Secret) -> Secret:
    if given.value is not None or settings.auth == "off" or meeting.secret_path is None:
        secrets.required(given, settings)
        return given
    return secrets.find_made(meeting.secret_path) or given


def _in_brief(seen: dict[str, str]) -> str:
    if not seen:
        return "nobody has said where it is"
    return "; ".join(f"{where}: {what}" for where, what in list(seen.items())[:6])


async def no_other_head(meeting: Rendezvous, me: Hello, given: Secret) -> None:
    """Make sure that no other node leads this run already, where a record of it would show that.

    Before this node listens or writes anything, so that what answers is another.

    :raises IdentityError: naming the other head.
    """
    if meeting.secret_path is None:
        return  # what is found then is where the head should be: this node
    shared = given if given.value is not None else secrets.find_made(meeting.secret_path) or given
    for head in await asyncio.to_thread(meeting.lookup):
        membership = Membership(me, shared.value, _ANSWER)
        with contextlib.suppress(NotThisHead):
            try:
                await membership.greet(head, 1.0)
            except Refused:
                pass  # another secret, but this run
            finally:
                membership.close()
            raise IdentityError(
                f"rank 0 of run {me.run!r} is claimed by two nodes: {head} leads it already",
                hint="give the runs different --run-id, or wait until the other has ended",
            )
