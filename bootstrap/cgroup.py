"""The control groups of this process (cgroups(7)): what its group and those above it permit, and what is used."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from bootstrap.host import Host

OOM = "the kernel's OOM killer ended"
FIX_OOM = "more memory for each node (limits.memory in Kubernetes, sbatch --mem), or less at once (--num-cpus)"

_FILES = {
    ("memory", True): ("memory.max", "memory.current", "memory.stat"),
    ("memory", False): ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    ("pids", True): ("pids.max", "pids.current", ""),
    ("pids", False): ("pids.max", "pids.current", ""),
}
"""The limit, the usage, and the file that says what of it can be dropped, by controller and whether it is cgroup v2."""
_UNLIMITED = 1 << 60
"""v1 writes "no limit" as a number that no machine has."""
_HANDICAP = 128 << 20
"""More memory than an agent takes."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A limit, and how much of it is used; of memory in bytes, of processes and threads their number."""

    limit: int
    used: int
    source: str

    @property
    def free(self) -> int:
        """What is left."""
        return max(0, self.limit - self.used)


def usages(host: Host, controller: str) -> Iterator[Usage]:
    """Yield every limit of ``controller``, which is ``memory`` or ``pids``, on our control group and those above it.

    Files that the kernel can drop at any time do not count as used memory, as for the kubelet: the working set.
    """
    for v2 in (True, False):
        limit_file, usage_file, stat_file = _FILES[controller, v2]
        used = dict(values(host, controller, usage_file, v2=v2))
        stats = values(host, controller, stat_file, v2=v2) if stat_file else ()
        droppable = {path: _inactive_files(text) for path, text in stats}
        for path, text in values(host, controller, limit_file, v2=v2):
            if text.isdecimal() and 0 < int(text) < _UNLIMITED:
                now = used.get(path, "")
                in_use = max(0, int(now) - droppable.get(path, 0)) if now.isdecimal() else 0
                yield Usage(int(text), in_use, f"cgroup v{2 if v2 else 1} {limit_file} of {path}")


def _inactive_files(stat: str) -> int:
    """Return the bytes of inactive files in ``memory.stat``; v1 counts those of the groups below as ``total_…``."""
    found = re.search(r"^total_inactive_file ([0-9]+)$", stat, re.MULTILINE) or re.search(
        r"^inactive_file ([0-9]+)$", stat, re.MULTILINE
    )
    return int(found[1]) if found else 0


def values(host: Host, controller: str, name: str, *, v2: bool) -> Iterator[tuple[str, str]]:
    """Yield ``(group, text)`` of the file ``name`` in our control group and in each above it: every level limits."""
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if v2 if not controllers else (not v2 and controller in controllers.split(",")):
            mount = _mount(host, controllers, controller)
            if mount is not None:
                yield from _levels(host, mount, group, name)


def oom_kills(host: Host) -> int | None:
    """Return how many processes of our group the kernel's OOM killer has ended so far; None if no file counts them.

    The nearest group with the memory controller counts, whichever limit was reached, the machine's memory included.
    """
    for name, v2 in (("memory.events", True), ("memory.oom_control", False)):
        for _, text in values(host, "memory", name, v2=v2):
            counts = dict(line.partition(" ")[::2] for line in text.splitlines())
            return int(counts["oom_kill"]) if "oom_kill" in counts else None  # Linux 4.13 or later
    return None


def oom_score_adj(host: Host) -> int:
    """Return an ``oom_score_adj`` with which the kernel takes a process for 128 MiB bigger than it is.

    A unit is a thousandth of the memory of the group that has run out, or of the machine's (proc_pid_oom_score_adj(5)).
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = min([machine, *(use.limit for use in usages(host, "memory"))])
    inherited = (host.read("/proc/self/oom_score_adj") or "").strip()
    return min(1000, int(inherited or 0) + 1 + 1000 * _HANDICAP // memory)


@dataclass(frozen=True, slots=True)
class OomCount:
    """How many processes of our group the OOM killer had ended when a run began; None if no file counts them."""

    host: Host
    before: int | None

    def since(self) -> str:
        """Return, as text for people, what it has done since then; empty if nothing."""
        now = oom_kills(self.host)
        if now is None or self.before is None or now <= self.before:
            return ""
        count = "1 process" if now - self.before == 1 else f"{now - self.before} processes"
        limit = min((use.limit for use in usages(self.host, "memory")), default=None)
        of = f" (memory limit: {limit >> 20} MiB)" if limit else ""
        return f"{OOM} {count} in the cgroup of {self.host.hostname}{of}"


def _mount(host: Host, controllers: str, controller: str) -> str | None:
    """Return where a hierarchy is mounted, by the convention of systemd and the container runtimes; None if nowhere."""
    places = ("", "/unified") if not controllers else (f"/{controllers}", f"/{controller}")
    for place in places:
        mount = f"/sys/fs/cgroup{place}"
        if host.path(mount).is_dir() and (controllers or host.path(f"{mount}/cgroup.procs").exists()):
            return mount
    return None


def _levels(host: Host, mount: str, group: str, name: str) -> Iterator[tuple[str, str]]:
    path = PurePosixPath("/", group)
    # Without a cgroup namespace a container reads its path on the host here, but its mount begins at its own group.
    if ".." in path.parts or not host.path(f"{mount}{path}").is_dir():
        path = PurePosixPath("/")
    for level in (path, *path.parents):
        text = host.read(f"{mount}{level}/{name}")
        if text and text.strip():
            yield str(level), text.strip()
