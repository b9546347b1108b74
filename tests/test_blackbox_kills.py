"""Several of a node's processes killed at once: what outlives them ends, at once or at the next run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for
from survivors import describe, marked

from bootstrap import cleanup
from bootstrap.files.manifest import Manifest
from bootstrap.process import table

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

STAY = ["sh", "-c", "setsid sleep 601 & echo up; exec sleep 600"]
UNTIL_GO = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; exit 3"]
LEFT = 4
"""Processes beside the three: the workload and what it put in a session of its own, the fake GCS and raylet."""


def kill(*pids: int) -> None:
    """Kills all of them in one instant: stopped first, none sees another one's end."""
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, signum)


@pytest.mark.parametrize("victims", ["process standby", "process agent", "standby agent"])
def test_any_two_of_a_nodes_three_processes(site: Site, victims: str) -> None:
    head, worker = site.several(2, "--on-node-loss=fail", workload=STAY)
    head.says("up", where="out")
    chain = {"process": head.process.pid, "standby": head.standby, "agent": head.agent}
    kill(*(chain[name] for name in victims.split()))
    check("head-any-two", elsewhere=[worker.wait()], there=head.wait(within=10))
    assert "lost the head" in worker.err or "was killed" in worker.err


def alone(site: Site) -> None:
    """Gives its runs a /tmp of their own: any other run of this user would end what theirs leave."""
    (site.folder / "tmp").mkdir()
    there = f"runtime_dir.PARENT = Path('{site.folder}/tmp')"
    site.patch("from pathlib import Path", "from bootstrap.files import runtime_dir", there)


def kill_all_three(site: Site) -> Node:
    node = site.run("--", *STAY)
    node.says("up", where="out")
    wait_for(lambda: len(left_of(node)) == 3 + LEFT, what="the end of the process that started Ray")
    wait_for(lambda: noted(site) & {pid for pid in left_of(node) if describe(pid) == f"{pid} sleep 600"}, what="a note")
    kill(node.process.pid, node.standby, node.agent)
    assert node.process.wait() == -signal.SIGKILL
    return node


def noted(site: Site) -> set[int]:
    """The process ids in the manifests, of which the head's has the workload's just after its start."""
    manifests = [json.loads(path.read_text()) for path in (site.folder / "tmp").glob("*/manifest.json")]
    return {pid for manifest in manifests for pid, _ in manifest["processes"]}


def left_of(node: Node) -> set[int]:
    return marked(node._mark)


def test_the_next_run_ends_what_outlived_all_three(site: Site) -> None:
    """And no other program of that name."""
    alone(site)
    killed = kill_all_three(site)
    wait_for(lambda: len(left_of(killed)) == LEFT, what="the end of the three")
    folder = killed.temp_dir / "another's"
    folder.mkdir()
    raylet = folder / "raylet"
    raylet.symlink_to(Path(sys.executable).resolve())
    stranger = subprocess.Popen([raylet, "-c", "import signal; signal.pause()", f"--raylet_socket_name={folder}/s/s"])
    try:
        again = site.run("--", "true")
        assert again.wait() == 0
        assert left_of(killed) == set()
        assert "ended 4 processes (gcs_server, raylet, sleep) of an earlier run whose agent was killed" in again.err
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    runtime = Path(again.err.partition("agent was killed: ")[2].split()[0])
    assert not runtime.exists()
    assert [path.name for path in killed.temp_dir.glob("session_2*/*")] == ["logs"]


@pytest.mark.parametrize("known", [True, False])
def test_a_raylet_is_found_by_its_session_only_in_a_folder_of_the_run_alone(tmp_path: Path, known: bool) -> None:
    """In the user's own --temp-dir several runs, or a run's nodes on one machine, share a session."""
    session = tmp_path / "ray" / "session_2"
    session.mkdir(parents=True)
    (raylet := session / "raylet").symlink_to(Path(sys.executable).resolve())
    argv = [raylet, "-c", "import signal; signal.pause()", f"--raylet_socket_name={session}/sockets/raylet"]
    live = subprocess.Popen(argv, start_new_session=True)
    try:
        mine = Manifest(closed_dir=str(tmp_path), ray_dir=str(session.parent), pid_scope=table.pid_scope())
        found = dataclasses.replace(mine, closed_dir="", session=str(session)) if known else mine
        wait_for(lambda: str(session).encode() in Path(f"/proc/{live.pid}/cmdline").read_bytes(), what="exec")
        assert [process.pid for process in cleanup._survivors(found)] == ([] if known else [live.pid])
    finally:
        live.kill()
        live.wait()


def test_a_folder_that_hangs_does_not_hold_up_the_next_run(site: Site) -> None:
    hangs = "cleanup.end_survivors = lambda log: time.sleep(600)"
    site.patch("import time", "from bootstrap import cleanup, timeouts", "timeouts.SURVIVORS_S = 0.5", hangs)
    node = site.run("--", "true")
    assert node.wait() == 0
    assert "the search for processes of earlier runs timed out after 0.5 s: a folder /tmp/ray-bootstrap.*" in node.err


@pytest.mark.parametrize(
    ("fault", "rank", "on_loss"),
    [("head-all-three", 0, "warn"), ("worker-all-three", 1, "warn"), ("worker-all-three-fail", 1, "fail")],
)
def test_all_three_of_a_node(site: Site, fault: str, rank: int, on_loss: str) -> None:
    """The other node notices at once; what runs on ends with the next run."""
    alone(site)
    nodes = site.several(2, f"--on-node-loss={on_loss}", workload=UNTIL_GO)
    nodes[0].says("up", where="out")
    victim, other = nodes[rank], nodes[1 - rank]
    survivors = {"gcs_server", "raylet", "sh"} if rank == 0 else {"raylet"}
    wait_for(lambda: {name(pid) for pid in left_of(victim) & noted(site)} >= survivors, what="a note of each")
    kill(victim.process.pid, victim.standby, victim.agent)
    there = victim.process.wait()
    if fault == "worker-all-three":
        other.says("rank 1 (", "lost: ")
        (site.folder / "go").touch()
    elsewhere = other.wait()
    wait_for(lambda: {name(pid) for pid in left_of(victim)} - {"sleep"} == survivors, what="the end of the three")
    again = site.run("--", "true")
    assert again.wait() == 0
    assert left_of(victim) == set()
    assert "of an earlier run whose agent was killed" in again.err
    check(fault, there=there, elsewhere=[elsewhere], workload=3)


def name(pid: int) -> str:
    """As ps(1) shows it; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_a_run_that_its_predecessors_workload_starts_does_not_end_itself(site: Site) -> None:
    """A user's shell as the workload: all three are killed, and in that shell the user starts again."""
    shell = 'echo up; until test -e ../go; do sleep 0.02; done; "$@" | tee -a log; echo again'
    alone(site)
    forget = ["env", "-u", "RAY_AUTH_MODE", "-u", "RAY_AUTH_TOKEN_PATH"]
    again = [
        *forget,
        sys.executable,
        "-m",
        "bootstrap",
        "--launcher=local",
        f"--temp-dir={site.folder}/again",
        "--",
        "echo",
        "piped",
    ]
    node = site.run("--", "sh", "-c", shell, "sh", *again)
    node.says("up", where="out")
    kill(node.process.pid, node.standby, node.agent)
    (site.folder / "go").touch()
    wait_for(lambda: "again" in node.out, what="the second run")
    assert (node.folder / "log").read_text() == "piped\n"
    wait_for(lambda: not left_of(node), what="the end of all")
    assert node.process.wait() == -signal.SIGKILL


def test_the_next_run_keeps_its_claim_on_the_node_when_it_clears_up_after_a_killed_one(site: Site) -> None:
    """Both have the same run id, as in one batch job, and so the same folder to lock."""
    alone(site)
    (site.folder / "hosts").write_text(f"{socket.gethostname()}\nother.invalid\n")
    args = ["--hostfile=../hosts", "--", "true"]

    def manifests() -> list[Path]:
        return [path for path in (site.folder / "tmp").glob("*/manifest.json") if Manifest.load(path).claim]

    dead = site.run(*args)
    wait_for(lambda: len(manifests()) == 1, what="the claim")
    (left,) = manifests()
    kill(dead.process.pid, dead.standby, dead.agent)
    dead.process.wait()
    live = site.run(*args)
    wait_for(lambda: not left.exists() and len(manifests()) == 1, what="the end of what the killed one left")
    second = site.run(*args)
    assert second.wait() == 65
    assert "expected one on each node" in second.err
    live.send(signal.SIGTERM)
    assert live.wait() == 143
    assert {path.name for path in (site.folder / "tmp").glob("*/*")} == {"result.json"}
