"""The only access to the process's surroundings: environment, host name, and the files in /proc, /sys and /etc.

Everything else takes a :class:`Host`, so that a test can pass its own and no other code reads the environment.
"""

import os
import resource
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True)
class Host:
    """A machine as one process sees it."""

    env: Mapping[str, str]
    hostname: str
    root: Path = field(default=Path("/"))
    """Prefix of every system file (/proc, /sys, /etc, /dev); tests set another one."""

    def path(self, absolute: str) -> Path:
        """Return the path of the system file ``absolute`` (such as ``/proc/self/cgroup``) below this host's root."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """Return the text of a system file, or None if it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def get(self, name: str) -> str | None:
        """Return a variable's value; None if it is unset **or empty** (launchers export empty ones)."""
        return self.env.get(name) or None

    def wants_colour(self, stream: TextIO) -> bool:
        """Return whether to write colours to a stream: to a terminal, unless NO_COLOR is set (https://no-color.org)."""
        return stream.isatty() and self.get("NO_COLOR") is None and self.get("TERM") != "dumb"


def this_host() -> Host:
    """Return the real machine, with a snapshot of the current environment."""
    return Host(env=dict(os.environ), hostname=socket.gethostname())


def raise_soft_limits(*limits: int) -> None:
    """Raise soft limits (setrlimit(2)) to the hard ones: some distributions lower the soft ones alone.

    That of processes, for instance, to 4096 (RHEL's 20-nproc.conf). RLIMIT_AS is left alone: lowering it is deliberate.
    """
    for limit in limits:
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))
