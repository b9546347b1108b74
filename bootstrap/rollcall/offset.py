"""How far a node's clock is from the head's, measured within the handshake."""

from dataclasses import dataclass, field

CLOCK_TOLERANCE = 5.0
"""Seconds by which a node's clock may differ before the head reports it."""


@dataclass(frozen=True, slots=True)
class Offset:
    """By how much a clock differs from the head's, in seconds."""

    seconds: float
    uncertainty: float = 0.0
    """The true offset is at most this much smaller or larger."""
    stamped: float = field(default=0.0, compare=False)
    """When the other side stamped the message, on our event loop's clock; as uncertain."""

    @property
    def is_off(self) -> bool:
        """Return whether it is certainly more than the tolerance."""
        return abs(self.seconds) - self.uncertainty > CLOCK_TOLERANCE

    def __str__(self) -> str:
        """Return it with its sign, and its uncertainty if that is a second or more."""
        return f"{self.seconds:+.0f} s" + (f" (±{self.uncertainty:.0f} s)" if self.uncertainty >= 1 else "")


def measure(stamped: float, now: float, elapsed: float, arrived: float = 0.0) -> Offset:
    """Return the offset of the clock that stamped a message between our question and its arrival.

    :param stamped: seconds since the epoch, by the other clock.
    :param now: the same by ours, on arrival.
    :param elapsed: seconds from the question to the arrival, by a clock that is never set.
    :param arrived: the time of the arrival, by the event loop's clock.
    """
    return Offset(stamped - (now - elapsed / 2), elapsed / 2, arrived - elapsed / 2)
