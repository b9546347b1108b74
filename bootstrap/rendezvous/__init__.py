"""Where is the head? One protocol, one table of back ends; the roll call decides which candidate is right.

An address found here is only a candidate: a cached DNS answer or a record that a dead head left behind looks just
as good as the truth. A worker believes it when the agent there knows its run and attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from bootstrap.errors import UsageError
from bootstrap.files.manifest import FileDigests
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous import dns, shared_dir, slurm, static
from bootstrap.settings import Settings

FIRST_PORT, PORT_SPAN, PORT_TRIES = 20000, 10000, 4


class Rendezvous(Protocol):
    """How one run's workers find its head; every call is one attempt, without waiting."""

    @property
    def ignored(self) -> list[str]:
        """What the last ``lookup`` passed over and why, a line each, for the log."""

    @property
    def place(self) -> str:
        """What ``lookup`` asks, in words, in case that it does not answer."""

    @property
    def secret_path(self) -> Path | None:
        """A file in a place that all nodes of the run see and nobody else does, for a secret; None if there is none."""

    def owned_files(self, head: HeadAddress) -> FileDigests:
        """The files that :meth:`announce` makes for that, for whoever clears up behind a dead agent."""

    def announce(self, head: HeadAddress) -> None:
        """Tell where the head is; nothing to do where the platform already knows."""

    def lookup(self) -> Sequence[HeadAddress]:
        """The candidates now, best first; empty means not yet.

        May block as long as the resolver or the file system does: call it in a thread.

        :raises BootstrapError: only if no later call can succeed.
        """

    def withdraw(self) -> None:
        """Remove what ``announce`` left, and nothing of a later head's; may be called again."""


Factory = Callable[[Settings, NodeIdentity, Host, Sequence[int]], Rendezvous]

BACK_ENDS: Mapping[str, Factory] = MappingProxyType(
    {"static": static.make, "slurm": slurm.make, "dns": dns.make, "file": shared_dir.make}
)


def make(settings: Settings, identity: NodeIdentity, host: Host) -> Rendezvous:
    """The rendezvous that ``identity.rendezvous`` names.

    :raises UsageError: if it cannot work with these options.
    :raises IdentityError: if nothing says where the head is.
    """
    name, ports = identity.rendezvous, rollcall_ports(settings, identity)
    if identity.size == 1:
        # Nobody is going to look for this head, so a missing Service or folder must not stop it.
        return nowhere()
    if name not in BACK_ENDS:
        raise UsageError([f"--rendezvous={name!r}: expected one of {', '.join(BACK_ENDS)}"])
    return BACK_ENDS[name](settings, identity, host, ports)


def nowhere() -> Rendezvous:
    """Of a node that nobody looks for, and that looks for nobody."""
    return static.Static(hosts=(), ports=())


def rollcall_ports(settings: Settings, identity: NodeIdentity) -> tuple[int, ...]:
    """The TCP ports of the roll call, the same on all nodes of a run.

    The head takes the first that is free, workers try them all. 20000-29999 lies between Ray's worker ports
    (10002-19999) and Linux's ephemeral ports (32768-60999).
    """
    if settings.rollcall_port is not None:
        return (settings.rollcall_port,)
    digest = hashlib.sha256(identity.run_id.encode("utf-8", "surrogateescape")).digest()
    start = int.from_bytes(digest[:8], "big")
    # A stride of at most a quarter of the span never comes back to a port within four tries.
    stride = 1 + int.from_bytes(digest[8:16], "big") % (PORT_SPAN // PORT_TRIES)
    return tuple(FIRST_PORT + (start + i * stride) % PORT_SPAN for i in range(PORT_TRIES))
