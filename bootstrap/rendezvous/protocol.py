"""What every way of finding the head has in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bootstrap.files.manifest import FileDigests
from bootstrap.model import HeadAddress


@dataclass(frozen=True)
class Lookup:
    """What a rendezvous says at one moment."""

    candidates: Sequence[HeadAddress] = ()
    """Where the head may be, best first; empty means not yet."""
    ignored: Sequence[str] = ()
    """What was passed over and why, a line each."""
    secret: bytes | None = field(default=None, repr=False)
    """The secret that the head made for this run, where only its nodes can read it."""


class Record(Protocol):
    """What the head writes where all nodes of this run can read it, and other users cannot."""

    owned_dirs: Sequence[str]
    """The folders that it makes, to be removed at the end when they are empty."""

    def owned_files(self, head: HeadAddress, secret: bytes | None) -> FileDigests:
        """Return the files that :meth:`announce` makes for that, for whoever cleans up behind a dead agent."""

    def announce(self, head: HeadAddress, secret: bytes | None) -> None:
        """Publish where the head is, with the secret that was made for this run, if one was.

        :raises UsageError: if that cannot be.
        """


@dataclass(frozen=True)
class Rendezvous:
    """How one run's workers find its head."""

    place: str
    """What ``lookup`` asks, in words, in case it does not answer."""
    lookup: Callable[[], Lookup]
    """One attempt, without waiting. It may block as long as the resolver or the file system does: call it in a thread.
    It raises BootstrapError only if no later call can succeed."""
    record: Record | None = None
    """None where the platform, or the user, says where the head is."""
