"""The drawing of the house: which room may know which. A room knows only rooms on floors below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bootstrap"

FLOORS = (
    ("__main__",),
    ("cli",),
    ("launch",),
    ("commands", "run", "rehearsal"),
    ("cleanup", "preflight"),
    ("launchers", "raynode"),
    ("rendezvous", "probe"),
    ("rollcall", "node"),
    ("files",),
    ("net", "munge", "settings", "switches", "log", "cgroup", "namespaces", "drawing"),
    ("process", "model", "parsers"),
    ("errors", "host", "timeouts"),
    ("__init__",),
)
"""From the top of the house down. Rooms on one floor do not know each other."""

MAX_FILE, MAX_FUNCTION = 300, 40
"""Lines: what can be read without losing the thread."""


def room(module: str) -> str:
    """The top-level module or package below ``bootstrap`` that a dotted name belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(file: Path) -> str:
    parts = ("bootstrap", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts)


def imports(file: Path) -> Iterator[str]:
    """Every module of ours that a file imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("bootstrap"))
        elif isinstance(node, ast.ImportFrom) and node.module == "bootstrap":
            yield from (
                "bootstrap" if alias.name.startswith("__") else f"bootstrap.{alias.name}" for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bootstrap."):
            yield str(node.module)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_is_on_one_floor() -> None:
    rooms = {room(name_of(file)) for file in FILES}
    assert sorted(name for floor in FLOORS for name in floor) == sorted(rooms)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_room_knows_only_what_is_below_it(file: Path) -> None:
    own = room(name_of(file))
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    wrong = {module for module in imports(file) if room(module) != own and floor_of[room(module)] <= floor_of[own]}
    assert wrong == set()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_file_and_no_function_is_too_long(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= MAX_FILE
    functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))
    assert {f.name: size for f in functions if (size := (f.end_lineno or 0) - f.lineno + 1) > MAX_FUNCTION} == {}
