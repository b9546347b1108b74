"""The head's heartbeats: which connections get one, and which are cut for their silence."""

import asyncio
import math
from collections.abc import Callable, Iterable

from bootstrap.rollcall import wire
from bootstrap.rollcall.stall import StallDetector
from bootstrap.rollcall.wire import Connection

_SCANS = 4
"""Scans per heartbeat: each checks all connections for silence and sends a share of the heartbeats, to avoid bursts."""


class Heartbeat:
    """Sends heartbeats to all that are admitted and cuts those that are silent; one timer serves all connections.

    :param timeout: seconds of silence after which a connection is cut.
    :param admitted: returns the connections, as they are at each tick, each with a number by which they take turns.
    :param cut_strangers: called at each tick with the time, on the event loop's clock, before which a peer that has not
        been admitted must not have connected; -inf after a stall.
    """

    def __init__(
        self,
        timeout: float,
        admitted: Callable[[], Iterable[tuple[Connection, int]]],
        cut_strangers: Callable[[float], None],
    ) -> None:
        self._timeout, self._admitted, self._cut_strangers = timeout, admitted, cut_strangers
        self._interval = timeout / wire.BEATS / _SCANS
        self._scan = 0
        self._timer: asyncio.TimerHandle | None = None
        self.stalls = StallDetector(self._interval, timeout)

    def start(self) -> None:
        """Tick from now on, if it does not yet; a head to which none has ever connected needs no ticks."""
        if self._timer is None:
            self.stalls = StallDetector(self._interval, self._timeout)
            self._tick_later()

    def _tick_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tick)

    def _tick(self) -> None:
        self._tick_later()
        loop = asyncio.get_running_loop()
        self._scan = (self._scan + 1) % _SCANS
        silent_since = loop.time() - self._timeout
        if self.stalls.check() > silent_since:
            silent_since = -math.inf  # no peer has had its time-out yet
        for connection, turn in self._admitted():
            if connection.last_heard < silent_since:
                connection.cut(f"silent for {self._timeout:g} s", silent=True)
            elif turn % _SCANS == self._scan:
                connection.send(wire.BEAT)
        self._cut_strangers(silent_since)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
