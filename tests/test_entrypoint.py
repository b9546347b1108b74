"""The image's entrypoint as PID 1: no signal is lost once it runs, and the mask is the workload's again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from entrypoint import BASHRC, BEFORE, ENTRYPOINT
from faults import check
from namespaces import blocks, wait_for

from bootstrap.namespaces.linux import children_in_pid_namespace
from bootstrap.process import signals

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

PRINT_MASK = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))"


def program_of(pid: int) -> str:
    """The first word of its command line; empty in the midst of exec."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]


@pytest.mark.hosts
@pytest.mark.parametrize("milliseconds", [5, 20, 50, 100])
def test_sigterm_soon_after_exec_as_pid_1(site: Site, milliseconds: int) -> None:
    """Lost is only what comes before env(1) has blocked it, within its first millisecond."""
    with children_in_pid_namespace(None):
        node = site.run("--", "sleep", "600", before=["unshare", "--mount", "--mount-proc", "--", *BEFORE])
    pid = node.process.pid
    wait_for(lambda: program_of(pid) not in ("", "unshare"), what="the entrypoint is executed")
    time.sleep(milliseconds / 1000)
    if program_of(pid) == "env":  # a busy machine has not yet let it run
        wait_for(lambda: blocks(pid, signal.SIGTERM) or program_of(pid) != "env", what="env blocks signals")
    node.send(signal.SIGTERM)
    check("stop-pid-1-early", there=node.wait(), signum=signal.SIGTERM)
    assert "stopped by SIGTERM" in node.err


def test_the_entrypoint_blocks_what_the_agent_lifts_and_executes_it() -> None:
    blocked = ",".join(sorted(signum.name.removeprefix("SIG") for signum in signals.FROM_LAUNCHERS))
    assert ["env", f"--block-signal={blocked}", f"{signals.ENTRYPOINT_MARK}=blocked", "ray-bootstrap"] == ENTRYPOINT


@pytest.mark.requires("linux")
def test_what_the_entrypoint_blocked_is_not_blocked_for_the_workload(site: Site) -> None:
    names = "import os; print('RAY_BOOTSTRAP_SIGNALS' in os.environ)"
    node = site.run("--", sys.executable, "-c", f"{PRINT_MASK}; {names}", before=BEFORE)
    assert node.wait() == 0
    assert node.out == "[]\nFalse\n"


@pytest.mark.requires("linux")
def test_what_was_blocked_before_the_entrypoint_stays_blocked_for_the_workload(site: Site) -> None:
    node = site.run("--", sys.executable, "-c", PRINT_MASK, before=["env", "--block-signal=ALRM", *BEFORE])
    assert (node.wait(), node.out) == (0, f"[{int(signal.SIGALRM)}]\n")


@pytest.mark.requires("linux")
def test_what_another_parent_blocked_stays_blocked_for_the_workload(site: Site) -> None:
    """As with tini; the node itself still stops."""
    node = site.run(
        "--grace=0.5",
        "--",
        sys.executable,
        "-c",
        f"{PRINT_MASK}; print('up', flush=True); signal.pause()",
        before=["env", "--block-signal=TERM,USR1"],
    )
    node.says("up", where="out")
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert node.out == f"{[int(signal.SIGUSR1), int(signal.SIGTERM)]}\nup\n"
    assert "the workload ended with status 137" in node.err


@pytest.mark.requires("linux")
def test_the_workload_gets_the_dispositions_that_we_were_given(site: Site) -> None:
    """tini's test: the workload looks at its own status."""
    before = ["env", "--ignore-signal=TTOU,INT,ALRM", "--block-signal=TTIN,ILL,TERM"]
    look = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"]
    node = site.run("--", *look, before=before)
    assert node.wait() == 0
    assert node.out == subprocess.run([*before, *look], capture_output=True, text=True, check=True).stdout
    masks = {name: int(mask, 16) for name, mask in (line.split() for line in node.out.splitlines())}
    assert masks["SigBlk:"] & bits("SIGTTIN SIGILL SIGTERM") == bits("SIGTTIN SIGILL SIGTERM")
    assert masks["SigIgn:"] & bits("SIGTTOU SIGINT SIGALRM") == bits("SIGTTOU SIGINT SIGALRM")


def bits(names: str) -> int:
    return sum(1 << getattr(signal, name) - 1 for name in names.split())


@pytest.mark.parametrize(
    ("status", "address", "found"),
    [
        (
            "joined for 1 s: run 'b'\n  export RAY_ADDRESS='b:1'\njoined for 9 s: run 'a'\n  export RAY_ADDRESS=a:1\n",
            "",
            "b:1",
        ),
        ("searching for 1 s: run 'b'\n", "", ""),
        ("joined for 1 s: run 'b'\n  export RAY_ADDRESS=b:1\n", "mine:1", "mine:1"),
    ],
)
def test_bash_finds_the_newest_run(tmp_path: Path, status: str, address: str, found: str) -> None:
    (tmp_path / "ray-bootstrap").write_text(f'#!/bin/sh\ncat "{tmp_path}/status"\n')
    (tmp_path / "ray-bootstrap").chmod(0o755)
    (tmp_path / "status").write_text(status)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_ADDRESS": address}
    shell = subprocess.run(
        ["bash", "--norc", "-c", f'{BASHRC}\necho "$RAY_ADDRESS"'], env=env, capture_output=True, text=True, check=True
    )
    assert (shell.stdout, shell.stderr) == (f"{found}\n", "")
