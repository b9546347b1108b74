"""The record of a run's end, which a head leaves in the shared folder for nodes that have yet to come.

It says with which status and why the run ended, and which ranks have not heard of it; it holds no secret. It lies
beside the head's own record, in the folder that only this user can open, and outlives it. Each rank believes it once
and leaves a mark; the last one removes both. What no rank removes, the user's next head in that folder does.
"""

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.model import Verdict
from bootstrap.rendezvous import own_folder
from bootstrap.rollcall import wire
from bootstrap.rollcall.admission import MOST_NODES

PREFIX = "end-"
_REASON_START, _REASON_END = 1000, 3000
"""Characters of a long reason that stay: its start says who, its end has the last error."""
_MOST_RANGES = 2000


class RunEnded(Exception):
    """The head of this run has ended before this node came, and has left its verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, for the nodes that have never been its members."""

    verdict: Verdict
    host: str
    """The head's name."""
    time: float
    """When it ended, in seconds since the epoch by the head's clock."""
    count: int
    """How many nodes have not heard of it."""
    ranks: Sequence[int] | None
    """Which; None where nodes have no numbers."""
    path: str = ""
    """The record's file."""

    def concerns(self, rank: int | None) -> bool:
        """Return whether a node of this rank is among those that have not heard of it."""
        return rank is None or self.ranks is None or rank in self.ranks

    def verdict_there(self) -> Verdict:
        """Return the verdict for a node that has found the record, with when and where the head ended."""
        first, *more = self.verdict.reason.splitlines() or [""]
        when = time.strftime("%H:%M:%S", time.localtime(self.time))
        note = (
            f"the head ended on {self.host} at {when}, {max(0.0, time.time() - self.time):.0f} s ago, before this node"
            f" came; if that was another run with the same run id: rm {self.path}, and give each its own --run-id"
        )
        return Verdict(self.verdict.status, "\n".join([first, note, *more]), self.verdict.source)


def name_for(run_hash: str, attempt: int) -> str:
    """Return the record's file name."""
    return f"{PREFIX}{run_hash}-{attempt}.json"


def encode(end: End, run_id: str, attempt: int, head: str) -> bytes:
    """Return the record's text. ``head`` is the nonce of the head's own record."""
    reason = end.verdict.reason
    if len(reason) > _REASON_START + _REASON_END:
        reason = f"{reason[:_REASON_START]} [...] {reason[-_REASON_END:]}"
    content = {**asdict(end.verdict), "reason": reason, "host": end.host, "time": end.time, "count": end.count}
    content |= {"ranks": None if end.ranks is None else _ranges(end.ranks)}
    return json.dumps({"run_id": run_id, "attempt": attempt, "head": head, **content}).encode()


def decode(content: dict[str, Any], mode: int, path: Path, key: dict[str, Any]) -> End:
    """Return the end that a record holds.

    :param mode: of its file.
    :param key: what it must say of the run.
    :raises ValueError: saying why it is not valid, or no longer.
    """
    if mode & 0o022:
        raise ValueError(f"other users can write it (mode {mode:o})")
    for name, value in key.items():
        if content.get(name) != value or isinstance(content.get(name), bool):
            raise ValueError(f"{name} is {content.get(name)!r}, expected {value!r}")
    message = {**content, "t": "the record of an end"}
    ended, ranges = content.get("time"), content.get("ranks")
    if not isinstance(ended, int | float) or isinstance(ended, bool) or not abs(ended) < wire.TOO_MUCH:
        raise ValueError("without a valid 'time'")
    if time.time() - ended > timeouts.END_KEPT_S:
        raise ValueError(f"it is {(time.time() - ended) / 3600:.0f} h old")
    status, source = wire.number(message, "status") & 255, wire.text(message, "source")[: wire.MAX_NAME]
    verdict = Verdict(status, wire.text(message, "reason"), source)
    host = wire.text(message, "host")[: wire.MAX_NAME]
    return End(verdict, host, ended, wire.number(message, "count"), _ranks(ranges), str(path))


def take(folder: Path, name: str, rank: int | None, count: int) -> None:
    """Note that a node has believed the record; the last one removes it.

    :raises OSError: if the folder is gone, or cannot be written.
    """
    with own_folder.own(folder) as descriptor:
        if descriptor is None:
            return
        mark = _mark(name, rank)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=descriptor))
        marks = [each for each in own_folder.names(descriptor) if each.startswith(f"{name}.")]
        if len(marks) >= count:
            _remove(descriptor, [name, *marks])


def is_taken(name: str, rank: int | None, names: Sequence[str]) -> bool:
    """Return whether this rank has believed the record before: it is a node that was started again."""
    return rank is not None and _mark(name, rank) in names


def purge(folder: int, own: str) -> None:
    """Remove the record named ``own``, and all that is older than :data:`timeouts.END_KEPT_S`."""
    for name in own_folder.names(folder):
        if not name.lstrip(".").startswith(PREFIX):
            continue
        with contextlib.suppress(OSError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            old = time.time() - status.st_mtime > timeouts.END_KEPT_S
            if stat.S_ISREG(status.st_mode) and (old or name.lstrip(".").startswith(own)):
                os.unlink(name, dir_fd=folder)


def _mark(name: str, rank: int | None) -> str:
    return f"{name}.{secrets.token_hex(4) if rank is None else f'rank-{rank}'}"


def _remove(folder: int, names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _ranges(ranks: Sequence[int]) -> list[list[int]]:
    """Return the ranks, which are in order, as pairs of the first and the last of each range."""
    found: list[list[int]] = []
    for rank in ranks:
        if found and found[-1][1] == rank - 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return found if len(found) <= _MOST_RANGES else [[ranks[0], ranks[-1]]]


def _ranks(ranges: object) -> Sequence[int] | None:
    if ranges is None:
        return None
    found: set[int] = set()
    for pair in ranges if isinstance(ranges, list) else [None]:
        low, high = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if not (type(low) is int and type(high) is int and 0 <= low <= high <= MOST_NODES):
            raise ValueError("without valid 'ranks'")
        found.update(range(low, high + 1))
    return sorted(found)
