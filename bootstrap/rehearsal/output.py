"""The output of all nodes on this command's own streams, each line with the name of its node."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import TextIO

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

    def copy(self, pipe: int, name: str, number: int, stream: TextIO) -> "asyncio.Future[None]":
        """Write each line that arrives in ``pipe`` to ``stream``; return a future that is done at the pipe's end.

        :param pipe: a descriptor, which is closed at the end.
        :param number: chooses the node's colour.
        """
        head = f"{name:{self._width}} | "
        if self._coloured[stream]:
            head = f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{head}\x1b[m"
        loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        lines = _Lines(head.encode(), lambda data: _write(stream, data))
        os.set_blocking(pipe, False)

        def read() -> None:
            try:
                data = os.read(pipe, _LONGEST)
            except BlockingIOError:
                return
            lines.add(data)
            if not data:
                loop.remove_reader(pipe)
                os.close(pipe)
                ended.set_result(None)

        loop.add_reader(pipe, read)
        return ended


class _Lines:
    """Splits what arrives into lines; the last one may lack its end."""

    def __init__(self, head: bytes, write: Callable[[bytes], None]) -> None:
        self._head, self._write, self._pending = head, write, b""

    def add(self, data: bytes) -> None:
        """Take more bytes; empty at the end."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if self._pending and (not data or len(self._pending) >= _LONGEST):
            lines, self._pending = [*lines, self._pending], b""
        if lines:
            self._write(b"".join(self._head + line + b"\n" for line in lines))


def _write(stream: TextIO, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader is gone
        while data:
            data = data[os.write(stream.fileno(), data) :]
