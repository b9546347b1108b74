"""What a rehearsal needs of a node; and nodes without hosts, for machines that close user namespaces."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from bootstrap.process import table


class Node(Protocol):
    """One node: :class:`bootstrap.namespaces.host.NamespaceHost`, or a :class:`LoopbackNode`."""

    name: str
    ip: str

    @property
    def root(self) -> Path:
        """Return its root folder, as this process sees it."""

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str, stdout: int | IO[Any], stderr: int | IO[Any]
    ) -> "subprocess.Popen[Any]":
        """Start a command there, as a child of this process in a session of its own."""

    def kill(self) -> None:
        """End all its processes by SIGKILL."""


@dataclass
class LoopbackNode:
    """A node without a host: an address of 127.0.0.0/8, and the processes started on it."""

    name: str
    ip: str
    _started: list["subprocess.Popen[Any]"] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """Return the machine's root folder, which all these nodes share."""
        return Path("/")

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str, stdout: int | IO[Any], stderr: int | IO[Any]
    ) -> "subprocess.Popen[Any]":
        """Start a command; it gets SIGTERM, as from a launcher, if this process is killed."""
        tied = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
        process = subprocess.Popen(
            tied, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._started.append(process)
        return process

    def kill(self) -> None:
        """End all its processes by SIGKILL; none of them sees another one's end."""
        for signum in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: a standby cleans up after a killed agent
            for process in self._started:
                if process.poll() is None:
                    below = table.descendants(process.pid)
                    os.kill(process.pid, signum)
                    for each in below:
                        table.send(each, signum)
