"""Why nodes were never seen, as far as the launcher can tell: asked beside the run, which never waits for it."""

from collections.abc import Callable, Sequence

from bootstrap import timeouts
from bootstrap.launchers.events import Causes
from bootstrap.log import Log
from bootstrap.process.bounded import Call
from bootstrap.run.notices import listed


class UnseenCauses:
    """The causes by rank, as of the last answer; each is logged once."""

    def __init__(self, find: Callable[[], Causes] | None, log: Log, begin: float) -> None:
        """Prepare to ask.

        :param find: finds the causes; it may block, and raises an OSError. None if the launcher knows none.
        :param begin: since when the nodes are awaited, on the event loop's clock.
        """
        self._find, self._log = find, log
        self._next = begin + timeouts.LATE_RANK_S
        self._call: Call[Causes] | None = None
        self._causes: Causes = {}
        self._said: set[tuple[int | None, str]] = set()

    def look(self, ranks: Sequence[int], clock: float) -> None:
        """Log what is new about these ranks, none of which has been seen, and ask again if it is time."""
        if self._call is not None and self._call.ended.is_set():
            self._take(self._call)
            self._call = None
            self._log_new(ranks)
        if ranks and self._find is not None and self._call is None and clock >= self._next:
            self._next = clock + timeouts.STILL_LOOKING_S
            self._call = Call(self._find)

    def of(self, rank: int) -> str:
        """Return why this rank has not come; empty if that is not known."""
        return self._causes.get(rank) or self._causes.get(None, "")

    def _take(self, call: Call[Causes]) -> None:
        try:
            self._causes = call.result(0)
        except PermissionError as error:
            self._find = None
            self._log.warn(str(error))
        except OSError as error:
            self._warn_once(str(error))
        except Exception as error:  # noqa: BLE001 (a diagnosis must not end the run; the text may hold a secret)
            self._warn_once(f"internal error, please report it: {type(error).__name__} in the search for causes")

    def _warn_once(self, text: str) -> None:
        if self._first_time(None, text):
            self._log.warn(text)

    def _first_time(self, rank: int | None, text: str) -> bool:
        known = (rank, text) in self._said
        self._said.add((rank, text))
        return not known

    def _log_new(self, ranks: Sequence[int]) -> None:
        by_cause: dict[str, list[int]] = {}
        for rank in ranks:
            if (cause := self.of(rank)) and self._first_time(rank, cause):
                by_cause.setdefault(cause, []).append(rank)
        for cause, concerned in by_cause.items():
            self._log.warn(f"rank {listed(concerned)} not seen: {cause}")
