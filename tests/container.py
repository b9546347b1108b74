"""What a container runtime does between fork and exec: ``container.py SPEC.json``.

It starts as root and as PID 1 of a new PID namespace, in the other namespaces of a host of :mod:`hosts`. The spec:
``root`` ("" for the host's own), ``hostname`` (null leaves it), ``mounts`` (["bind", SOURCE, TARGET] and
["tmpfs", OPTIONS, TARGET], in order), ``files`` (TARGET → SOURCE, which are in the image), ``visible`` (folders that
the user must reach although they lie below a private one such as /root), ``read_only``, ``user``, ``group``,
``groups``, ``capabilities`` (false drops all), ``cwd``, ``env``, ``argv``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_STAGE = "/run/container-stage"
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def bind(source: str, target: str) -> None:
    """Makes what is missing of the target, as runtimes do."""
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    mount("--rbind", source, target)


def cover(paths: Iterable[str]) -> None:
    """Hides /opt and every private folder on the way to ``paths``, and puts the paths back into its place."""
    hidden = {str(p): [path for path in paths if path.startswith(f"{p}/")] for p in _private(paths)}
    hidden.setdefault("/opt", [path for path in paths if path.startswith("/opt/")])
    for number, (folder, inside) in enumerate(hidden.items()):
        for index, path in enumerate(inside):
            bind(path, f"{_STAGE}/cover{number}-{index}")
        if not Path(folder).is_dir():
            continue
        mount("-t", "tmpfs", "-o", "mode=755", "covered", folder)
        for index, path in enumerate(inside):
            bind(f"{_STAGE}/cover{number}-{index}", path)


def _private(paths: Iterable[str]) -> list[Path]:
    """The outermost folder on the way to each path that others may not enter."""
    ways = ([p for p in reversed(Path(path).parents) if not p.stat().st_mode & 0o001] for path in paths)
    return list(dict.fromkeys(way[0] for way in ways if way))


def devices(root: str) -> None:
    """A /dev of the container's own."""
    bind("/dev", f"{_STAGE}/dev")
    Path(f"{root}/dev").mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "mode=755", "dev", f"{root}/dev")
    for name in DEVICES:
        bind(f"{_STAGE}/dev/{name}", f"{root}/dev/{name}")
    bind(f"{_STAGE}/dev/pts", f"{root}/dev/pts")
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        Path(f"{root}/dev/{name}").symlink_to(f"/proc/self/fd{target}")
    Path(f"{root}/dev/shm").mkdir()
    mount("-t", "tmpfs", "-o", "size=64m,mode=1777", "shm", f"{root}/dev/shm")


def enter(spec: Mapping[str, Any]) -> None:
    """All mounts, then the root folder."""
    root = spec["root"]
    Path(_STAGE).mkdir(exist_ok=True)  # of an earlier container on this host
    if root:
        mount("--bind", root, root)
        mount("-t", "proc", "proc", f"{root}/proc")
        bind("/sys", f"{root}/sys")
        for file in ("hosts", "resolv.conf"):
            bind(f"/etc/{file}", f"{root}/etc/{file}")
    else:
        cover(spec["visible"])
    devices(root)
    binds = {target: source for kind, source, target in spec["mounts"] if kind == "bind"} | spec["files"]
    seen = {path: path for path in spec["visible"] if not root}
    staged = {target: f"{_STAGE}/from{number}" for number, target in enumerate([*binds, *seen])}
    for target, source in {**binds, **seen}.items():  # all of them first: a volume at /tmp hides what is below /tmp
        bind(source, staged[target])
    for kind, options, target in spec["mounts"]:
        if kind == "bind":
            bind(staged[target], root + target)
        else:
            Path(root + target).mkdir(parents=True, exist_ok=True)
            mount("-t", "tmpfs", "-o", options, "volume", root + target)
    for target in [*spec["files"], *(path for path in seen if not Path(path).exists())]:
        bind(staged[target], root + target)
    for stage in Path(_STAGE).iterdir():
        subprocess.run(["umount", "-l", str(stage)], check=False)
    if spec["read_only"]:
        freeze(root, {target for _, _, target in spec["mounts"]})
    if root:
        os.chroot(root)


def freeze(root: str, volumes: set[str]) -> None:
    """Everything read-only but the volumes and what the kernel itself serves."""
    kept = tuple(f"{root}{path}" for path in (*volumes, "/proc", "/sys", "/dev"))
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in points:
        if (not root or point.startswith(root)) and not any(point == k or point.startswith(f"{k}/") for k in kept):
            mount("-o", "remount,bind,ro", point)


def become(spec: Mapping[str, Any]) -> None:
    """The user, without the way back; capabilities go with user 0, or by the bounding set."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not spec["capabilities"]:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        for capability in range(last + 1):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(spec["groups"])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    if not spec["capabilities"]:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text())
    if spec["hostname"] is not None:
        socket.sethostname(spec["hostname"])
    enter(spec)
    become(spec)
    os.chdir(spec["cwd"])
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would outlive the exec
        signal.signal(signum, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(spec["env"])
    os.execvp(spec["argv"][0], spec["argv"])


if __name__ == "__main__":
    main(sys.argv[1])
