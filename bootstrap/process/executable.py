"""Whether a command can be started, and the statuses of a shell for one that cannot."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit statuses of a shell for a command that it cannot start (POSIX 2.8.2)."""


def find_fault(argv: Sequence[str], env: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the exit status and the reason if a command is sure not to start, else None."""
    path = os.pathsep.join(os.get_exec_path(env)) or os.pathsep  # as execvpe(3): empty means this folder
    if not argv or shutil.which(argv[0], path=path) is not None:
        return None
    if shutil.which(argv[0], os.F_OK, path) is not None or ("/" in argv[0] and Path(argv[0]).exists()):
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: it is a folder, or lacks execute permission"
    return NOT_FOUND, f"{argv[0]!r} is not found on PATH"
