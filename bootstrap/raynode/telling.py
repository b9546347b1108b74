"""The first lines in which Ray says, while it still tries to start, why it does not."""

import contextlib
import re
import time
from pathlib import Path

from bootstrap import timeouts
from bootstrap.process.bounded import Call
from bootstrap.raynode.session import causes_since, is_error
from bootstrap.raynode.starter import Starter

_MOST = 3
"""Lines to report of one start: the first ones tell the cause, later ones what follows from it."""
_WARNING = re.compile(r"\[[0-9-]+ [0-9:,.]+ W \d+ \d+\] .*(Failed to|[Tt]imed out|Couldn't|Unable to)")
"""A warning of Ray's C++ that tells why a start hangs: it says so of a GCS that it cannot reach, and tries again."""
_PREFIX = re.compile(r"\[[0-9-]+ [0-9:,.]+ [A-Z] \d+ \d+\] (\([^)]*\) )?\S+:\d+:\s*")


class Telling:
    """Reads what ``ray start`` prints and Ray's logs, in a thread, since a file system may hang; one at a time.

    :param ray_dir: Ray's folder, with the logs.
    """

    def __init__(self, starter: Starter, ray_dir: Path) -> None:
        self._starter, self._ray_dir = starter, ray_dir
        self._since = time.time()
        self._call: Call[list[str]] | None = None
        self._looked = 0.0
        self.lines: list[str] = []
        """The telling lines so far, oldest first, without what Ray puts before each."""

    def look(self) -> None:
        """Take what the last reading has found, and start another if it is time."""
        call, now = self._call, time.monotonic()
        if call is not None and call.ended.is_set():
            self._call = None
            with contextlib.suppress(OSError):
                self._add(call.result(0))
        if self._call is None and now - self._looked >= timeouts.READ_LOGS_AGAIN_S and len(self.lines) < _MOST:
            self._looked = now
            self._call = Call(self._read)

    def _read(self) -> list[str]:
        printed = [line.strip() for line in self._starter.printed().splitlines()]
        return [*filter(is_telling, printed), *causes_since(self._ray_dir, self._since)]

    def _add(self, found: list[str]) -> None:
        known = {_shape(line) for line in self.lines}
        for line in map(_message, found):
            if _shape(line) not in known and len(self.lines) < _MOST:
                known.add(_shape(line))
                self.lines.append(line)


def is_telling(line: str) -> bool:
    """Return whether a line that Ray prints while it starts is likely to say why it does not."""
    return is_error(line) or _WARNING.match(line) is not None


def _message(line: str) -> str:
    """Return a line without its date, process and place in Ray's sources."""
    return _PREFIX.sub("", line, count=1)[:200]


def _shape(line: str) -> str:
    """Return what of a line repetitions have in common."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "0", line.rpartition(": ")[2])
