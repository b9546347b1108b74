"""The output of all nodes on this command's own streams, each line with the name of its node.

A thread for each pipe copies it: a reader that stalls (a pager, Ctrl-S) must stop neither the timetable nor Ctrl-C.
"""

import contextlib
import os
import sys
import threading
from dataclasses import dataclass
from typing import IO, Any, TextIO

from bootstrap.host import Host

_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)
"""Foreground colours (ECMA-48, SGR); the nodes take them in turn."""
_LONGEST = 64 * 1024
"""Bytes of a line that are held until its end arrives."""


class Output:
    """Standard output and standard error, shared by all nodes. If a reader goes away, its lines are dropped."""

    def __init__(self, host: Host, names: list[str]) -> None:
        self._width = max(map(len, names))
        self._coloured = {stream: host.wants_colour(stream) for stream in (sys.stdout, sys.stderr)}
        self._locks = {stream: threading.Lock() for stream in self._coloured}

    def copy(self, pipe: IO[Any], name: str, number: int, stream: TextIO) -> "Copy":
        """Return what copies each line that arrives in ``pipe`` to ``stream``.

        :param number: chooses the node's colour.
        """
        head = f"{name:{self._width}} | "
        if self._coloured[stream]:
            head = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{head}\x1b[m"
        return Copy(os.dup(pipe.fileno()), head.encode(), stream, self._locks[stream])


@dataclass
class Copy:
    """One stream of one node; :meth:`run` blocks until it ends."""

    pipe: int
    head: bytes
    stream: TextIO
    lock: threading.Lock
    """Held while lines are written, so that those of two nodes do not mix."""
    writing: bool = False
    """Whether the reader of our own stream is what it waits for."""

    def run(self) -> None:
        """Copy until the end of the pipe, and close it; the last line may lack its end."""
        rest, data = b"", b"."
        with os.fdopen(self.pipe, "rb", buffering=0) as pipe:
            while data:
                data = pipe.read(_LONGEST) or b""
                *lines, rest = (rest + data).split(b"\n")
                if rest and (not data or len(rest) >= _LONGEST):
                    lines, rest = [*lines, rest], b""
                self._write(b"".join(self.head + line + b"\n" for line in lines))

    def _write(self, data: bytes) -> None:
        self.writing = True
        with self.lock, contextlib.suppress(OSError):  # the reader is gone
            while data:
                data = data[os.write(self.stream.fileno(), data) :]
        self.writing = False
