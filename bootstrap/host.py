"""The only door to what surrounds the process: environment, host name, clock, and the roots of /proc, /sys and /etc.

Everything else takes a :class:`Host`, so a test gives it another one and nothing reads the environment behind
somebody's back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """One machine as a process sees it."""

    env: Mapping[str, str]
    hostname: str
    root: Path = field(default=Path("/"))
    """Prefix of every system file read (/proc, /sys, /etc, /dev); another one in tests."""

    def path(self, absolute: str) -> Path:
        """The system file ``absolute`` (such as ``/proc/self/cgroup``) below this host's root."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """The text of a system file, or None where it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def get(self, name: str) -> str | None:
        """A variable's value; None where it is unset **or empty** (launchers export empty ones)."""
        return self.env.get(name) or None


def this_host() -> Host:
    """The real one; a snapshot of the environment at this moment."""
    return Host(env=dict(os.environ), hostname=socket.gethostname())
