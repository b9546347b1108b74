"""Carry frames between two interfaces with a delay: ``relay.py INTERFACE INTERFACE``, as root of their namespace.

Reads the delay in seconds from standard input, a line for each change, and ends when that does. Prints one line when
it is ready. Imports nothing of ours, so that it starts at once.
"""

import collections
import contextlib
import os
import select
import socket
import sys
import time

_ETH_P_ALL, _SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 3, 263, 15, 23
"""Of include/uapi/linux/if_ether.h, include/linux/socket.h and include/uapi/linux/if_packet.h."""
_LONGEST = 10 + 65536 + 18
"""Bytes: a header that says what the kernel has left to the hardware (segments, checksum; packet(7)), and a frame."""
_BUFFER = 8 << 20
_AT_ONCE = 64
"""Frames read before those that are due are sent."""


def _open(interface: str) -> socket.socket:
    """Return a socket with the interface's frames, up to 64 KiB each, as the sending kernel has left them."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)  # what this kernel sends there of its own accord
    for kind in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, kind, _BUFFER)
    opened.bind((interface, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


class Line:
    """One direction: what has come in at one end and is not yet due at the other."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()

    def take(self, delay: float) -> None:
        """Read the frames that are there."""
        with contextlib.suppress(OSError):  # none is left, or the interface is down
            for _ in range(_AT_ONCE):
                frame = self._source.recv(_LONGEST)
                self._waiting.append((time.monotonic() + delay, frame))

    def give(self, now: float) -> float:
        """Send what is due; return the seconds until the next frame is, a long time if there is none."""
        while self._waiting and self._waiting[0][0] <= now:
            with contextlib.suppress(OSError):  # lost, as on a wire that is cut or full
                self._target.send(self._waiting.popleft()[1])
        return self._waiting[0][0] - now if self._waiting else 3600.0


def main(one: str, other: str) -> None:
    """Carry frames until standard input ends."""
    ends = [_open(one), _open(other)]
    lines = [Line(ends[0], ends[1]), Line(ends[1], ends[0])]
    delay = 0.0
    os.write(1, b"ready\n")
    while True:
        seconds = min(line.give(time.monotonic()) for line in lines)
        ready, _, _ = select.select([*ends, sys.stdin], [], [], max(0.0, seconds))
        for end, line in zip(ends, lines, strict=True):
            if end in ready:
                line.take(delay)
        if sys.stdin in ready:
            said = os.read(0, 4096).split()
            if not said:
                return
            delay = float(said[-1])


if __name__ == "__main__":
    main(*sys.argv[1:])
