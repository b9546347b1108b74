"""A run's nodes as a table for people."""

import itertools
from collections.abc import Iterator, Sequence

from bootstrap.rollcall.observer import Row

_HEADINGS = ("rank", "host", "address", "phase", "since", "CPUs", "GPUs", "findings")


def table(rows: Sequence[Row], unseen: Sequence[int]) -> list[str]:
    """Return a heading, then a line for each node, and for each range of ranks that were never seen."""
    cells = [_HEADINGS, *map(_cells, rows), *((ranks, "-", "-", "never seen") for ranks in _ranges(unseen))]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*cells, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in cells]


def _cells(row: Row) -> tuple[str, ...]:
    said = "; ".join(" ".join(text.partition("; fix: ")[0].split()) for text in (row.detail, *row.findings) if text)
    measured = (str(row.cpus), str(row.gpus)) if row.cpus else ("-", "-")  # an unfit node was not measured
    return (str(row.rank), row.host, row.ip, row.phase.value, _duration(row.seconds), *measured, said)


def _duration(seconds: int) -> str:
    """Return ``59 s``, ``59 min``, ``47 h`` or ``3 d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _ranges(ranks: Sequence[int]) -> Iterator[str]:
    """Yield ``3``, ``5-9`` for 3, 5, 6, 7, 8, 9."""
    for _, group in itertools.groupby(enumerate(ranks), lambda each: each[1] - each[0]):
        found = [rank for _, rank in group]
        yield str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"
