"""How a worker gets the secret through MUNGE: in a credential that the head makes for this one connection."""

import json
from collections.abc import Callable
from typing import TypeVar

from bootstrap import munge, timeouts
from bootstrap.errors import Refused
from bootstrap.files.secret import FIX_MUNGE, Secret
from bootstrap.munge import MungeError
from bootstrap.process.bounded import run_in_thread
from bootstrap.rollcall.hello import Hello, ObserverHello

T = TypeVar("T")


async def make(secret: Secret, me: Hello, nonce: str) -> str:
    """Return a credential with the secret, for the worker with this nonce.

    :raises Refused: if munged makes none.
    :raises TimedOut: if it does not answer: it may be busy.
    """
    payload = json.dumps([me.run, me.attempt, nonce, (secret.value or b"").decode()]).encode()
    return await _call(me, lambda: munge.encode(payload))


async def read(credential: str, me: Hello | ObserverHello, nonce: str) -> bytes:
    """Return the secret in a credential.

    munged checks its age and that it was not read before, :func:`munge.decode` who made it.

    :raises Refused: if they reject it, or it was made for another run or connection.
    :raises TimedOut: if munged does not answer.
    """
    payload = await _call(me, lambda: munge.decode(credential))
    try:
        run, attempt, answered, secret = json.loads(payload)
    except (ValueError, TypeError, RecursionError):
        run = attempt = answered = secret = None
    if (run, attempt, answered) != (me.run, me.attempt, nonce) or not isinstance(secret, str):
        raise Refused("MUNGE: the head's credential was made for another run, attempt or connection")
    return secret.encode()


async def _call(me: Hello | ObserverHello, function: Callable[[], T]) -> T:
    try:
        return await run_in_thread(timeouts.MUNGE_S, function)
    except MungeError as error:
        raise Refused(f"MUNGE on {me.host}: {error}", hint=FIX_MUNGE) from None
