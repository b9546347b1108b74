"""What the head says to all, and once more to each that comes later: the release, the quorum, the verdict."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from bootstrap.model import Verdict
from bootstrap.rollcall.wire import Connection, encode


@dataclass
class Announcements:
    """The announcements so far.

    :param listeners: returns the connections of all members and observers.
    """

    listeners: Callable[[], Iterable[Connection]]
    deadline: float | None = None
    """Until when the head waits for its members' Ray, on the event loop's clock; None for as long as it lasts."""
    _made: list[Callable[[], bytes]] = field(default_factory=list)

    def release(self, gcs: str, deadline: float | None) -> None:
        """Let all start Ray with GCS at this address; each learns how much time is left until the deadline."""
        self.deadline = deadline

        def go() -> bytes:
            message: dict[str, str | int] = {"t": "go", "gcs": gcs}
            if self.deadline is not None:
                message["milliseconds"] = int(max(0.0, self.deadline - asyncio.get_running_loop().time()) * 1000)
            return encode(message)

        self._announce(go)

    def reach_quorum(self) -> None:
        """Say that the cluster is complete."""
        self.deadline = None
        self._announce(lambda: encode({"t": "quorum"}))

    def conclude(self, verdict: Verdict) -> None:
        """Say how the run ended."""
        self._announce(lambda: encode({"t": "verdict", **asdict(verdict)}))

    def repeat(self, connection: Connection) -> None:
        """Say all that has been announced to one that has come later."""
        for make in self._made:
            connection.send(make())

    def _announce(self, make: Callable[[], bytes]) -> None:
        self._made.append(make)
        message = make()
        for connection in self.listeners():
            connection.send(message)
