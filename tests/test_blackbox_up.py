"""``up``: the cluster stands, the shell goes on, and the agent stays behind it with all of its guarantees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import states
from faults import check
from namespaces import wait_for

from bootstrap.errors import Stopped
from bootstrap.launch import background

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

WORKER = ("--rank=1", "--nodes=2", "--head-address=127.0.0.1")
HEAD = ("--rank=0", "--nodes=2", "--head-address=127.0.0.1")


def script(site: Site, text: str, *args: str, **options: Any) -> Node:
    """A script that says ``up`` for the command with its arguments."""
    return site.run("up", *args, before=["bash", "-c", text.replace("up", '"$@"', 1), "bash"], **options)


def phases(site: Site) -> dict[str, str]:
    return {str(state["role"]): str(state["phase"]) for state in states() if state.get("run_id") == site.run_id}


def test_the_script_goes_on_once_the_cluster_stands(site: Site) -> None:
    """The agent is in a session of its own, and holds nothing that the script's reader waits for."""
    node = script(site, "up; echo status $?; read line", stdin=subprocess.PIPE)
    node.says("status 0", where="out")
    (state,) = [state for state in states() if state.get("run_id") == site.run_id]
    assert (state["phase"], state["ready"]) == ("running", True)
    assert os.getsid(state["pid"]) != os.getsid(node.process.pid)
    for fd in Path(f"/proc/{state['pid']}/fd").iterdir():
        assert fd.readlink() != node.folder / "out"
    node.process.stdin.close()
    assert node.wait(within=10) == 1  # read's
    assert "exit status 129 (from ray-bootstrap: stopped)" in node.err
    assert f"stays until `ray-bootstrap down`, or until bash (pid {node.process.pid}) ends" in node.err
    assert f"bash (pid {node.process.pid}), which called `ray-bootstrap up`, has ended without" in node.err


def test_a_script_that_is_killed_ends_the_run_on_all_nodes(site: Site) -> None:
    head = script(site, "up; echo up; sleep 60", *HEAD)
    worker = script(site, "up; exit $?", *WORKER)
    head.says("up", where="out")
    os.kill(head.process.pid, signal.SIGKILL)
    assert worker.wait(within=10) == 129
    assert "the head says: bash (pid" in worker.err
    head.wait(within=10)
    check("up-caller", there=head.verdict["status"], elsewhere=[worker.verdict["status"]])


def test_a_worker_of_a_script_that_is_killed_leaves(site: Site) -> None:
    """The run goes on without it, as without a worker that a signal stopped."""
    head = site.run(*HEAD, "--", "bash", "-c", "until [ -e go ]; do sleep 0.1; done; exit 4")
    worker = script(site, "up; exit $?", *WORKER)
    wait_for(lambda: phases(site) == {"head": "running", "worker": "joined"}, 20)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.wait(within=10)
    (head.folder / "go").touch()
    check("up-caller-worker", there=worker.verdict["status"], elsewhere=[head.wait()], workload=4)


def test_a_detached_worker_returns_when_it_has_joined_and_outlives_its_caller(site: Site) -> None:
    head = site.run(*HEAD, "--", "bash", "-c", "until [ -e go ]; do sleep 0.1; done; exit 5")
    worker = script(site, 'out=$(up 2>&1); echo "status $?: $out"', *WORKER, "--detach")
    assert worker.process.wait(20) == 0  # though something of it holds no more than its log
    assert worker.out.startswith("status 0: ")
    assert "the agent stays; its log is /tmp/ray-bootstrap." in worker.out
    assert phases(site)["worker"] == "joined"
    (head.folder / "go").touch()
    assert head.wait() == 5
    assert worker.wait(within=10) == 0
    assert worker.verdict["status"] == 5
    log = Path(worker.out.rpartition("its log is ")[2].strip())
    assert "exit status 5 (from the workload)" in log.read_text()


def test_a_detached_head_is_ended_by_a_signal(site: Site) -> None:
    node = script(site, "up; echo status $?", "--detach")
    assert node.process.wait(20) == 0
    (state,) = [state for state in states() if state.get("run_id") == site.run_id]
    os.kill(state["pid"], signal.SIGTERM)
    node.wait(within=10)
    assert node.verdict["status"] == 143


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["", "detached"])
def test_a_failure_has_the_same_status_and_words_as_without_up(site: Site, detach: list[str]) -> None:
    node = site.run("up", *WORKER, "--head-timeout=0.5", *detach)
    assert node.wait() == 68
    assert "exit status 68 (from ray-bootstrap: head-not-found)" in node.err
    assert node.verdict["source"] == "head-not-found"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_ends_the_run(site: Site, signum: int) -> None:
    node = site.run("up", *HEAD)
    node.says("the roll call is open")
    node.send(signum)
    assert node.wait(within=5) == 128 + signum
    assert node.verdict["source"] == "stopped"


def test_a_kill_while_it_waits_ends_the_run(site: Site) -> None:
    node = site.run("up", *HEAD, "--detach")
    wait_for(lambda: phases(site) == {"head": "waiting"}, 20)
    node.send(signal.SIGKILL)
    assert node.wait(within=10) == 137
    assert node.verdict["reason"].startswith("`ray-bootstrap up` was killed before it returned")


def test_up_takes_no_workload(site: Site) -> None:
    node = site.run("up", "--", "true")
    assert node.wait() == 64
    assert "up takes no workload" in node.err


def test_up_starts_a_ray_in_a_shell_that_has_used_another_one(site: Site) -> None:
    """As in a script that brings a cluster up and down more than once."""
    node = script(
        site, "up; exit $?", env={"RAY_ADDRESS": "127.0.0.1:1", "RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:2"}
    )
    node.wait(within=10)
    assert len(node.starts) == 1


def test_a_second_up_of_a_run_is_refused_where_no_launcher_would(site: Site) -> None:
    node = script(site, "up; read line", "--role=head", "--nodes=1", "--detach", stdin=subprocess.PIPE)
    node.says("the agent stays")
    second = site.run("up", "--role=head", "--nodes=1", "--detach")
    assert second.wait() == 64
    assert f"run {site.run_id!r} is up here already (head, pid " in second.err
    ended = site.run("down")
    assert ended.wait() == 0
    node.process.stdin.close()
    node.wait(within=5)


def test_up_from_a_launchers_own_process_is_refused(site: Site) -> None:
    """As with a bare ``srun ray-bootstrap up``: with its end the step ends, and takes the agent along."""
    shell = site.folder / "slurmstepd"
    shutil.copy("/bin/sh", shell)
    node = site.run("up", before=[str(shell), "-c", '"$@"; exit $?', "sh"])
    assert node.wait() == 64
    assert f"slurmstepd (pid {node.process.pid}) started `ray-bootstrap up`" in node.err
    assert node.starts == []


def test_detach_goes_with_up_only(site: Site) -> None:
    node = site.run("--detach", "--", "true")
    assert node.wait() == 64
    assert "--detach goes with up: ray-bootstrap up --detach" in node.err


def test_ray_stop_on_the_head_ends_a_run_without_a_workload_as_a_signal_does(site: Site) -> None:
    """`ray stop` sends SIGTERM to the raylet, which exits with 0; with a workload that is the death of Ray (76)."""
    head, worker = (site.run("up", *who, "--detach") for who in (HEAD, WORKER))
    assert (head.process.wait(20), worker.process.wait(20)) == (0, 0)
    os.kill(head.raylet, signal.SIGTERM)
    for node in (head, worker):
        node.wait(within=10)
        assert node.verdict["source"] == "stopped"
    check("ray-stop", there=head.verdict["status"], elsewhere=[worker.verdict["status"]])
    assert "was asked to end (received SIGTERM), as by `ray stop`, `ray down`" in worker.verdict["reason"]


def test_a_raylet_that_gives_up_by_itself_is_rays_death_although_its_status_is_0(site: Site) -> None:
    """As after the death of its dashboard agent."""
    node = site.run("up", "--detach")
    assert node.process.wait(20) == 0
    os.kill(node.raylet, signal.SIGRTMIN + 2)
    node.wait(within=10)
    assert (node.verdict["status"], node.verdict["source"]) == (76, "ray-died")
    assert "exited with status 0" in node.verdict["reason"]


def test_a_node_that_the_autoscaler_drains_leaves_and_the_run_goes_on(site: Site) -> None:
    head, worker = (site.run("up", *who, "--detach") for who in (HEAD, WORKER))
    assert (head.process.wait(20), worker.process.wait(20)) == (0, 0)
    log = Path(head.err.rpartition("its log is ")[2].strip())
    os.kill(worker.raylet, signal.SIGTERM)
    worker.wait(within=10)
    assert worker.verdict["status"] == 143
    wait_for(lambda: "left: Ray's raylet on" in log.read_text(), 10)
    assert phases(site) == {"head": "running"}
    wait_for(lambda: [state["seen"] for state in states() if state.get("run_id") == site.run_id] == [1], 5)
    (state,) = [state for state in states() if state.get("run_id") == site.run_id]
    os.kill(state["pid"], signal.SIGTERM)
    head.wait(within=10)


def test_a_caller_that_ends_at_once_is_not_mistaken_for_who_has_its_number_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pids in ([gone.pid], [os.getppid(), 1]):
        monkeypatch.setattr(os, "getppid", iter(pids).__next__)
        with pytest.raises(Stopped, match=rf"\(pid {pids[0]}\), which called `ray-bootstrap up`, has ended"):
            background._caller(-1, detach=False)
