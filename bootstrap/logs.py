"""Our own lines on standard error, one per finished phase: for people at night or, as JSON, for machines."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Log:
    """Writes lines; knows the rank as soon as there is one."""

    as_json: bool = False
    rank: int | None = None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _progress: bool = False

    def say(self, message: str) -> None:
        """A phase is finished, or something changed."""
        self._write("info", message)

    def warn(self, message: str) -> None:
        """Something is not as it should be, and the run goes on."""
        self._write("warning", message)

    def error(self, message: str) -> None:
        """The run ends for this."""
        self._write("error", message)

    def progress(self, message: str) -> None:
        """On a terminal one line that is written over; elsewhere as :meth:`say`, so call it only on a change."""
        if self.as_json or not self.stream.isatty():
            self.say(message)
            return
        self.stream.write(f"\r\x1b[K{self._head()}{message}")
        self.stream.flush()
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
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            pass  # the reader of our standard error is gone; the run is worth more than the line
