"""Waits with a bound: for what may hang for ever, such as a network file system, a resolver or a driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """What ``awaitable`` returns. :raises asyncio.TimeoutError: if it takes longer; it is cancelled then.

    Not ``asyncio.wait_for``: before Python 3.12 that loses our own cancellation, and so a SIGTERM, if the awaitable has
    just finished (python/cpython#86296).
    """
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise asyncio.TimeoutError
    return task.result()


async def in_thread(seconds: float, function: Callable[[], T]) -> T:
    """What ``function`` returns, run in a thread. :raises asyncio.TimeoutError: if it takes longer; the thread stays.

    A thread that hangs holds nothing up: the agent ends with ``os._exit``.
    """
    return await within(seconds, asyncio.to_thread(function))
