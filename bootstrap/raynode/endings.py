"""What mends a Ray process that ended, or a `ray start` that does not: the remedy that fits the cause."""

import re
from collections.abc import Mapping, Sequence

from bootstrap.cgroup import FIX_OOM, OOM
from bootstrap.process.table import ending

_FIX_KILLED = (
    "another process, or the platform, killed it: `journalctl -k | tail` or `dmesg -T | tail`,"
    " `journalctl -u earlyoom -u systemd-oomd`, and the platform's events say which"
)
_FIX_SHM = "make room where `df -h /dev/shm` shows none (`ls -l /dev/shm`), or --object-store-memory=SIZE"
_FIX_WAY = (
    "check the way to GCS: `ip route get {host}` and `nft list ruleset` on that node, `ss -ltn sport = :{port}` and"
    " `nft list ruleset` on the head; in Kubernetes the NetworkPolicy must admit port {port}"
)
_LOOK = "see the cause above; the last line names Ray's logs"
_LOOK_IN_LOGS = "Ray's logs, which the last line names, may say why; `journalctl -k | tail` shows a crash"

_CAUSES: Sequence[tuple[str, str]] = (
    (re.escape(OOM), FIX_OOM),
    ("was killed by SIGKILL", _FIX_KILLED),
    ("was killed by SIGBUS", _FIX_SHM),
    (r"to GCS at address \[?(?P<host>(?<=\[)[^\]]+|[^\s:\[]+)\]?:(?P<port>[0-9]+)", _FIX_WAY),
    (
        r"(?i)address already in use|port is already in use|failed to bind|errno 98",
        "`ss -ltnp` shows which process has the port; give that port's option (--help) another number, or leave it out",
    ),
    (r"(?i)no space left on device", "`df -h` shows the full disk; --temp-dir=DIR on a disk with space"),
    (r"(?i)too many open files", "raise the limit of open files (ulimit -n; docker run --ulimit nofile=65536:65536)"),
    (r"(?i)bad_alloc|cannot allocate memory|MemoryError", FIX_OOM),
    (
        r"(?i)resource temporarily unavailable|can't start new thread|pthread_create",
        "raise the limit of processes and threads: `ulimit -u`, pids.max of the control group",
    ),
    (r"error while loading shared libraries|GLIBC", "the image lacks a library: `ldd` of the program that is named"),
)
"""How an end or a line of Ray's is mended; the first that matches counts, and its remedy may quote what it names."""


def describe(ended: Mapping[str, int | None], oom: str) -> str:
    """Return how processes ended, by name and wait status, and what the OOM killer has done meanwhile."""
    return "; ".join([*(f"{name} {ending(status)}" for name, status in ended.items()), *filter(None, [oom])])


def remedy(what: str) -> str:
    """Return what mends an end of Ray's; ``what`` has how its processes ended, and what Ray printed or logged."""
    return remedy_of(what) or (_LOOK if "\n" in what.strip() else _LOOK_IN_LOGS)


def remedy_of(what: str) -> str:
    """Return what mends that; empty if it is nothing known."""
    for pattern, fix in _CAUSES:
        if found := re.search(pattern, what):
            return fix.format_map(found.groupdict())
    return ""
