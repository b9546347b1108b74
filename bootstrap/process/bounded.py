"""Waits with a bound: for what may hang for ever, such as a network file system, a resolver or a driver."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_AGAIN = 0.01
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


async def wait_for(seconds: float, awaitable: Awaitable[T]) -> T:
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


async def run_in_thread(seconds: float, function: Callable[[], T]) -> T:
    """What ``function`` returns, run in a thread. :raises asyncio.TimeoutError: if it takes longer; the thread stays.

    One of its own: asyncio's pool has a handful, and when they hang, whatever comes next waits for them. A thread that
    hangs holds nothing up: it is a daemon, and the agent ends with ``os._exit``.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 (raised where it is awaited)
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=work, daemon=True, name="run_in_thread")
    _threads.add(thread)
    thread.start()
    await wait_for(seconds, ended.wait())
    if errors:
        raise errors[0]
    return results[0]


async def threads_end(seconds: float) -> None:
    """Wait for the threads that nobody awaits any more, which may be about to write something; no longer than that."""
    deadline = asyncio.get_running_loop().time() + seconds
    while any(thread.is_alive() for thread in _threads) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_LOOK_AGAIN)
