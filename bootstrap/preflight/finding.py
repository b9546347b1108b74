"""The types of the preflight: a check, and a finding."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bootstrap.node.inspection import Node

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of this node."""

    check: str
    """Name of the check that found it."""
    message: str
    """What is wrong, with its numbers."""
    remedy: str
    """What to type."""
    fatal: bool = True
    """False for a warning: the run may still work."""
    own_run: bool = False
    """Whether a run of this user that is up here is the cause: another run beside it would fail, this one does not."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a node before the run."""

    name: str
    """For ``--ignore-check``."""
    meaning: str
    """What is true if it finds nothing."""
    run: Callable[[Node], Iterable[Finding]]
    """Yields the findings and leaves no change. May raise OSError, which becomes a finding."""
    applies: Callable[[Node], bool] = lambda _node: True
    """Whether there is anything to check on this node."""


def size(amount: int) -> str:
    """Return ``amount`` bytes as text for people: ``64.0 MiB``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}"
    return f"{amount} bytes"
