"""What a preflight check is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bootstrap.node.inspection import Node

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about this node that is not as it should be."""

    check: str
    """Name of the check that found it."""
    message: str
    """The fact, with its numbers."""
    remedy: str
    """What to type."""
    fatal: bool = True
    """False for a warning: the run may work all the same."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at before a run."""

    name: str
    """For ``--ignore-check``."""
    meaning: str
    """What holds where it finds nothing."""
    run: Callable[[Node], Iterable[Finding]]
    """Changes nothing that stays. May raise OSError, which becomes a finding."""
    applies: Callable[[Node], bool] = lambda _node: True
    """Whether there is anything to look at."""


def size(amount: int) -> str:
    """Bytes for people: ``64.0 MiB``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}"
    return f"{amount} bytes"
