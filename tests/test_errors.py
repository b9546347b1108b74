"""What of an error people get to see: a traceback is never the answer, its last line is."""

from __future__ import annotations

import pytest

from bootstrap.errors import in_brief, without_tracebacks

PLAIN = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
    ~^^
KeyError: 'x'
"""
CHAIN = f"""{PLAIN}
During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in <module>
    g()
ValueError: no ray_params
"""
LOGGED = "".join(f"(dashboard) {line}\n" for line in PLAIN.splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one line\nand another", "one line\nand another"),
        (PLAIN, "KeyError: 'x'"),
        (f"before\n{PLAIN}after", "before\nKeyError: 'x'\nafter"),
        (CHAIN, "ValueError: no ray_params"),
        (f"before\n{CHAIN}", "before\nValueError: no ray_params"),
        (LOGGED, "KeyError: 'x'"),
        (PLAIN + PLAIN, "KeyError: 'x'\nKeyError: 'x'"),
        ("it starts\n" + PLAIN.rpartition("KeyError")[0], "it starts"),
        (f"  + Exception Group {PLAIN.replace('KeyError', '  | KeyError')}", "KeyError: 'x'"),
    ],
)
def test_of_a_traceback_the_error_is_left(text: str, expected: str) -> None:
    assert without_tracebacks(text) == expected


def test_a_long_reason_keeps_its_first_and_its_last_line() -> None:
    assert in_brief("\n".join(map(str, range(20))), 4) == "0\n1\n2\n19"
    assert in_brief(f"it failed\n{CHAIN}", 4) == "it failed\nValueError: no ray_params"
