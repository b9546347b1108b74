"""The table at the end of a rehearsal."""

from collections.abc import Sequence

from bootstrap.rehearsal.play import Ending

_LONGEST = 120
"""Characters of a reason."""


def lines(endings: Sequence[Ending]) -> list[str]:
    """Return the table: each node, its status, when it ended, and why."""
    rows = [("node", "rank", "status", "after", "why")]
    for each in endings:
        status = "-" if each.status is None else str(each.status)
        why = each.why if len(each.why) <= _LONGEST else f"{each.why[:_LONGEST]}..."
        rows.append((each.name, str(each.rank), status, f"{each.seconds:.1f} s", why))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    # Names to the left, numbers to the right.
    forms = [f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:]), "{}"]
    return ["  ".join(form.format(cell) for form, cell in zip(forms, row, strict=True)).rstrip() for row in rows]
