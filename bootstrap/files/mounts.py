"""Which file system holds a path, and whether other machines see it too."""

import os
import re
from pathlib import Path

from bootstrap.host import Host

# fmt: off
_NETWORKED = (
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "glusterfs", "orangefs", "pvfs2", "panfs",
    "wekafs", "dvs", "ocfs2", "gfs2",
)
# fmt: on
LOCAL_FUSE = ("fuse.fuse-overlayfs", "fuse.overlayfs")
"""The root of a rootless container, which no other machine sees."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


def is_networked(kind: str) -> bool:
    """Return whether a file system of this type is a network file system, which other machines may see."""
    return kind in _NETWORKED or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def mount_of(host: Host, path: Path) -> tuple[str, str]:
    """Return type and source of the file system that holds ``path`` (proc_pid_mountinfo(5)); empty if unknown."""
    real, longest, found = os.path.realpath(path), "", ("", "")
    for line in (host.read("/proc/self/mountinfo") or "").splitlines():
        fields, _, rest = line.partition(" - ")
        words, (kind, source, *_) = fields.split(" "), [*rest.split(" "), "", ""]
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), words[4]) if len(words) > 4 else ""
        below = real == point or real.startswith(point.rstrip("/") + "/")
        # A later mount at the same point hides the earlier one.
        if point and below and len(point) >= len(longest):
            longest, found = point, (kind, source)
    return found
