"""The connections that the head rejected, grouped by peer and cause, this run's own nodes first.

A peer that tries again is counted, and each source has a bounded part of the list and of the log. So no stranger,
however often it connects, hides the one line that names this run's node.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

_MOST_GROUPS, _MOST_PER_SOURCE = 64, 8
_LOGGED, _LOGGED_PER_SOURCE = 20, 4
"""Rejections that the head logs, for each :class:`Standing` and of them for each source: a peer may guess secrets."""


class Standing(IntEnum):
    """How much of a rejected peer shows that it is this run's; the more, the later its line is dropped."""

    STRANGER = 0
    """It did not speak the protocol to the end of its hail: a port scanner, an HTTP client, a silent peer."""
    OTHER_RUN = 1
    """It did, and was another run's or went away."""
    UNPROVED = 2
    """It stayed, and failed for its secret or its protocol: most likely a node of this run, but anyone can do so."""
    PROVED = 3
    """A node of this run (of an open run: it knows the run id), refused for its rank, size, versions or TLS."""


@dataclass(slots=True)
class Rejected:
    """All connections of one peer that were rejected for one cause."""

    peer: str
    """Its address."""
    cause: str
    standing: Standing
    last: float
    """Time of the last one, on the event loop's clock."""
    kind: str = ""
    """The kind of the refusal (docs/rollcall.md), such as ``secret``; empty if there was none."""
    count: int = 0

    def line(self, now: float) -> str:
        """Return it in words; ``now`` is the event loop's time."""
        ago = f"{max(0.0, now - self.last):.0f} s ago"
        return f"{self.peer}: {self.cause} ({ago if self.count == 1 else f'{self.count} times, last {ago}'})"


@dataclass
class Rejections:
    """The groups, bounded in all and for each source.

    :param on_log: called with each peer that should be logged, in words, once per address and cause.
    :param on_new: called with each group when it begins.
    """

    on_log: Callable[[str], None]
    on_new: Callable[[Rejected], None] = lambda _rejected: None
    _groups: dict[tuple[str, str], tuple[bytes, Rejected]] = field(default_factory=dict)
    """By peer and cause, with the source."""
    _logged: dict[str, tuple[bytes, Standing]] = field(default_factory=dict)

    def add(self, source: bytes, peer: str, cause: str, standing: Standing, now: float, kind: str = "") -> None:
        """Count a rejected connection.

        :param source: what counts as one source (:func:`bootstrap.rollcall.listener.source_of`).
        """
        key = peer, cause
        if is_new := key not in self._groups:
            self._groups[key] = source, Rejected(peer, cause, standing, now, kind)
        group = self._groups[key][1]
        group.last, group.count = now, group.count + 1
        if is_new:
            self._drop(_MOST_PER_SOURCE, lambda its: its == source)
            self._drop(_MOST_GROUPS, lambda _its: True)
            self.on_new(group)

    def _drop(self, most: int, of: Callable[[bytes], bool]) -> None:
        """Drop the group that says least if there are more than ``most`` of these sources."""
        keys = [key for key, (source, _) in self._groups.items() if of(source)]
        if len(keys) > most:
            del self._groups[min(keys, key=lambda key: _weight(self._groups[key][1]))]

    def log(self, source: bytes, who: str, standing: Standing) -> None:
        """Have a rejected peer logged, unless that has been said, or its source or its standing has had its share."""
        alike = [its for its, stood in self._logged.values() if stood is standing]
        if who not in self._logged and len(alike) < _LOGGED and alike.count(source) < _LOGGED_PER_SOURCE:
            self._logged[who] = source, standing
            self.on_log(who)

    @property
    def ranked(self) -> list[Rejected]:
        """Return the groups, those that are most likely this run's first, and the latest first among them."""
        return sorted((group for _, group in self._groups.values()), key=_weight, reverse=True)


def _weight(group: Rejected) -> tuple[Standing, float]:
    return group.standing, group.last
