"""The agent's lines on standard error, one per finished phase: text for people or JSON for machines.

A thread writes them: a reader that stalls (a pager, Ctrl-S, a stopped log shipper) must not stop the event loop, or the
head would lose its workers. A non-blocking stream would not do: the workload shares the file description.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO

from bootstrap import timeouts

_MAX_QUEUED = 10_000
"""Lines kept for a reader that stalls; later ones are dropped."""


@dataclass
class Log:
    """A writer of log lines; ``rank`` is set once it is known."""

    as_json: bool = False
    rank: int | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    threaded: bool = False
    _progress: bool = False
    _lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    _writer: threading.Thread | None = None

    def close(self, timeout: float = timeouts.LOG_FLUSH_S) -> None:
        """Write the queued lines, for ``timeout`` seconds at most."""
        if self._writer is not None:
            self._lines.put(None)
            self._writer.join(timeout)

    def say(self, message: str) -> None:
        """Report that a phase has finished or something has changed."""
        self._write("info", message)

    def warn(self, message: str) -> None:
        """Report a problem that does not stop the run."""
        self._write("warning", message)

    def error(self, message: str) -> None:
        """Report what ends the run."""
        self._write("error", message)

    def progress(self, message: str) -> None:
        """Overwrite one line on a terminal; elsewhere do as :meth:`say`, so call it only on a change."""
        if self.as_json or not self.stream.isatty():
            self.say(message)
            return
        self._put(f"\r\x1b[K{self._head()}{message}")
        self._progress = True

    def _head(self) -> str:
        rank = "" if self.rank is None else f" rank {self.rank}"
        return f"ray-bootstrap {time.strftime('%H:%M:%S')}{rank}: "

    def _write(self, level: str, message: str) -> None:
        if self.as_json:
            now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            text = json.dumps({"time": now, "level": level, "rank": self.rank, "message": message}) + "\n"
        else:
            mark = "" if level == "info" else f"{level}: "
            text = f"{self._head()}{mark}{message}".replace("\n", "\n    ") + "\n"
        if self._progress:
            text, self._progress = "\n" + text, False
        self._put(text)

    def _put(self, text: str) -> None:
        if not self.threaded:
            self._emit(text)
            return
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, daemon=True, name="log")
            self._writer.start()
        if self._lines.qsize() < _MAX_QUEUED:
            self._lines.put(text)

    def _write_all(self) -> None:
        while (text := self._lines.get()) is not None:
            self._emit(text)

    def _emit(self, text: str) -> None:
        # The reader of standard error may be gone; the run matters more than the line.
        with contextlib.suppress(OSError, ValueError):
            if not self.threaded:
                self.stream.write(text)
                self.stream.flush()
                return
            # Bypass the stream's buffer: a stuck writer would hold its lock against every other writer.
            rest = text.encode(errors="replace")
            while rest:
                rest = rest[os.write(self.stream.fileno(), rest) :]
