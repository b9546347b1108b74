"""The control groups of this process (cgroups(7)): what a file says in its own group and in those above it."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from bootstrap.host import Host


def values(host: Host, controller: str, name: str, *, v2: bool) -> Iterator[tuple[str, str]]:
    """Yield ``(group, text)`` of the file ``name`` in our control group and in each above it: every level limits."""
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if v2 if not controllers else (not v2 and controller in controllers.split(",")):
            mount = _mount(host, controllers, controller)
            if mount is not None:
                yield from _levels(host, mount, group, name)


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
