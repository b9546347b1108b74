"""A command as an ordinary user, on a machine where the tests are root and Python may lie in a folder of root's."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
NOBODY = 65534


def as_nobody(*argv: str, needs: Iterable[str | Path] = ()) -> list[str]:
    """The command line that runs ``argv`` as user and group 65534, without any other group, once started as root.

    It sees Python, this repository and what it ``needs`` even below a folder of root's, such as /root, in a mount
    namespace of its own.
    """
    python = (sys.executable, sys.prefix, sys.base_prefix)
    paths = sorted({Path(path).resolve() for path in (*map(_folder, python), REPOSITORY, *needs)})
    closed = {path: folders[0] for path in paths if (folders := _closed(path))}
    lines = [f"k{number}=$(mktemp -d); mount --rbind {quoted} $k{number}" for number, quoted in _quoted(closed)]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(folder))}" for folder in sorted(set(closed.values()))]
    for number, quoted in _quoted(closed):
        lines.append(f"mkdir -p {quoted}; mount --move $k{number} {quoted}; rmdir $k{number}")
    script = "\n".join(["set -eu", *lines, 'exec "$@"'])
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    return ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", script, "sh", *user, *argv]


def _folder(path: str) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).resolve().parent


def _closed(path: Path) -> list[Path]:
    """The folders on the way to ``path`` that others may not enter, from the root down."""
    return [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]


def _quoted(paths: Iterable[Path]) -> list[tuple[int, str]]:
    return [(number, shlex.quote(str(path))) for number, path in enumerate(paths)]
