"""What tests/conftest.py does to other tests: it catches what they leave alive, and skips or fails, and says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import wait_for
from survivors import describe

PREAMBLE = """
import os, subprocess, sys
import pytest
from hypothesis import given, strategies
"""
PLAIN = "subprocess.Popen(['sleep', '63'])"
UNMARKED_CHILD = "subprocess.Popen(['sleep', '63'], env={})"
ORPHAN = "subprocess.run(['sh', '-c', 'setsid sleep 63 &'])"
UNMARKED_ORPHAN_OF_A_MARKED_RUN = "subprocess.run(['sh', '-c', 'setsid sleep 63 &'], env=dict(nothing_left))"
ENDED = "subprocess.Popen(['true'])"
DYING = "subprocess.Popen(['sleep', '63']).terminate()"


def run_pytest(folder: Path, tests: str, **env: str) -> tuple[int, str]:
    """Status and output of a pytest of its own, with our conftest as a plugin."""
    (folder / "test_inner.py").write_text(PREAMBLE + tests)
    argv = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-c", "/dev/null", "."]
    base = {name: value for name, value in os.environ.items() if name not in ("CI", "OLDEST_RAY_PYTHON")}
    base |= {"PYTHONPATH": str(Path(__file__).parent), **env}
    result = subprocess.run(argv, cwd=folder, env=base, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("leak", [PLAIN, UNMARKED_CHILD, ORPHAN, UNMARKED_ORPHAN_OF_A_MARKED_RUN])
def test_what_a_test_leaves_alive_fails_it_and_is_killed(tmp_path: Path, leak: str) -> None:
    status, output = run_pytest(tmp_path, f"def test_leaks(nothing_left):\n    {leak}\n")
    assert status == 1
    found = re.search(r"the test left alive \(killed now\):\n  (\d+) sleep 63\n", output)
    assert found, output
    # A zombie, which PID 1 has yet to reap, has no command line.
    wait_for(lambda: describe(int(found[1])) == f"{found[1]} ", what="the end of the process")


@pytest.mark.parametrize("harmless", [ENDED, DYING, "given(strategies.text())(lambda text: None)()"])
def test_what_has_ended_or_is_about_to_is_no_leak(tmp_path: Path, harmless: str) -> None:
    status, output = run_pytest(tmp_path, f"def test_fine():\n    {harmless}\n")
    assert status == 0, output


NEEDS = "@pytest.mark.requires('oldest-ray')\ndef test_needs(): pass\n"
REASON = "needs oldest-ray (OLDEST_RAY_PYTHON: a Python with Ray 2.52.0; `make test` makes one)"


def test_a_test_whose_needs_are_not_met_is_skipped_and_the_summary_says_why(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS)
    assert status == 0
    assert f"not run: 1 test: {REASON}\n" in output
    assert output.rstrip().splitlines()[-1].startswith("=")  # the closing line is pytest's


def test_with_ci_true_it_fails_instead(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS, CI="true")
    assert status == 1
    assert f"{REASON} - and with CI=true nothing is skipped" in output


def test_it_runs_where_its_needs_are_met(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS, CI="true", OLDEST_RAY_PYTHON=sys.executable)
    assert (status, "1 passed" in output) == (0, True)


def test_hosts_need_programs_that_are_on_the_path(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, "@pytest.mark.hosts\ndef test_hosts(make_hosts): pass\n", PATH="/nowhere")
    assert status == 0
    assert "ip (apt-get install iproute2)" in output
    assert "nsenter (apt-get install util-linux)" in output
