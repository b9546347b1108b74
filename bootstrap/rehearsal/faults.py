"""The faults of a rehearsal: how users write them, and when they happen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import parsers
from bootstrap.errors import UsageError

_RANK = r"(?P<rank>[0-9]{1,4})"
_AT = r"@(?P<since>workload\+)?(?P<at>[^+@]+)"
FORMS: Mapping[str, tuple[str, str]] = {
    "late": (rf"{_RANK}=(?P<seconds>.+)", "RANK=TIME, such as 2=5s"),
    "slow": (rf"{_RANK}=(?P<seconds>.+)", "RANK=TIME, such as 2=50ms"),
    "refuse": (rf"{_RANK}:(?P<port>[0-9]+)", "RANK:PORT, such as 2:6379"),
    "kill": (rf"{_RANK}{_AT}", "RANK@TIME, such as 1@10s or 1@workload+5s"),
    "stop": (rf"{_RANK}{_AT}", "RANK@TIME, such as 0@20s or 0@workload+5s"),
    "cut": (rf"{_RANK}{_AT}\+(?P<seconds>[^+@]+)", "RANK@TIME+TIME, such as 1@10s+8s or 1@workload+5s+8s"),
}
"""How each fault of a node is written: as a pattern, and for people."""
HOSTS_FILES = ("none", "loopback", "right")
"""What /etc/hosts of each node maps its own name to: nothing, 127.0.1.1 as on Debian, or its address."""
_SLOWEST_S = 2.0
"""Delay of a packet beyond which no connection comes about within the agents' limits."""
ON_A_NETWORK = ("slow", "refuse", "cut")
"""The faults that need a network of the node's own."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to one node."""

    kind: str
    rank: int
    text: str
    """As the user gave it: ``--kill 1@10s``."""
    at: float = 0.0
    """When it happens, in seconds from the start of the first node, or of the workload."""
    in_workload: bool = False
    seconds: float = 0.0
    """How late the node starts, how long each of its packets is delayed, or how long the node is cut off."""
    port: int = 0


@dataclass(frozen=True)
class Faults:
    """All faults of a rehearsal."""

    of_nodes: tuple[Fault, ...] = ()
    hosts_file: str = "right"

    def of(self, rank: int, kind: str) -> list[Fault]:
        """Return a node's faults of one kind."""
        return [fault for fault in self.of_nodes if (fault.rank, fault.kind) == (rank, kind)]

    @property
    def timetable(self) -> list[Fault]:
        """Return those that happen during the run, in order: first those timed from its start."""
        timed = [fault for fault in self.of_nodes if fault.kind in ("kill", "stop", "cut")]
        return sorted(timed, key=lambda fault: (fault.in_workload, fault.at))


def load(given: Mapping[str, Sequence[str]], file: str | None, nodes: int) -> Faults:
    """Return the faults given as switches and in a file; of two ``hosts-file`` the switch counts.

    :param given: the texts by kind, with ``hosts-file``.
    :param file: one fault a line, such as ``kill 1@10s``; empty lines and those that begin with # are skipped.
    :raises UsageError: with everything that is wrong.
    """
    wrong: list[str] = []
    found: list[Fault] = []
    hosts_file = "right"
    for kind, text, origin in [*_of_file(file), *_of_switches(given)]:
        try:
            if kind == "hosts-file":
                hosts_file = parsers.choice(*HOSTS_FILES)(text)
            else:
                found.append(_parse(kind, text, origin, nodes))
        except ValueError as error:
            wrong.append(f"{origin}: {error}")
    if wrong:
        raise UsageError(wrong)
    return Faults(tuple(found), hosts_file)


def _of_switches(given: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str]]:
    for kind, texts in given.items():
        yield from ((kind, text, f"--{kind} {text}") for text in texts)


def _of_file(file: str | None) -> Iterator[tuple[str, str, str]]:
    if file is None:
        return
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError([f"--faults={file}: {why}"], hint="--faults=FILE with one fault a line: kill 1@10s") from None
    for number, line in enumerate(lines, 1):
        kind, _, text = line.strip().removeprefix("--").partition(" ")
        if not kind or kind.startswith("#"):
            continue
        if kind not in (*FORMS, "hosts-file"):
            known = ", ".join((*FORMS, "hosts-file"))
            what = f"{file}, line {number}: unknown fault {parsers.quoted(kind)}"
            raise UsageError([what], hint=f"one of {known}, such as: kill 1@10s")
        yield kind, text.strip(), f"{kind} {text.strip()} ({file}, line {number})"


def _parse(kind: str, text: str, origin: str, nodes: int) -> Fault:
    pattern, form = FORMS[kind]
    match = re.fullmatch(pattern, text.strip())
    if match is None:
        raise ValueError(f"expected {form}")
    parts = match.groupdict()
    rank = int(parts["rank"])
    if rank >= nodes:
        raise ValueError(f"there is no rank {rank}: --nodes={nodes} makes ranks 0 to {nodes - 1}")
    at, seconds = (parsers.duration(parts[name]) if parts.get(name) else 0.0 for name in ("at", "seconds"))
    port = parsers.port(parts["port"]) if "port" in parts else 0
    if kind == "slow" and seconds > _SLOWEST_S:
        raise ValueError(f"{seconds:g} s for each packet; expected at most {_SLOWEST_S:g} s, such as 2=50ms")
    return Fault(kind, rank, origin, at, bool(parts.get("since")), seconds, port)
