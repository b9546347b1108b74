"""The control groups of this process (cgroups(7)): what a file says in its own group and in those above it."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from bootstrap.host import Host

FIX_OOM = "more memory for each node (limits.memory in Kubernetes, sbatch --mem), or less at once (--num-cpus)"


def values(host: Host, controller: str, name: str, *, v2: bool) -> Iterator[tuple[str, str]]:
    """Yield ``(group, text)`` of the file ``name`` in our control group and in each above it: every level limits."""
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if v2 if not controllers else (not v2 and controller in controllers.split(",")):
            mount = _mount(host, controllers, controller)
            if mount is not None:
                yield from _levels(host, mount, group, name)


def memory_limits(host: Host) -> Iterator[tuple[int, str]]:
    """Yield each limit of memory in bytes, with its source."""
    for name, v2 in (("memory.max", True), ("memory.limit_in_bytes", False)):
        for path, text in values(host, "memory", name, v2=v2):
            # v1 writes "no limit" as a number that no machine has.
            if text.isdecimal() and 0 < int(text) < 1 << 60:
                yield int(text), f"cgroup v{2 if v2 else 1} {name} of {path}"


def oom_kills(host: Host) -> int | None:
    """Return how many processes of our group the kernel's OOM killer has ended so far; None if no file counts them.

    The nearest group with the memory controller counts, whichever limit was reached, the machine's memory included.
    """
    for name, v2 in (("memory.events", True), ("memory.oom_control", False)):
        for _, text in values(host, "memory", name, v2=v2):
            counts = dict(line.partition(" ")[::2] for line in text.splitlines())
            return int(counts["oom_kill"]) if "oom_kill" in counts else None  # Linux 4.13 or later
    return None


def oom_kills_since(host: Host, before: int | None) -> str:
    """Return what the OOM killer has done in our group since it had ended ``before`` processes; empty if nothing."""
    now = oom_kills(host)
    if now is None or before is None or now <= before:
        return ""
    count = "1 process" if now - before == 1 else f"{now - before} processes"
    limit = min(memory_limits(host), default=None)
    of = f", which is limited to {limit[0] >> 20} MiB" if limit else ""
    return f"the kernel's OOM killer ended {count} in the cgroup of {host.hostname}{of}"


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
