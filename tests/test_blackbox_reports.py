"""The real command: who a node is by its launcher, ``detect``, ``check``, ``status``, and the lines as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import nvml
import pytest
from namespaces import wait_for
from rollcall_peers import free_port
from stubs import RESOLVER_THAT_HANGS, nvml_that_hangs, preloaded

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

NO_RUN_ID = {"RAY_BOOTSTRAP_RUN_ID": None}

LAUNCHED = [
    ("local", {}, [], ("head", 0, 1)),
    ("explicit", {"RAY_BOOTSTRAP_RANK": "2", "RAY_BOOTSTRAP_NODES": "4"}, ["--head-address=h"], ("worker", 2, 4)),
    ("kubernetes", {"JOB_COMPLETION_INDEX": "1"}, ["--nodes=2", "--head-address=h"], ("worker", 1, 2)),
    ("kubernetes", {"JOB_COMPLETION_INDEX": "0"}, ["--nodes=2", "--head-address=h"], ("head", 0, 2)),
    (
        "jobset",
        {"JOB_COMPLETION_INDEX": "1", "JOBSET_UID": "u", "JOBSET_NAME": "j", "JOBSET_COORDINATOR": "j-0.j"},
        ["--nodes=2"],
        ("worker", 1, 2),
    ),
    (
        "leaderworkerset",
        {"LWS_WORKER_INDEX": "3", "LWS_GROUP_SIZE": "4", "LWS_LEADER_ADDRESS": "l-0.l.ns"},
        [],
        ("worker", 3, 4),
    ),
    (
        "kubeflow-trainer",
        {"PET_NODE_RANK": "0", "PET_NNODES": "2", "PET_MASTER_ADDR": "m", "JOB_COMPLETION_INDEX": "0"},
        [],
        ("head", 0, 2),
    ),
    (
        "pytorchjob",
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        [],
        ("worker", 1, 2),
    ),
    (
        "skypilot",
        {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"},
        [],
        ("worker", 1, 2),
    ),
    (
        "slurm",
        {
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_ID": "0",
            "SLURM_NODEID": "1",
            "SLURM_LOCALID": "0",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_STEP_NODELIST": "gpu[001-002]",
        },
        [],
        ("worker", 1, 2),
    ),
    (
        "openmpi",
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
        ["--shared-dir=/tmp"],
        ("worker", 1, 2),
    ),
    ("torchrun", {"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "m"}, [], ("worker", 1, 2)),
    ("torch-env", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m"}, [], ("worker", 1, 2)),
    ("address", {}, ["--address=127.0.0.1:6391", "--min-nodes=1"], ("head", 0, None)),
]


@pytest.mark.parametrize(("launcher", "env", "args", "expected"), LAUNCHED)
def test_every_launcher_says_who_this_node_is(
    site: Site, launcher: str, env: dict[str, str], args: list[str], expected: tuple[str, int, int | None]
) -> None:
    node = site.run("detect", "--json", *args, env=env)
    assert node.wait() == 0, node.err
    report = json.loads(node.out)
    assert report["launcher"]["value"] == launcher
    assert tuple(report[name]["value"] for name in ("role", "rank", "size")) == expected
    words = report["ray start"].split()
    assert words[:2] == ["ray", "start"]
    assert ("--head" in words) == (expected[0] == "head")
    assert node.starts == []


HALF_SET = [
    ({"JOB_COMPLETION_INDEX": "1"}, ["JOB_COMPLETION_INDEX='1'", "RAY_BOOTSTRAP_NODES"]),
    ({"LWS_GROUP_SIZE": "2", "LWS_LEADER_ADDRESS": "l"}, ["LWS_WORKER_INDEX not set", "LWS_GROUP_SIZE='2'"]),
    ({"LWS_WORKER_INDEX": "1"}, ["LWS_GROUP_SIZE not set", "LWS_WORKER_INDEX='1'"]),
    ({"PET_NNODES": "2", "JOB_COMPLETION_INDEX": "1"}, ["PET_NODE_RANK not set", "PET_NNODES='2'"]),
    ({"SKYPILOT_NODE_RANK": "0"}, ["SKYPILOT_NUM_NODES not set", "SKYPILOT_NODE_RANK='0'"]),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, ["OMPI_COMM_WORLD_RANK not set", "OMPI_COMM_WORLD_SIZE='2'"]),
    ({"GROUP_RANK": "1"}, ["GROUP_WORLD_SIZE", "GROUP_RANK='1'"]),
    (
        {"SLURM_JOB_ID": "7", "SLURM_NODEID": "0"},
        ["SLURM_STEP_ID is not set", "srun --ntasks=$SLURM_JOB_NUM_NODES --ntasks-per-node=1"],
    ),
    ({"LWS_WORKER_INDEX": "2", "LWS_GROUP_SIZE": "2"}, ["LWS_WORKER_INDEX='2' with LWS_GROUP_SIZE='2'"]),
    ({"LWS_WORKER_INDEX": "one", "LWS_GROUP_SIZE": "2"}, ["LWS_WORKER_INDEX='one'"]),
    ({"RAY_BOOTSTRAP_NODES": "2"}, ["--rank"]),
    (
        {"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "LOCAL_RANK": "3", "MASTER_ADDR": "m"},
        ["LOCAL_RANK=3: this is not the first process on its node"],
    ),
]


@pytest.mark.parametrize(("env", "told"), HALF_SET)
def test_half_an_identity_is_an_error_and_nothing_is_started(site: Site, env: dict[str, str], told: list[str]) -> None:
    node = site.run("--", "true", env=env)
    assert node.wait() == 65, node.err
    assert [text for text in told if text not in node.err] == []
    assert node.starts == []
    assert node.verdict["source"] == "identity"


def test_detect_for_people(site: Site) -> None:
    node = site.run("detect", "--num-cpus=3")
    assert node.wait() == 0
    rows = dict(line.split(maxsplit=1) for line in node.out.splitlines() if not line.startswith((" ", "r", "n")))
    assert rows["cpus"].startswith("3   (--num-cpus")
    assert rows["address"] == "127.0.0.1   (--node-ip)"
    assert rows["launcher"].startswith("local")
    assert "ray start       ray start --head --port=" in node.out
    assert (node.err, node.starts) == ("", [])


@pytest.mark.requires("cc")
def test_gpus_are_found_and_passed_on(site: Site) -> None:
    folder = site.folder / "nvml"
    folder.mkdir()
    description = nvml.gpus(4)
    added = {name: nvml.environment(description, folder, {})[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")}
    visible = f"{nvml.uuid(3)},{nvml.uuid(1)}"
    script = "echo $CUDA_VISIBLE_DEVICES $RAY_BOOTSTRAP_CLUSTER_GPUS"
    args = ["--expect-gpus=2", "--ignore-check=gpu-health"]
    node = site.run(*args, "--", "sh", "-c", script, env={**added, "CUDA_VISIBLE_DEVICES": "3,1"})
    assert node.wait() == 0, node.err
    (start,) = node.starts
    assert "--num-gpus=2" in start["argv"]
    assert '--resources={"NVIDIA-A100-SXM4-80GB": 2}' in start["argv"]
    assert start["env"]["CUDA_VISIBLE_DEVICES"] in (visible, "3,1")
    assert node.out == f"{start['env']['CUDA_VISIBLE_DEVICES']} 2\n"


@pytest.mark.requires("cc")
def test_too_few_gpus_are_a_finding(site: Site) -> None:
    folder = site.folder / "nvml"
    folder.mkdir()
    added = {name: nvml.environment(nvml.gpus(2), folder, {})[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")}
    node = site.run("--expect-gpus=4", "--", "true", env=added)
    assert node.wait() == 78
    assert "2" in node.verdict["reason"]
    assert node.starts == []


@pytest.mark.hosts
@pytest.mark.parametrize("given", [None, "ib7"])
def test_where_the_hosts_file_cannot_be_written_gloo_is_told_the_interface(site: Site, given: str | None) -> None:
    own = site.folder / "hosts"
    own.write_text("127.0.0.1 localhost\n")
    script = [
        f"mount --bind {own} /etc/hosts",
        "mount -o remount,bind,ro /etc/hosts",
        "ip link add data0 type veth peer name data1",
        "ip address add 10.77.0.1/24 dev data0",
        "ip link set lo up",
        "ip link set data0 up",
        "ip link set data1 up",
        'exec "$@"',
    ]
    before = ["unshare", "--mount", "--net", "sh", "-c", " && ".join(script), "sh"]
    env = {"RAY_BOOTSTRAP_HOSTS": "auto", "RAY_BOOTSTRAP_NODE_IP": "10.77.0.1", "GLOO_SOCKET_IFNAME": given}
    args = ["--rank=0", "--nodes=2", "--min-nodes=1", "--last-call=0", "--head-address=10.77.0.1"]
    node = site.run(*args, "--", "sh", "-c", "echo $GLOO_SOCKET_IFNAME", env=env, before=before)
    assert node.wait() == 0, node.err
    (start,) = node.starts
    assert start["env"]["GLOO_SOCKET_IFNAME"] == (given or "data0")
    assert "NCCL_SOCKET_IFNAME" not in start["env"]
    assert node.out == f"{given or 'data0'}\n"
    assert (f"GLOO_SOCKET_IFNAME={given} stays as it is" if given else "GLOO_SOCKET_IFNAME=data0 is set") in node.err
    assert own.read_text() == "127.0.0.1 localhost\n"


@pytest.mark.hosts
def test_on_a_node_with_two_interfaces_frameworks_get_the_chosen_one(site: Site) -> None:
    script = [
        "ip link add data0 type veth peer name data1",
        "ip address add 10.77.0.1/24 dev data0",
        "ip address add 10.78.0.1/24 dev data1",
        "ip link set lo up",
        "ip link set data0 up",
        "ip link set data1 up",
        'exec "$@"',
    ]
    before = ["unshare", "--net", "sh", "-c", " && ".join(script), "sh"]
    env = {"RAY_BOOTSTRAP_NODE_IP": None, "RAY_BOOTSTRAP_INTERFACE": "10.78.0.0/16", "https_proxy": "http://10.77.0.9"}
    show = "echo $MASTER_ADDR $VLLM_HOST_IP $GLOO_SOCKET_IFNAME $TP_SOCKET_IFNAME $HCCL_SOCKET_IFNAME $no_proxy"
    node = site.run("--", "sh", "-c", show, env=env, before=before)
    assert node.wait() == 0, node.err
    assert node.out == "10.78.0.1 10.78.0.1 data1 data1 =data1 localhost,127.0.0.1,::1,10.78.0.1\n"
    (start,) = node.starts
    assert (start["env"]["MASTER_ADDR"], start["env"]["TP_SOCKET_IFNAME"]) == ("10.78.0.1", "data1")
    detected = site.run("detect", env=env, before=before)
    assert detected.wait() == 0
    assert "GLOO_SOCKET_IFNAME=data1 (holds 10.78.0.1; there are also data0)\n" in detected.out
    off = site.run("--framework-env=off", "--", "sh", "-c", show, env=env, before=before)
    assert off.wait() == 0
    assert off.out == "\n"


def test_check_on_a_fit_node(site: Site) -> None:
    node = site.run("check")
    assert node.wait() == 0, node.err
    assert "ok " in node.out
    assert "socket-path" in node.out
    assert node.starts == []


def test_check_on_an_unfit_node_tells_all_findings(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        args = [f"--dashboard-port={port}", f"--temp-dir=/tmp/{'x' * 60}"]
        node = site.run("check", "--json", *args)
        assert node.wait() == 78
    findings = json.loads(node.out)
    fatal = {finding["check"] for finding in findings if finding["fatal"]}
    assert {"ports", "socket-path"} <= fatal
    assert f"--dashboard-port={port} is held by pid {os.getpid()}" in node.err
    assert "--ignore-check" in node.err


def test_an_unfit_node_starts_nothing(site: Site) -> None:
    node = site.run(f"--temp-dir=/tmp/{'x' * 60}", "--", "true")
    assert node.wait() == 78
    assert node.starts == []
    assert not Path(f"/tmp/{'x' * 60}").exists()
    assert node.verdict["source"] == "preflight"


def test_status_follows_a_run(site: Site) -> None:
    mine = ["--json", f"--run-id={site.run_id}"]
    before = site.run("status", *mine)
    assert (before.wait(), json.loads(before.out)) == (1, [])
    head = site.rank(0, 2, workload=["sh", "-c", "echo up; exec sleep 600"])
    head.is_in("waiting")
    waiting = site.run("status", *mine)
    assert waiting.wait() == 2
    worker = site.rank(1, 2)
    head.says("up", where="out")
    worker.is_in("joined")
    running = site.run("status", *mine)
    assert running.wait() == 0
    found = {run["role"]: run for run in json.loads(running.out)}
    assert (found["head"]["phase"], found["worker"]["phase"]) == ("running", "joined")
    assert (found["head"]["nodes"], found["worker"]["rank"]) == (2, 1)
    assert found["head"]["gcs"] == found["worker"]["gcs"]
    shown = site.run("status", f"--run-id={site.run_id}")
    assert shown.wait() == 0
    assert f"head, rank 0 of 2, run '{site.run_id}'" in shown.out
    head.send(signal.SIGTERM)
    assert (head.wait(), worker.wait()) == (143, 143)
    assert site.run("status", *mine).wait() == 1


def test_exec_gives_a_command_the_variables_of_the_run(site: Site) -> None:
    mine = f"--run-id={site.run_id}"
    none = site.run("exec", mine, "--", "true")
    assert none.wait() == 68
    assert f"this user has no run '{site.run_id}' on this machine" in none.err
    worker = site.rank(1, 2)
    worker.is_in("searching")
    early = site.run("exec", mine, "--", "true")
    assert early.wait() == 68
    assert f"Ray of run '{site.run_id}' is not up on this node yet: searching" in early.err
    worker.send(signal.SIGTERM)
    assert worker.wait() == 143
    head = site.rank(0, 2, "--late-wait=0", env={"RAY_BOOTSTRAP_SECRET": "s" * 32})
    head.is_in("waiting")  # for a worker, but its own Ray is up
    script = "echo $RAY_ADDRESS; cat $RAY_AUTH_TOKEN_PATH; grep SigIgn /proc/self/status; exit 7"
    inside = site.run("exec", mine, "--", "sh", "-c", script)
    assert inside.wait() == 7
    gcs, rest = inside.out.splitlines()[0], inside.out.splitlines()[1]
    head.says(f"the Ray head is up at {gcs} after")
    token, mask = rest.split("SigIgn:")
    assert re.fullmatch("[0-9a-f]{64}", token)
    # Python ignores these two; what else is ignored was so before.
    assert int(mask, 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    shell = site.run("exec", mine, env={"SHELL": "/usr/bin/env"})
    assert shell.wait() == 0
    assert f"RAY_ADDRESS={gcs}\n" in shell.out
    missing = site.run("exec", mine, "--", "no-such-program")
    assert missing.wait() == 127
    assert missing.err == "ray-bootstrap: 'no-such-program' is not found on PATH\n"
    unmarked = site.run("exec", "ray", "status")
    assert unmarked.wait() == 64
    assert "put the command after --: ray-bootstrap exec -- ray status" in unmarked.err
    other = site.run("--run-id=other", "--", "sh", "-c", "echo up; exec sleep 600")
    other.says("up", where="out")
    several = site.run("exec", "--", "true", env=NO_RUN_ID)
    assert several.wait() == 64
    assert [run for run in ("other", site.run_id) if repr(run) not in several.err] == []
    for node in (head, other):
        node.send(signal.SIGTERM)
        assert node.wait() == 143


def test_check_knows_its_own_run(site: Site) -> None:
    ports = [f"--gcs-port={free_port()}", f"--rollcall-port={(taken := free_port())}"]
    head = site.rank(0, 2, *ports, "--min-nodes=1", "--last-call=0", workload=["sh", "-c", "echo up; exec sleep 600"])
    head.says("up", where="out")
    check = site.run("check", *ports)
    assert check.wait() == 0, check.err
    assert (
        f"warning  ports          --rollcall-port={taken} is held by this user's run '{site.run_id}', pid" in check.out
    )
    beside = site.run(*ports, "--", "true")  # another run here would not get them
    assert beside.wait() == 78
    assert f"held by this user's run '{site.run_id}', pid" in beside.err
    head.send(signal.SIGTERM)
    assert head.wait() == 143


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_node_is_ready_when_the_cluster_stands(site: Site) -> None:
    mine, ports = f"--run-id={site.run_id}", [free_port(), free_port()]
    head = site.rank(0, 3, f"--ready-port={ports[0]}", workload=["sh", "-c", "echo up; exec sleep 600"])
    worker = site.rank(1, 3, f"--ready-port={ports[1]}")
    worker.is_in("joined")  # Ray runs here, but one node is missing
    status = site.run("status", mine)
    assert status.wait() == 2
    assert "joined for" in status.out
    assert status.out.count("not ready") == 2
    assert list(map(connects, ports)) == [False, False]
    last = site.rank(2, 3)
    head.says("up", where="out")
    wait_for(lambda: all(map(connects, ports)), what="open ports")
    # Of strangers, too, who hold nothing: more than any backlog, each closed by us.
    held = [socket.create_connection(("127.0.0.1", ports[0]), 5) for _ in range(300)]
    assert {stranger.recv(1) for stranger in held} == {b""}
    for stranger in held:
        stranger.close()
    last.is_in("joined")
    status = site.run("status", mine)
    assert status.wait() == 0
    assert status.out.count("the cluster stands") == 3
    worker.send(signal.SIGTERM)
    worker.is_in("leaving")  # the fake Ray is never drained
    assert list(map(connects, ports)) == [True, False]
    head.send(signal.SIGTERM)
    assert [node.wait() for node in (head, worker, last)] == [143, 143, 143]
    assert list(map(connects, ports)) == [False, False]


def test_a_ready_port_that_another_program_has(site: Site) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        unfit = site.run(f"--ready-port={port}", "--", "true")
        assert unfit.wait() == 78
        assert f"--ready-port={port} is held by pid {os.getpid()} (" in unfit.err
        warned = site.run(f"--ready-port={port}", "--ignore-check=ports", "--", "true")
        assert warned.wait() == 0
        assert f"warning: --ready-port={port} cannot be opened (Address already in use): a readiness" in warned.err


@pytest.mark.parametrize("where", ["--log-format=json", "RAY_BOOTSTRAP_LOG_FORMAT"])
def test_every_line_of_ours_may_be_json(site: Site, where: str) -> None:
    args, env = ([where], {}) if where.startswith("--") else ([], {where: "json"})
    nodes = [site.rank(r, 2, *args, env={**env, "RAY_BOOTSTRAP_MIN_NODE": "1"}) for r in range(2)]
    assert [node.wait() for node in nodes] == [0, 0]
    for rank, node in enumerate(nodes):
        lines = [json.loads(line) for line in node.err.splitlines()]
        assert len(lines) > 3
        assert {frozenset(line) for line in lines} == {frozenset(("time", "level", "rank", "message"))}
        assert lines[-1]["rank"] == rank
        assert lines[-1]["message"].startswith("exit status 0 (from the workload)")
        assert any("RAY_BOOTSTRAP_MIN_NODES" in line["message"] for line in lines)


def test_a_result_file_that_cannot_be_written_is_told(site: Site) -> None:
    node = site.run("--result-file=/no/such/folder/status.json", "--", "sh", "-c", "exit 3")
    assert node.wait() == 3
    assert "--result-file=/no/such/folder/status.json: No such file or directory" in node.err


@pytest.mark.parametrize("args", [["--result-file=own.json"], ["--result-file", "own.json"]])
def test_the_result_file_of_a_usage_error_may_be_named_by_the_flag(site: Site, args: list[str]) -> None:
    node = site.run(*args, "--num-cpus=x", "--", "true", "--result-file=workloads.json")
    assert node.wait() == 64
    assert json.loads((node.folder / "own.json").read_text())["status"] == 64
    assert not (node.folder / "status.json").exists()


def test_a_report_leaves_the_runs_result_file_alone(site: Site) -> None:
    node = site.run("check", f"--temp-dir=/tmp/{'x' * 60}")
    assert node.wait() == 78
    assert not (node.folder / "status.json").exists()


def test_a_usage_error_with_a_result_file_that_cannot_be_written(site: Site) -> None:
    node = site.run("--result-file=/no/such/folder/status.json", "--num-cpus=x")
    assert node.wait() == 64
    assert "--num-cpus='x': expected" in node.err
    assert "--result-file=/no/such/folder/status.json: No such file or directory" in node.err


@pytest.mark.requires("cc")
@pytest.mark.parametrize("command", ["detect", "check", "kuberay", "run"])
def test_an_nvml_that_hangs_holds_up_no_command(site: Site, command: str) -> None:
    site.shorten(PREPARE_S=0.5)
    pod = {"KUBERAY_GEN_RAY_START_CMD": "ray start --head"} if command == "kuberay" else {}
    node = site.run(command, env={**nvml_that_hangs(site), **pod})
    assert node.wait() == 78
    assert "the inspection of this node timed out after 0.5 s: NVML, a name server or a folder hangs" in node.err


@pytest.mark.requires("cc")
@pytest.mark.parametrize("command", ["detect", "check", "run"])
def test_a_name_server_that_hangs_holds_up_no_command(site: Site, command: str) -> None:
    site.shorten(IDENTIFY_S=0.5)
    args = ["--address=head.example", "--min-nodes=2"]
    node = site.run(command, *args, env=preloaded(site, RESOLVER_THAT_HANGS))
    assert node.wait() == 65
    assert "finding out who this node is timed out after 0.5 s: a name server or a file system hangs" in node.err
