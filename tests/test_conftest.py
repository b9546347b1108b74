"""What tests/conftest.py does to other tests: it catches what they leave alive, and skips or fails, and says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from hosts import wait_for
from survivors import describe

PREAMBLE = """
import ctypes, os, signal, subprocess, sys
import conftest
import pytest
"""
LEAKS = {
    "child": "subprocess.Popen(['sleep', '63'])",
    "unmarked_child": "subprocess.Popen(['sleep', '63'], env={})",
    "child_of_c_code": "ctypes.CDLL(None).fork() or os.execv('/bin/sleep', ['sleep', '63'])",
    "orphan": "subprocess.run(['sh', '-c', 'setsid sleep 63 &'])",
    "orphan_of_a_shell": "os.system('setsid sleep 63 &')",
    "orphan_of_a_marked_run": "subprocess.run(['sh', '-c', 'setsid sleep 63 &'], env=dict(nothing_left))",
    # The pipe closes when it has executed: until then it has no mark, and for a moment no parent of ours either.
    "daemon": "r, w = os.pipe(); os.fork() or os.setsid() or os.fork() and os._exit(0)"
    " or os.execv('/bin/sleep', ['sleep', '63']); os.close(w); os.read(r, 1)",
}
HARMLESS = {
    "ended": "subprocess.Popen(['true'])",
    "dying": "subprocess.Popen(['sleep', '63']).terminate()",
}
STARTS_NOTHING = {"nothing": "pass"}


def run_pytest(folder: Path, tests: str, **env: str) -> tuple[int, str]:
    """Status and output of a pytest of its own, with our conftest as a plugin."""
    (folder / "test_inner.py").write_text(PREAMBLE + tests)
    plugins = ["-p", "conftest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    argv = [sys.executable, "-m", "pytest", *plugins, "-c", "/dev/null", "."]
    base = {name: value for name, value in os.environ.items() if name not in ("CI", "OLDEST_RAY_PYTHON")}
    base |= {"PYTHONPATH": str(Path(__file__).parent), **env}
    result = subprocess.run(argv, cwd=folder, env=base, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stdout + result.stderr


def functions(bodies: dict[str, str]) -> str:
    return "".join(f"def test_{name}(nothing_left):\n    {body}\n" for name, body in bodies.items())


def test_what_a_test_leaves_alive_fails_it_and_is_killed(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, "conftest._SECONDS_TO_DIE = 0.1\n" + functions(LEAKS))
    assert status == 1
    found = re.findall(
        r"ERROR at teardown of test_(\w+) .*\nthe test left alive \(killed now\):\n  (\d+) sleep 63\n", output
    )
    assert [name for name, _ in found] == list(LEAKS), output
    # A zombie, which PID 1 has yet to reap, has no command line.
    for _, pid in found:
        wait_for(lambda pid=pid: describe(int(pid)) == f"{pid} ", what="the end of the process")


def test_what_has_ended_or_is_about_to_is_no_leak(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, functions(HARMLESS | STARTS_NOTHING))
    assert status == 0, output


def test_only_what_starts_a_process_is_followed_by_a_look_at_all(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, "conftest.marked = None\n" + functions(HARMLESS | STARTS_NOTHING))
    assert status == 1
    assert re.findall(r"^ERROR .*::test_(\w+) - TypeError", output, re.MULTILINE) == list(HARMLESS), output


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
