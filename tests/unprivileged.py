"""A command as an ordinary user, on a machine where the tests are root and Python may lie in a folder of root's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
NOBODY = 65534
_OPEN = """
set -eu
while [ "$1" != -- ]; do # CLOSED FOLDER...: a folder that others may not enter, and what they are to see in it
    closed=$1 folder=$2
    shift 2
    kept=$(mktemp -d)
    mount --rbind "$folder" "$kept"
    if [ "${opened:-}" != "$closed" ]; then mount -t tmpfs -o mode=755 none "$closed"; fi
    opened=$closed
    mkdir -p "$folder"
    mount --move "$kept" "$folder"
    rmdir "$kept"
done
shift
"""


def as_nobody(*argv: str, needs: Iterable[str | Path] = ()) -> list[str]:
    """The command line that runs ``argv`` as user and group 65534, without any other group, once started as root.

    It sees Python, this repository and what it ``needs`` even below a folder of root's, such as /root, in a mount
    namespace of its own.
    """
    words: list[str] = []
    for path in sorted({Path(sys.base_prefix), Path(sys.prefix).resolve(), REPOSITORY, *map(Path, needs)}):
        closed = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
        words += [str(closed[0]), str(path)] if closed else []
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--"]
    enter = ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", f'{_OPEN}exec "$@"', "sh"]
    return [*enter, *words, "--", *user, *argv]
