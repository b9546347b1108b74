"""docs/launchers.md has each row of the launchers' table, in its order, and the rows of which a rule speaks."""

from __future__ import annotations

import re
from pathlib import Path

from bootstrap.launchers import LAUNCHERS

PAGE = (Path(__file__).parent.parent / "docs" / "launchers.md").read_text()
NAMES = [row.name for row in LAUNCHERS]


def spoken_of(rule: str) -> set[str]:
    """The rows that a rule names in its first sentence."""
    (text,) = re.findall(rf"- \*\*{rule}\*\*:([^.]+)\.", PAGE)
    return {name for name in re.findall(r"`([a-z-]+)`", text) if name in NAMES}


def test_each_row_is_there_in_the_order_of_precedence() -> None:
    assert [name for name in re.findall(r"^\| `([a-z-]+)`", PAGE, re.MULTILINE) if name in NAMES] == NAMES


def test_the_rules_name_their_rows() -> None:
    assert spoken_of("Starts lost runs anew") == {row.name for row in LAUNCHERS if row.requeues}
    assert spoken_of("Can be rehearsed") == {row.name for row in LAUNCHERS if not row.environment}
    assert spoken_of("Replaces lost nodes") == {row.name for row in LAUNCHERS if row.replaced_nodes == "none"}
