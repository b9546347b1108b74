"""The types that all rendezvous back ends share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bootstrap.files.manifest import FileDigests
from bootstrap.model import HeadAddress
from bootstrap.rendezvous.around import RANK_0, Surroundings
from bootstrap.rendezvous.ending import End


@dataclass(frozen=True)
class Lookup:
    """The result of one look."""

    candidates: Sequence[HeadAddress] = ()
    """Where the head may be, best first; empty means not yet."""
    faults: Sequence[str] = ()
    """Records and names that gave no address, one line each with the reason."""
    secret: bytes | None = field(default=None, repr=False)
    """The secret that the head generated for this run, if its record holds one."""
    ended: End | None = None
    """How the run ended before this node came, if its head has left word; there is no other head's record then."""


class FileRecord(Protocol):
    """A record that the head writes where all nodes of this run, but no other users, can read it."""

    owned_dirs: Sequence[str]
    """The folders that it creates, to be removed at the end if they are empty."""

    def owned_files(self, head: HeadAddress, secret: bytes | None) -> FileDigests:
        """Return the files that :meth:`announce` writes for these arguments, so that a dead agent's can be removed."""

    def announce(self, head: HeadAddress, secret: bytes | None) -> None:
        """Publish where the head is, and the secret if one was generated for this run.

        :raises UsageError: if the record cannot be written.
        """

    def refresh(self) -> None:
        """Show this user's other heads that this one lives; without that they remove an old record. It may block."""

    def end_files(self, end: End) -> FileDigests:
        """Return the files that :meth:`write_end` makes and that do not stay, so that a dead agent's can be removed."""

    def write_end(self, end: End) -> Path | None:
        """Publish how the run ended, for nodes that come later; return where, or None if another head is there now.

        :raises OSError: if it cannot be written.
        """

    def take(self, end: End) -> None:
        """Note that this node has believed it: the last one removes it. :raises OSError: if that is not possible."""


@dataclass(frozen=True)
class Rendezvous:
    """How one run's workers find its head."""

    place: str
    """What ``lookup`` reads, in words, for the message that it timed out."""
    lookup: Callable[[], Lookup]
    """Looks once, without retrying. It may block in the resolver or the file system: call it in a thread. It raises
    BootstrapError only if no later call can succeed; an OSError that may pass becomes a line of ``faults``."""
    survey: Callable[[], Surroundings] = lambda: Surroundings("", RANK_0)
    """Looks around where the head should have announced itself, for the message of a search in vain. It may block."""
    record: FileRecord | None = None
    """None if the platform or the user says where the head is."""
    secret_record: FileRecord | None = None
    """A record that serves for the secret alone; its address is not looked at."""
