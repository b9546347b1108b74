"""A worker's search for its head: the rendezvous names candidates, the roll call judges, tenacity waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from bootstrap import net
from bootstrap.errors import BootstrapError, HeadNotFound, IdentityError, Refused
from bootstrap.files import secret as secrets
from bootstrap.files.secret import Secret
from bootstrap.log import Log
from bootstrap.model import HeadAddress
from bootstrap.process.bounded import run_in_thread
from bootstrap.rendezvous import Rendezvous
from bootstrap.rollcall.client import Membership, NotThisHead
from bootstrap.rollcall.wire import Hello
from bootstrap.settings import Settings

TO_REPORT = 10.0
"""Seconds that an unfit node spends on telling the head so."""
_ANSWER = 5.0
"""Seconds for one candidate to answer."""
_ANSWER_OF_ANOTHER = 1.0
"""Seconds that a head waits for another one; mostly there is none."""
_LEAST_LOOK = 1.0
"""Seconds that the last look may take beyond the time-out."""
_FIRST_WAIT, _LEAST_CAP, _NODES_PER_SECOND = 0.05, 0.25, 1000
"""Looks at the rendezvous get rarer up to 4 a second and node, or 1 000 a second and run, whichever is rarer."""
_STILL_LOOKING = 30.0


async def find_head(
    settings: Settings, meeting: Rendezvous, hello: Hello, given: Secret, timeout: float, log: Log
) -> tuple[Membership, Secret]:
    """The membership in this run's roll call, and the secret that proved right.

    :raises HeadNotFound: after ``timeout`` seconds, with what was found instead; also if the rendezvous hangs.
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
                left = max(_LEAST_LOOK, begin + timeout - loop.time())
                return await _look(settings, meeting, hello, given, left, seen)
    except tenacity.RetryError:
        pass
    raise HeadNotFound(
        f"no head of run {hello.run!r}, attempt {hello.attempt}, within {timeout:g} s: {_in_brief(seen)}",
        hint="see the output of rank 0 first; --head-address=HOST names the head, --head-timeout waits longer",
    )


async def _look(
    settings: Settings, meeting: Rendezvous, hello: Hello, given: Secret, left: float, seen: dict[str, str]
) -> tuple[Membership, Secret]:
    """One look at the rendezvous and at all who are named there; ``seen`` becomes what they were instead.

    :raises NotThisHead: if none of them leads this run now.
    """
    candidates, shared = await _answers(settings, meeting, given, left)
    seen.clear()
    seen.update(dict.fromkeys(meeting.ignored, "ignored"))
    try:
        made = shared is not given
        return await _try_all(candidates, hello, shared, made, settings.heartbeat_timeout, seen), shared
    except Refused:
        if shared.value is None and (await _answers(settings, meeting, given, left))[1].value is not None:
            raise NotThisHead from None  # the head made it after our look
        raise


async def _answers(
    settings: Settings, meeting: Rendezvous, given: Secret, left: float
) -> tuple[Sequence[HeadAddress], Secret]:
    """What the rendezvous says now: where the head may be, and the secret.

    :raises HeadNotFound: if it says nothing at all for ``left`` seconds, such as a network file system that hangs.
    """

    def ask() -> tuple[Sequence[HeadAddress], Secret]:
        candidates = meeting.lookup()
        try:
            return candidates, _shared_secret(settings, meeting, given)
        except (OSError, ValueError) as error:  # without it no head believes us, but the next look may find it mended
            meeting.ignored.append(f"{meeting.secret_path}: {error}")
            return [], given

    try:
        return await run_in_thread(left, ask)
    except asyncio.TimeoutError:
        what = f"{meeting.place} timed out after {left:.0f} s, and it says where the head is"
        raise HeadNotFound(
            what, hint="does `ls` answer there, or the name server? --head-address=HOST names the head"
        ) from None


async def _try_all(
    candidates: Sequence[HeadAddress],
    hello: Hello,
    shared: Secret,
    made: bool,
    heartbeat_timeout: float,
    seen: dict[str, str],
) -> Membership:
    """All candidates at once, the first that welcomes us wins. :raises NotThisHead: if none does."""
    tries = [asyncio.ensure_future(_greet(hello, shared, made, heartbeat_timeout, head)) for head in candidates]
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


async def _greet(hello: Hello, shared: Secret, made: bool, heartbeat_timeout: float, head: HeadAddress) -> Membership:
    membership = Membership(hello, shared.value, heartbeat_timeout)
    try:
        await membership.greet(head, _ANSWER)
    except NotThisHead as answer:
        raise NotThisHead(head, str(answer)) from None
    except Refused:
        if made and membership.secrets_differ:
            # A head that has just started in place of another one: what we read in the folder was still the other's.
            raise NotThisHead(head, "its secret differs from the one in the folder") from None
        raise
    return membership


def _shared_secret(settings: Settings, meeting: Rendezvous, given: Secret) -> Secret:
    """The secret given to this node, or the one that the head made. :raises OSError, ValueError: if that is bad."""
    if given.value is not None or settings.auth == "off" or meeting.secret_path is None:
        secrets.required(given, settings)
        return given
    return secrets.load_generated(meeting.secret_path) or given


def _in_brief(seen: dict[str, str]) -> str:
    if not seen:
        return "nobody has said where it is"
    return "; ".join(f"{where}: {what}" for where, what in list(seen.items())[:6])


async def check_no_other_head(meeting: Rendezvous, me: Hello, given: Secret) -> None:
    """Make sure that no other node leads this run already, as far as the rendezvous shows one.

    Before this node listens or writes anything, so that what answers is another. A rendezvous that does not answer in
    time, or a secret that cannot be read, holds nothing up.

    :raises IdentityError: naming the other head.
    """

    def ask() -> tuple[Sequence[HeadAddress], Secret]:
        found = meeting.lookup()
        if meeting.secret_path is None:
            return _elsewhere(found), given  # this node is where the head should be
        if given.value is None:
            with contextlib.suppress(OSError, ValueError):
                return found, secrets.load_generated(meeting.secret_path) or given
        return found, given

    with contextlib.suppress(asyncio.TimeoutError):
        heads, shared = await run_in_thread(_ANSWER, ask)
        await _refuse_two(heads, me, shared)


async def check_still_head(meeting: Rendezvous, me: Hello, shared: Secret, own: HeadAddress) -> None:
    """Make sure that no other node has announced itself for this run since, where a record would show that.

    Two heads that start in the same moment do not see each other before; the later record then stands.

    :raises IdentityError: naming the other head.
    """
    if meeting.secret_path is None:
        return
    with contextlib.suppress(asyncio.TimeoutError):
        heads = await run_in_thread(_ANSWER, meeting.lookup)
        await _refuse_two([head for head in heads if (head.host, head.port) != (own.host, own.port)], me, shared)


def _elsewhere(heads: Sequence[HeadAddress]) -> Sequence[HeadAddress]:
    """Those that are not on this machine, as far as their names resolve."""
    own = net.own_addresses()
    addresses = {host: net.resolve(host) for host in {head.host for head in heads}}
    return [head for head in heads if addresses[head.host] and own.isdisjoint(addresses[head.host])]


async def _refuse_two(heads: Sequence[HeadAddress], me: Hello, shared: Secret) -> None:
    answers = await asyncio.gather(*(_leads(head, me, shared) for head in heads))
    for head, leads in zip(heads, answers, strict=True):
        if leads:
            raise IdentityError(
                f"rank 0 of run {me.run!r} is claimed by two nodes: {head} leads it already",
                hint="give each node a --rank of its own, and each run a --run-id; or wait until the other has ended",
            )


async def _leads(head: HeadAddress, me: Hello, shared: Secret) -> bool:
    """Whether a head of this run is there, whatever its secret."""
    membership = Membership(me, shared.value, _ANSWER)
    try:
        await membership.greet(head, _ANSWER_OF_ANOTHER)
    except NotThisHead:
        return False
    except Refused:
        return True
    finally:
        membership.close()
    return True
