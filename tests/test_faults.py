"""The table of faults: docs/faults.md has it, and a test that runs by default checks each row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from faults import FAULTS, GROUPS, NONE, SIGNAL, WORKLOAD, Fault, check

TESTS = Path(__file__).parent
NOT_RUN = {"skip", "skipif", "xfail", "importorskip"}
"""Marks and calls of pytest. ``requires`` is none of them: it names what the machine lacks, and CI lacks nothing."""


def test_the_document_has_the_table() -> None:
    text = faults.DOCUMENT.read_text()
    assert faults.tables_in(text) == faults.render(), "docs/faults.md is not up to date: run `python tests/faults.py`"
    assert faults.with_tables(text) == text


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    files = sorted({*TESTS.rglob("test_*.py")} - {Path(__file__)})
    checked = {name for file in files for name in rows_checked(file.read_text(), file.name)}
    assert sorted(FAULTS.keys() - checked) == [], "no test checks these rows"
    assert sorted(checked - FAULTS.keys()) == [], "these are no rows of tests/faults.py"


def test_no_name_is_in_two_groups() -> None:
    assert len(FAULTS) == sum(map(len, GROUPS.values()))


def rows_checked(source: str, file: str = "") -> Iterator[str]:
    """The names of all rows that a file's tests pass to ``check``. Raises ValueError where that cannot be seen."""
    tree = ast.parse(source)
    if not (imports_check(tree) and (calls := list(calls_of_check(tree)))):
        return
    tests = {call: function for function in ast.walk(tree) if is_test(function) for call in calls_of_check(function)}
    whole = [node for node in tree.body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for call in calls:
        if call not in tests:
            raise ValueError(f"{file}:{call.lineno}: check() outside of a test")
        if found := {name for node in (tests[call], *whole) for name in names_in(node)} & NOT_RUN:
            raise ValueError(f"{file}:{call.lineno}: a test with {', '.join(found)} does not always run")
        names = list(constants(call.args[0], tests[call])) if call.args else []
        if not names:
            raise ValueError(f"{file}:{call.lineno}: name the row in the call, or in the test's parametrize")
        yield from names


def imports_check(tree: ast.Module) -> bool:
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "faults")
    return any(alias.name == "check" and alias.asname is None for node in imports for alias in node.names)


def is_test(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")


def calls_of_check(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check":
            yield node


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id


def constants(argument: ast.expr, test: ast.AST) -> Iterator[str]:
    """The text that an argument is, or those that the test's ``parametrize`` gives it."""
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
    if not (isinstance(argument, ast.Name) and isinstance(test, (ast.FunctionDef, ast.AsyncFunctionDef))):
        return
    for decorator in test.decorator_list:
        if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(".parametrize")):
            continue
        names, rows = decorator.args[:2]
        parameters = [ast.literal_eval(name) for name in elements(names)]
        if argument.id in parameters:
            at = parameters.index(argument.id)
            for row in elements(rows):
                value = elements(row)[at]
                if not isinstance(value, ast.Constant):
                    raise ValueError(f"line {value.lineno}: write the row's name out")
                yield str(value.value)


def elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List)) else [node]


CALLS = "from faults import check\n"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (CALLS + "def test_a(): check('one', there=1)\nasync def test_b(): check('two')", ["one", "two"]),
        (CALLS + "@pytest.mark.parametrize(('x', 'f'), [(1, 'one'), (2, 'two')])\ndef test_a(x, f): check(f)", None),
        (CALLS + "@pytest.mark.parametrize('f', ['one', 'two'])\ndef test_a(f): check(f, there=1)", None),
        ("def check(name): ...\ndef test_a(): check('three')", []),
        ("import pytest\npytestmark = pytest.mark.skip\ndef test_a(): ...", []),
    ],
)
def test_which_rows_a_file_checks(source: str, names: list[str] | None) -> None:
    assert list(rows_checked(source)) == (["one", "two"] if names is None else names)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def helper(): check('one')\ndef test_a(): helper()", "outside of a test"),
        ("check('one')", "outside of a test"),
        ("def test_a(): check(''.join('one'))", "name the row"),
        ("def test_a(f): check(f)", "name the row"),
        ("@pytest.mark.parametrize('f', ['o' + 'ne'])\ndef test_a(f): check(f)", "write the row's name out"),
        ("@pytest.mark.skip\ndef test_a(): check('one')", "a test with skip does"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_a(): check('one')", "a test with skipif does"),
        ("pytestmark = [pytest.mark.xfail]\ndef test_a(): check('one')", "a test with xfail does"),
        ("def test_a():\n    pytest.skip('slow')\n    check('one')", "a test with skip does"),
    ],
)
def test_what_would_hide_that_a_row_is_not_checked(source: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        list(rows_checked(CALLS + source))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {
        "two numbers": (137, 76),
        "goes on": (76, WORKLOAD),
        "signal": (SIGNAL, SIGNAL),
        "gone": (NONE, 76),
        "alone": (WORKLOAD, NONE),
    }
    table = {name: Fault("", "", "", there, elsewhere) for name, (there, elsewhere) in made.items()}
    monkeypatch.setattr(faults, "FAULTS", table)


@pytest.mark.usefixtures("rows")
def test_statuses_that_are_the_rows() -> None:
    check("two numbers", there=-9, elsewhere=[76, 76])
    check("two numbers", there=137, elsewhere=[76])
    check("goes on", there=76, elsewhere=[3], workload=3)
    check("signal", there=-2, elsewhere=[130], signum=2)
    check("gone", elsewhere=[76])
    check("alone", there=0, workload=0)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("two numbers", {"there": 76, "elsewhere": [76]}),
        ("two numbers", {"there": 137, "elsewhere": [76, 0]}),
        ("two numbers", {"there": 137}),
        ("two numbers", {"elsewhere": [76]}),
        ("goes on", {"there": 76, "elsewhere": [76], "workload": 3}),
        ("goes on", {"there": 76, "elsewhere": [3]}),
        ("signal", {"there": 143, "elsewhere": [143], "signum": 2}),
        ("gone", {"there": 76, "elsewhere": [76]}),
        ("alone", {"there": 3, "elsewhere": [3], "workload": 3}),
    ],
)
def test_statuses_that_are_not(name: str, measured: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match=name):
        check(name, **measured)  # type: ignore[arg-type]


@pytest.mark.usefixtures("rows")
def test_a_row_that_does_not_exist() -> None:
    with pytest.raises(KeyError):
        check("none", there=0)
