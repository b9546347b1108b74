"""What an earlier attempt of a run has set up on this machine, so that a later one need not do it again.

The record stays in the runtime directory of the attempt that wrote it, as long as Ray's logs there.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap.files.runtime_dir import SETUP, RuntimeDir, own_folders
from bootstrap.host import Host

MOST = 1024 * 1024
"""Bytes that commands may write to their file of variables."""


@dataclass(frozen=True)
class Done:
    """The commands of ``--setup`` that have succeeded here, and what they wrote."""

    run_id: str
    attempt: int
    commands: Sequence[str]
    system: str
    """Changes with a boot, and with the container: what they set up may be gone then."""
    written: str


def system(host: Host) -> str:
    """Return what distinguishes this system from another one with the same /tmp: its boot, and its root folder.

    A container that is made anew has a new root folder, even where its path and its inode are those of the last one.
    """
    boot, root = host.read("/proc/sys/kernel/random/boot_id") or "", host.path("/").stat()
    return f"{boot.strip()} {root.st_dev} {root.st_ino} {root.st_ctime_ns}"


def save(runtime: RuntimeDir, done: Done) -> None:
    """Keep what was done for a later attempt; a full disk only means that it is done again."""
    runtime.write_private(SETUP, json.dumps(dataclasses.asdict(done)).encode())


def earlier(like: Done) -> Done | None:
    """Return what the last earlier attempt did here by the same commands; None if there was none."""
    found: list[tuple[float, Done]] = []
    for path, _ in own_folders():
        try:
            done = Done(**json.loads(RuntimeDir(path).read(SETUP, 8 * MOST)))
            same = dataclasses.replace(done, attempt=like.attempt, written=like.written) == like
            if same and done.attempt < like.attempt:
                found.append(((path / SETUP).stat().st_mtime, done))
        except (OSError, ValueError, TypeError, RecursionError):
            continue  # there is none, or it is damaged
    return max(found, key=lambda each: each[0])[1] if found else None
