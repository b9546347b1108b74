"""Notice that this process was suspended for a while: SIGSTOP, a freezer, a virtual machine that is paused."""

import asyncio
import math

_TOLERATED = 4
"""A tick that is late by more than this fraction of the heartbeat time-out is a stall. Less cannot make a live peer
look silent: its last beat is a third of the time-out old at most."""


class StallDetector:
    """Finds the moment from which a peer's silence counts; each side of the roll call asks at every tick.

    While we did not run, silence proves nothing: the peers may have been stopped as well (``scontrol suspend`` stops
    all nodes), or their beats wait in our sockets. After SIGCONT our timers run before those are read: epoll_wait(2)
    is interrupted, and if its time-out has passed, Python's poll returns without a look at the sockets (PEP 475).

    A stall grants the peers one more time-out. So silence stays unnoticed only as long as this process itself stalls at
    least once in every time-out.

    :param interval: seconds between two ticks, at most; also from now to the first.
    """

    def __init__(self, interval: float, heartbeat_timeout: float) -> None:
        self._longest = interval + heartbeat_timeout / _TOLERATED
        self._asked = asyncio.get_running_loop().time()
        self._resumed = -math.inf

    def check(self) -> float:
        """Note that this process runs now; return when it last resumed after a stall, on the loop's clock, or -inf."""
        now = asyncio.get_running_loop().time()
        if now - self._asked > self._longest:
            self._resumed = now
        self._asked = now
        return self._resumed
