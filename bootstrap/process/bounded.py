"""Calls with a time limit, for anything that may hang forever: a network file system, a resolver, a driver."""

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_abandoned: list[threading.Event] = []
"""The ends of calls whose callers have given up."""


class TimedOut(Exception):
    """A call exceeded its time limit. If it runs in a thread, the thread keeps running."""


class Call(Generic[T]):
    """A function call that runs in its own daemon thread, started at once.

    Not in a pool: a few hung calls would block all later ones. A daemon thread blocks nothing, because every process of
    ray-bootstrap ends with ``os._exit``.
    """

    def __init__(self, function: Callable[[], T], on_end: Callable[[], object] = lambda: None) -> None:
        self.ended = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None

        def run() -> None:
            try:
                self._results.append(function())
            except BaseException as error:  # noqa: BLE001 (raised where the result is awaited)
                self._error = error
            self.ended.set()
            on_end()

        threading.Thread(target=run, daemon=True, name="bounded").start()

    def result(self, seconds: float) -> T:
        """Return what the function returned, or raise what it raised; wait ``seconds`` at most.

        :raises TimedOut: if the function has not ended by then.
        """
        if not self.ended.wait(seconds):
            _abandoned.append(self.ended)
            raise TimedOut
        if self._error is not None:
            raise self._error
        return self._results[0]


def run_bounded(seconds: float, function: Callable[[], T]) -> T:
    """Return what ``function`` returns, run in a thread. :raises TimedOut: if it takes longer than ``seconds``."""
    return Call(function).result(seconds)


async def run_in_thread(seconds: float | None, function: Callable[[], T]) -> T:
    """Do the same as :func:`run_bounded` without blocking the event loop.

    :param seconds: the time limit; None if ``function`` limits itself.
    """
    import asyncio  # noqa: PLC0415 (the supervisor does without it)

    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nothing waits for this call
            loop.call_soon_threadsafe(ended.set)

    call = Call(function, notify)
    try:
        await wait_for(seconds, ended.wait())
    finally:
        if not call.ended.is_set():  # timed out, or cancelled
            _abandoned.append(call.ended)
    return call.result(0)


async def wait_for(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Return what ``awaitable`` returns. :raises TimedOut: after ``seconds``; the awaitable is cancelled.

    Not ``asyncio.wait_for``: before Python 3.12 it swallows the caller's cancellation, and with it a SIGTERM, if the
    awaitable has just finished (python/cpython#86296).
    """
    import asyncio  # noqa: PLC0415 (the supervisor does without it)

    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise TimedOut
    return task.result()


def join_abandoned(seconds: float) -> None:
    """Wait up to ``seconds`` for calls that timed out, since they may still be about to write something."""
    deadline = time.monotonic() + seconds
    for ended in _abandoned:
        ended.wait(max(0.0, deadline - time.monotonic()))
