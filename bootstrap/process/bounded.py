"""Calls with a time limit, for what may hang for ever: a network file system, a resolver, a driver."""

import contextlib
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class TimedOut(Exception):
    """A call took longer than its time; where it runs in a thread, the thread runs on."""


class Call(Generic[T]):
    """A function that runs in a daemon thread of its own, from now on.

    Not in a pool: a handful of calls that hang would hold up all later ones. A daemon thread holds nothing up, as all
    of our processes end with ``os._exit``.
    """

    def __init__(self, function: Callable[[], T], on_end: Callable[[], object] = lambda: None) -> None:
        self._function = function
        self._on_end = on_end
        self._ended = threading.Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        thread = threading.Thread(target=self._run, daemon=True, name="bounded")
        _threads.add(thread)
        thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as error:  # noqa: BLE001 (raised where the result is awaited)
            self._error = error
        self._ended.set()
        self._on_end()

    def result(self, seconds: float) -> T:
        """Return what the function returned, or raise what it raised; wait ``seconds`` at most.

        :raises TimedOut: if the function has not ended by then.
        """
        if not self._ended.wait(seconds):
            raise TimedOut
        if self._error is not None:
            raise self._error
        return self._results[0]


def run_bounded(seconds: float, function: Callable[[], T]) -> T:
    """Return what ``function`` returns, run in a thread. :raises TimedOut: if it takes longer than ``seconds``."""
    return Call(function).result(seconds)


async def run_in_thread(seconds: float | None, function: Callable[[], T]) -> T:
    """Do the same as :func:`run_bounded` without blocking the event loop; None: ``function`` has a limit of its own."""
    import asyncio  # noqa: PLC0415 (the supervisor does without it)

    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    call = Call(function, notify)
    await wait_for(seconds, ended.wait())
    return call.result(0)


async def wait_for(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Return what ``awaitable`` returns. :raises TimedOut: if it takes longer; it is cancelled then.

    Not ``asyncio.wait_for``: before Python 3.12 that loses our own cancellation, and so a SIGTERM, if the awaitable has
    just finished (python/cpython#86296).
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
    """Wait for calls that timed out, which may be about to write something; no longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    for thread in set(_threads) - {threading.current_thread()}:
        thread.join(max(0.0, deadline - time.monotonic()))
