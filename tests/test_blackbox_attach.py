"""A run that attaches to a Ray that already runs: here the fake one of another run, which must not notice."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from faults import check
from rollcall_peers import free_port

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")
MINE = f"mine-{uuid.uuid4().hex[:8]}"
"""The run id of what attaches; other processes of the tests have theirs."""

STAYS = ["sh", "-c", "echo up; exec sleep 600"]
WHAT_IS_THERE = (
    "echo $RAY_ADDRESS $RAY_BOOTSTRAP_CLUSTER_NODES $RAY_BOOTSTRAP_CLUSTER_GPUS $RAY_BOOTSTRAP_RUN_ID $RAY_JOB_ID"
    " ${RAY_BOOTSTRAP_SECRET-none} $no_proxy; exit 3"
)
SHORT = {"RAY_BOOTSTRAP_HEAD_TIMEOUT": "1.5", "RAY_BOOTSTRAP_QUORUM_TIMEOUT": "1.5"}


@pytest.fixture
def ray(site: Site) -> Node:
    """The head of a run of two GPUs, on 127.0.0.1."""
    options = ["--num-gpus=2", "--ignore-check=gpus"]
    head = site.run(*options, "--", *STAYS, env={"RAY_BOOTSTRAP_SECRET": "s" * 32})
    head.says("up", where="out")
    return head


def address(ray: Node) -> str:
    (port,) = [word.removeprefix("--port=") for word in ray.argv if word.startswith("--port=")]
    return f"127.0.0.1:{port}"


def attached(site: Site, *args: str, env: dict[str, str | None] | None = None, **options: Any) -> Node:
    return site.run(f"--run-id={MINE}", *args, env={**SHORT, **(env or {})}, **options)


def goes_on(ray: Node) -> None:
    """That Ray is as it was, and ends with its own run."""
    assert ray.process.poll() is None
    assert ray.raylet
    ray.send(signal.SIGTERM)
    assert ray.wait() == 143


def test_the_workload_runs_against_a_ray_that_runs(site: Site, ray: Node) -> None:
    env = {"RAY_ADDRESS": address(ray), "RAY_JOB_ID": "01000000", "RAY_BOOTSTRAP_SECRET": "t" * 32}
    env |= {"http_proxy": "http://127.0.0.9:1", "no_proxy": ".corp"}
    node = attached(site, "--nodes=1", "--expect-gpus=2", "--", "sh", "-c", WHAT_IS_THERE, env=env)
    assert node.wait() == 3
    assert node.out == f"{address(ray)} 1 2 {MINE} 01000000 none .corp,localhost,127.0.0.1,::1\n"
    assert f"attaches to the Ray at {address(ray)} (RAY_ADDRESS), as run {MINE!r}; it starts none" in node.err
    assert "without effect, since this run starts no Ray: --node-ip, --hosts, --num-cpus, --temp-dir" in node.err
    assert "quorum reached: 1 node after" in node.err
    assert "ray.init() fails here" not in node.err
    last = node.err.splitlines()[-1]
    assert "exit status 3 (from the workload): the workload ended with status 3" in last
    assert "logs" not in last
    assert (node.verdict["status"], node.verdict["source"]) == (3, "workload")
    assert node.starts == []
    goes_on(ray)


def test_the_option_wins_over_the_variable_and_over_a_launcher(site: Site, ray: Node) -> None:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "2"}
    args = [f"--attach={address(ray)}", "--", "sh", "-c", "echo $RAY_ADDRESS"]
    node = attached(site, *args, env={"RAY_ADDRESS": "http://elsewhere:8265", **slurm})
    assert (node.wait(), node.out) == (0, f"{address(ray)}\n"), node.err
    second = attached(site, *args, env={**slurm, "SLURM_NODEID": "1"})
    assert second.wait() == 65
    assert f"SLURM_NODEID=1 with --attach={address(ray)}: each of several nodes would run" in second.err
    found = attached(site, "--", "sh", "-c", "echo $RAY_ADDRESS", env={"RAY_ADDRESS": "auto"})
    assert (found.wait(), found.out) == (0, f"{address(ray)}\n"), found.err
    goes_on(ray)


def test_a_launcher_that_numbers_nodes_and_launcher_local_start_a_ray_of_their_own(site: Site) -> None:
    for args in (["--launcher=local"], ["--rank=0", "--nodes=1"]):
        node = site.run(*args, "--", "sh", "-c", "echo $RAY_ADDRESS", env={"RAY_ADDRESS": "outer:6379"})
        assert node.wait() == 0
        assert node.out.startswith("127.0.0.")
        assert len(node.starts) == 1


def test_no_ray_answers(site: Site) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    node = attached(site, "--", "true", env={"RAY_ADDRESS": nowhere})
    status = node.wait()
    check("attach-no-ray", there=status)
    assert f"no Ray answers at {nowhere} yet: connection refused" in node.err
    assert f"no Ray answers at RAY_ADDRESS={nowhere} within 1.5 s: connection refused" in node.err
    assert "fix: `ray list nodes`" in node.err
    assert node.verdict["retryable"]
    unknown = attached(site, "--attach=no.such.name.invalid:6379", "--", "true")
    assert unknown.wait() == 68
    assert "no.such.name.invalid does not resolve yet" in unknown.err
    none = attached(site, "--", "true", env={"RAY_ADDRESS": "auto"})
    assert none.wait() == 68
    assert "Could not find any running Ray instance" in none.err


@pytest.mark.parametrize(
    ("words", "fault", "said"),
    [
        ("other-token", "attach-token", "InvalidAuthToken: Authentication token is missing or incorrect\n"),
        ("other-ray", "attach-versions", "Ray 2.59.1 at 127.0.0.1:"),
        ("other-python", "attach-versions", "Python 3.9.1 at 127.0.0.1:"),
    ],
)
def test_a_ray_that_is_not_for_this_node(site: Site, ray: Node, words: str, fault: str, said: str) -> None:
    node = attached(site, f"--attach={address(ray)}", "--", "true", env={"FAKE_RAY": words})
    check(fault, there=node.wait())
    assert said in node.err
    assert "    fix: " in node.err
    assert not node.verdict["retryable"]
    goes_on(ray)


def test_a_ray_that_starts_late_and_whose_nodes_come_late(site: Site) -> None:
    where = f"127.0.0.1:{30_000 + free_port() % 2_000}"  # which the kernel gives to no connection meanwhile
    args = ["--nodes=2", "--quorum-timeout=1m", "--head-timeout=1m", "--", "true"]
    node = attached(site, f"--attach={where}", *args, env={"RAY_BOOTSTRAP_RUN_ID": None})
    node.says(f"no Ray answers at {where} yet: connection refused")
    port = f"--gcs-port={where.rpartition(':')[2]}"
    first = site.run("--rank=0", "--nodes=2", port, "--node-ip=127.0.0.1", "--head-address=127.0.0.1", "--", *STAYS)
    node.says("1 of 2 nodes")
    second = site.run("--rank=1", "--nodes=2", "--head-address=127.0.0.1")
    assert node.wait() == 0
    first.send(signal.SIGTERM)
    assert (first.wait(), second.wait()) == (143, 143)


def test_too_few_nodes(site: Site, ray: Node) -> None:
    node = attached(site, f"--attach={address(ray)}", "--nodes=3", "--expect-gpus=4", "--", "true")
    check("attach-too-few", there=node.wait())
    assert "0 of 3 nodes; 1 with too little" in node.err
    assert f"error: 0 of 3 nodes at {address(ray)} after 1.5 s" in node.err
    assert "127.0.0.1: CPU 1, GPU 2; 4 GPUs expected" in node.err
    assert "--min-nodes starts with fewer" in node.err
    fewer = attached(site, f"--attach={address(ray)}", "--nodes=3", "--min-nodes=1", "--last-call=0.1", "--", "true")
    assert fewer.wait() == 0
    expects = ['--expect-resources={"NPU": 8, "GPU": 4}', "--head-gpus=2"]
    node = attached(site, f"--attach={address(ray)}", *expects, "--", "true")
    assert node.wait() == 75
    assert "127.0.0.1: CPU 1, GPU 2; 8 NPU expected" in node.err  # it is the head, of which 2 GPUs are enough
    assert attached(site, f"--attach={address(ray)}", *expects, '--head-resources={"NPU": 0}', "--", "true").wait() == 0
    goes_on(ray)


def test_a_workload_that_is_missing_or_not_given(site: Site) -> None:
    nowhere = "--attach=127.0.0.9:1"  # of which none of this takes a look
    assert attached(site, nowhere, "--", "no-such-program").wait() == 127
    none = attached(site, nowhere)
    assert none.wait() == 64
    assert "no workload, and the Ray to attach to stays without one" in none.err


def test_a_ray_that_cannot_be_imported_in_time(site: Site, ray: Node) -> None:
    node = attached(site, f"--attach={address(ray)}", "--", "true", env={"FAKE_RAY": "slow-import"})
    assert node.wait() == 69
    assert "the import of Ray has not ended after 1.5 s" in node.err
    goes_on(ray)


def test_signals(site: Site, ray: Node) -> None:
    script = "trap 'echo saved; exit 9' TERM; trap 'echo told' USR1; echo up; while :; do sleep 0.05; done"
    node = attached(site, f"--attach={address(ray)}", "--", "sh", "-c", script)
    node.says("up\n", where="out")
    node.is_in("running")
    status = site.run("status", f"--run-id={MINE}")
    assert status.wait() == 0
    assert f"driver, run {MINE!r}, head {address(ray)}, the cluster stands" in status.out
    for command in (["wait"], ["status", "--run"], ["down"]):
        refused = site.run(*command, f"--run-id={MINE}")
        assert refused.wait() == 64
        assert f"run {MINE!r} is attached to a Ray that already runs, so it has no roll call" in refused.err
        assert f"`kill {node.agent}` ends it" in refused.err
    inside = site.run("exec", f"--run-id={MINE}", "--", "sh", "-c", "echo $RAY_ADDRESS")
    assert (inside.wait(), inside.out) == (0, f"{address(ray)}\n")
    node.send(signal.SIGUSR1)
    node.says("told\n", where="out")
    node.send(signal.SIGTERM)
    check("stop-attached", there=node.wait(), signum=signal.SIGTERM)
    assert node.out.endswith("saved\n")
    early = attached(site, "--attach=127.0.0.9:1", "--", "true", env={"RAY_BOOTSTRAP_HEAD_TIMEOUT": "1m"})
    early.says("no Ray answers")
    early.send(signal.SIGTERM)
    assert early.wait() == 143
    goes_on(ray)


def test_a_ray_that_is_lost_leaves_the_verdict_to_the_workload(site: Site, ray: Node) -> None:
    script = "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 5"
    node = attached(site, f"--attach={address(ray)}", "--", "sh", "-c", script)
    node.says("up\n", where="out")
    os.kill(ray.daemon("gcs_server"), signal.SIGKILL)
    assert ray.wait() == 76
    (node.folder / "go").touch()
    check("attach-lost", there=node.wait(), workload=5)


def test_a_machine_that_is_no_node_of_that_ray_is_warned(site: Site, ray: Node) -> None:
    node = attached(site, f"--attach={address(ray)}", "--", "true", env={"FAKE_RAY": "elsewhere"})
    assert node.wait() == 0
    assert "ray.init() fails here after 60 s; fix: `ray job submit -- COMMAND` as the workload" in node.err
    goes_on(ray)


def test_the_commands_that_only_look(site: Site, ray: Node) -> None:
    where = f"--attach={address(ray)}"
    detect = site.run("detect", where)
    assert detect.wait() == 0
    assert f"attaches to     {address(ray)}   (--attach)" in detect.out
    assert "role            driver" in detect.out
    look = site.run("check", where)
    assert look.wait() == 0
    assert f"attaches to the Ray at {address(ray)} (--attach)" in look.out
    whole = attached(site, where, "--nodes=1", before=())
    assert whole.wait() == 64
    asked = site.run("check", "--run", where, "--nodes=1", f"--run-id={MINE}")
    assert asked.wait() == 0
    assert f"the Ray at {address(ray)} can be used: 1 node" in asked.err
    lacking = site.run("check", "--run", where, "--nodes=2", "--quorum-timeout=1", f"--run-id={MINE}")
    assert lacking.wait() == 75
    goes_on(ray)


def test_what_is_attached_is_no_second_run_beside_the_one_whose_ray_it_uses(site: Site) -> None:
    """As in a script with ``ray-bootstrap -- python … &`` after ``up``, whose trap names no run."""
    own = f"runtime_dir.PARENT = Path('{site.folder}')"  # with no other run of this user
    site.patch("from pathlib import Path", "from bootstrap.files import runtime_dir", own)
    head = site.run()
    head.says("stays until it is stopped")
    node = attached(site, "--", *STAYS, env={"RAY_ADDRESS": address(head)})
    node.says("up", where="out")
    unnamed: dict[str, str | None] = {"RAY_BOOTSTRAP_RUN_ID": None}
    variables = site.run("env", env=unnamed)
    assert variables.wait() == 0
    assert f"RAY_ADDRESS={address(head)} " in variables.out
    other = site.run("down", f"--run-id={MINE}")
    assert other.wait() == 64
    assert "is attached to a Ray that already runs, so it has no roll call" in other.err
    down = site.run("down", "--status=3", env=unnamed)
    assert down.wait() == 0, down.err
    assert head.wait() == 3
    assert node.process.poll() is None
    node.send(signal.SIGTERM)
    assert node.wait() == 143
