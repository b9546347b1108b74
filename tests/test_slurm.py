"""The script that users copy, slurm/ray.sbatch as it is, in a real Slurm with real Ray."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hosts import wait_for
from requirements import HOSTS, requires
from slurm_cluster import Slurm, name_the_hosts, slurm_on_hosts

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray,
    pytest.mark.requires("slurm", "freezer"),
    pytest.mark.timeout(280),
]

BIN = str(Path(sys.executable).parent)
SCRIPT = str(REPOSITORY / "slurm" / "ray.sbatch")
GONE = 5.0
"""Seconds, generous, from the workload's end to the job's; the printed figure is below 2 on an idle machine."""

WORKLOAD = """
import os, pathlib, signal, sys, time, ray

class Actor:
    def node(self):
        return ray.get_runtime_context().get_node_id()

def answering():
    found = set()
    for actor in actors:
        try:
            found.add(ray.get(actor.node.remote()))
        except ray.exceptions.RayError:  # its node is gone
            pass
    return len(found)

def save(signum, frame):
    print("saved on", answering(), "nodes", flush=True)
    os._exit(0)

status, wait_for = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
ray.init(log_to_driver=False, logging_level="error")
pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
options = [{"num_cpus": 0.01, "scheduling_strategy": pinned(node, soft=False)} for node in nodes]
actors = [ray.remote(Actor).options(**option).remote() for option in options]
token, mpi = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read(), [name for name in os.environ if name.startswith("PMI")]
print("token", len(token), "PMI", mpi)
cpus, attempt = int(ray.cluster_resources()["CPU"]), os.environ.get("SLURM_RESTART_COUNT", 0)
answered = answering()
signal.signal(signal.SIGUSR1, save)
signal.signal(signal.SIGTERM, save)
print("attempt", attempt, "with", answered, "nodes,", cpus, "CPUs", flush=True)
while wait_for and not pathlib.Path(wait_for).exists():
    time.sleep(0.1)
print("in the end", answering(), "nodes", flush=True)
print("ended at", time.time(), flush=True)
os._exit(status)
"""


@pytest.fixture(scope="module")
def whole_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Four nodes and a controller, for all tests of this file."""
    requires(*HOSTS, "slurm", "freezer")
    with slurm_on_hosts(tmp_path_factory.mktemp("slurm")) as slurm:
        (slurm.folder / "workload.py").write_text(WORKLOAD)
        yield slurm


@pytest.fixture
def slurm(whole_slurm: Slurm) -> Iterator[Slurm]:
    """The Slurm, without a job before the test and after it."""
    yield whole_slurm
    whole_slurm.empty()
    name_the_hosts(whole_slurm)


def submit(slurm: Slurm, nodes: int, *workload: str, options: tuple[str, ...] = (), **env: str) -> str:
    """The shipped script, with no more changed than its sizes."""
    sizes = (f"--nodes={nodes}", "--cpus-per-task=1", "--mem-per-cpu=900M", "--time=30")
    return slurm.submit(*sizes, *options, SCRIPT, *workload, env={"HOME": "/tmp/home", **env})


def python(slurm: Slurm, *arguments: str) -> tuple[str, ...]:
    return ("python", str(slurm.folder / "workload.py"), *arguments)


def test_a_job_completes(slurm):
    """On nodes whose own name is unknown to them or at 127.0.1.1, for a user whose environment is not exported."""
    name_the_hosts(slurm, own={1: "127.0.1.1", 2: slurm.hosts[2].ip, 3: "127.0.1.1"})
    job = submit(slurm, 4, *python(slurm, "0"), options=("--cpus-per-task=2",), SLURM_EXPORT_ENV="NONE")
    ended = slurm.wait(job)
    gone = time.time() - float(slurm.output(job).partition("ended at ")[2].split()[0])
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), slurm.output(job)
    said = slurm.output(job)
    assert "attempt 0 with 4 nodes, 8 CPUs" in said
    assert "token 64 PMI []" in said
    assert said.count("exit status 0 (from the workload)") == 4
    assert "error" not in said
    print(f"the job was gone {gone:.2f} s after the workload's end")
    assert gone < GONE
    slurm.nothing_left()


SUBMIT = """
import json, sys, urllib.error, urllib.request
body = json.dumps({"entrypoint": "touch /shared/owned"}).encode()
headers = {"Content-Type": "application/json", **json.loads(sys.argv[1])}
try:
    print(urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8265/api/jobs/", body, headers)).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_the_one_line_of_the_readme_is_closed_to_other_users_of_the_heads_node(slurm):
    """Nobody gave it a secret: the nodes share one through MUNGE."""
    line = f"srun --ntasks-per-node=1 --kill-on-bad-exit=0 {BIN}/ray-bootstrap --dashboard-wait=60s --"
    go = slurm.folder / "go"
    command = [f"{BIN}/python", *python(slurm, "0", str(go))[1:]]
    job = slurm.submit("--nodes=2", "--cpus-per-task=1", "--mem-per-cpu=900M", f"--wrap={line} {' '.join(command)}")
    slurm.prints(job, "with 2 nodes")
    tried = {"none": "{}", "guessed": '{"Authorization": "Bearer 0123456789abcdef"}'}
    head = slurm.hosts[0]
    codes = {who: head.run([f"{BIN}/python", "-c", SUBMIT, headers]).stdout.strip() for who, headers in tried.items()}
    go.touch()
    ended = slurm.wait(job)
    go.unlink()
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), slurm.output(job)
    assert codes == {"none": "401", "guessed": "403"}
    assert "token 64" in slurm.output(job)
    assert "this run is open" not in slurm.output(job)
    slurm.nothing_left()


def test_the_workloads_status_is_the_jobs(slurm):
    job = submit(slurm, 2, *python(slurm, "3"))
    ended = slurm.wait(job)
    gone = time.time() - float(slurm.output(job).partition("ended at ")[2].split()[0])
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), slurm.output(job)
    # Each agent came to its last line: nobody was killed in the midst of clearing up, although the site would.
    assert slurm.output(job).count("exit status 3 (from the workload)") == 2
    print(f"the job was gone {gone:.2f} s after the workload's end")
    assert gone < GONE
    slurm.nothing_left()


def test_without_srun_it_is_refused(slurm):
    script = slurm.folder / "without-srun.sbatch"
    script.write_text("#!/bin/sh\n#SBATCH --output=%x-%j.out\nexec ray-bootstrap -- true\n")
    job = slurm.submit("--nodes=2", "--mem=900M", str(script))
    ended = slurm.wait(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "65:0"), slurm.output(job)
    assert "srun --ntasks=$SLURM_JOB_NUM_NODES --ntasks-per-node=1 ray-bootstrap" in slurm.output(job)
    slurm.nothing_left()


STOPPED = "exit status 143 (from ray-bootstrap: stopped)"
SAVE = 'trap "echo saved; exit 0" TERM; echo it runs; while :; do sleep 0.1; done'


@pytest.mark.parametrize("when", ["before the quorum", "after the quorum"])
def test_scancel_leaves_nothing(slurm, when):
    # A task that is cancelled before it has joined looks like one that comes late.
    job = submit(slurm, 3, "sh", "-c", SAVE, RAY_BOOTSTRAP_LATE_WAIT="0")
    slurm.prints(job, "it runs" if when == "after the quorum" else "the roll call is open")
    cancelled = time.monotonic()
    slurm.run("scancel", job)
    ended = slurm.wait(job)
    print(f"the job was gone {time.monotonic() - cancelled:.2f} s after scancel")
    assert ended["JobState"] == "CANCELLED"
    assert slurm.output(job).count(STOPPED) == 3, slurm.output(job)
    assert ("saved" in slurm.output(job)) == (when == "after the quorum")
    slurm.nothing_left()


@pytest.mark.parametrize(("signal_name", "state", "code"), [("USR1", "COMPLETED", "0:0"), ("TERM", "FAILED", "143:0")])
def test_a_signal_to_all_nodes_lets_the_workload_save_with_all_of_them(slurm, signal_name, state, code):
    """As of ``#SBATCH --signal=USR1@120``; and of scancel, the time limit and preemption."""
    job = submit(slurm, 3, *python(slurm, "0", "/nonexistent"))
    slurm.prints(job, "attempt 0 with 3 nodes")
    slurm.run("scancel", f"--signal={signal_name}", job)
    ended = slurm.wait(job)
    assert "saved on 3 nodes" in slurm.output(job), slurm.output(job)
    assert (ended["JobState"], ended["ExitCode"]) == (state, code), slurm.output(job)
    slurm.nothing_left()


def test_two_jobs_share_the_nodes(slurm):
    go = slurm.folder / "jobs" / "go"
    options = ("--nodelist=node-[0-1]",)
    one = submit(slurm, 2, *python(slurm, "0", str(go)), options=options)
    two = submit(slurm, 2, *python(slurm, "3"), options=options)
    slurm.prints(one, "with 2 nodes, 2 CPUs")
    assert slurm.wait(two)["ExitCode"] == "3:0", slurm.output(two)
    assert "with 2 nodes, 2 CPUs" in slurm.output(two)
    assert slurm.job(one)["JobState"] == "RUNNING"
    go.touch()
    assert slurm.wait(one)["JobState"] == "COMPLETED", slurm.output(one)
    assert "in the end 2 nodes" in slurm.output(one)
    slurm.nothing_left()


def test_a_suspended_job_continues(slurm):
    """For longer than the heartbeat time-out: proctrack/cgroup freezes every process, ours and Ray's."""
    go = slurm.folder / "jobs" / "go"
    strict = {"RAY_BOOTSTRAP_HEARTBEAT_TIMEOUT": "2s", "RAY_BOOTSTRAP_ON_NODE_LOSS": "fail"}
    job = submit(slurm, 2, *python(slurm, "0", str(go)), **strict)
    slurm.prints(job, "attempt 0 with 2 nodes")
    slurm.run("scontrol", "suspend", job)
    wait_for(lambda: states_of_agents(slurm) == ["D"] * 6, timeout=20, what="a freeze of both agents")
    time.sleep(5)
    slurm.run("scontrol", "resume", job)
    go.touch()
    assert slurm.wait(job)["JobState"] == "COMPLETED", slurm.output(job)
    assert "in the end 2 nodes" in slurm.output(job)
    slurm.nothing_left()


def states_of_agents(slurm):
    """The states (proc_pid_stat(5)) of all processes of ray-bootstrap on the nodes: three on each."""
    return [p.state for host in slurm.hosts for p in host.pids() if "/ray-bootstrap -- " in p.cmdline]


def test_a_requeued_job_is_another_attempt_of_the_same_run(slurm):
    go = slurm.folder / "jobs" / "go"
    options = ("--requeue", "--nodelist=node-[0-1]")
    job = submit(slurm, 2, *python(slurm, "0", str(go)), options=options, RAY_BOOTSTRAP_SETUP="echo once\ntrue")
    slurm.prints(job, "attempt 0 with 2 nodes")
    slurm.run("scontrol", "requeue", job)
    slurm.wait(job, "PENDING")
    slurm.nothing_left()
    go.touch()
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert slurm.wait(job)["JobState"] == "COMPLETED", slurm.output(job)
    assert "attempt 0 with 2 nodes" in slurm.output(job)
    assert "attempt 1 with 2 nodes" in slurm.output(job)
    said = slurm.output(job)
    assert (said.count("setup: once"), said.count("setup: attempt 0 has run it on this node")) == (2, 2)
    slurm.nothing_left()


def test_a_killed_worker_does_not_end_the_job_but_shows_in_its_status(slurm):
    """The site's KillOnBadExit=1 and WaitTime would end it; the script says otherwise."""
    go = slurm.folder / "jobs" / "go"
    job = submit(slurm, 2, *python(slurm, "0", str(go)))
    slurm.prints(job, "attempt 0 with 2 nodes")
    agent = min((p for p in slurm.hosts[1].pids() if "ray-bootstrap" in p.cmdline), key=lambda p: p.pid)
    os.kill(agent.pid, signal.SIGKILL)
    slurm.prints(job, "task 1: Killed")
    wait_for(lambda: not slurm.processes(slurm.hosts[1]), timeout=20, what="an end of the killed agent's processes")
    time.sleep(6)  # WaitTime
    assert slurm.job(job)["JobState"] == "RUNNING"
    go.touch()
    ended = slurm.wait(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "137:0"), slurm.output(job)
    assert "in the end 1 nodes" in slurm.output(job)
    slurm.nothing_runs()
    slurm.tidy()


def test_a_preempted_job_ends_in_order_and_waits_in_the_queue_again(slurm):
    nodes = "--nodelist=node-[0-1]"
    job = submit(slurm, 2, "sh", "-c", SAVE, options=(nodes, "--requeue"))
    slurm.prints(job, "it runs")
    urgent = ("--partition=urgent", "--nodes=2", nodes, "--exclusive", "--mem=3G")
    other = slurm.submit(*urgent, "--output=%x-%j.out", "--wrap", "srun hostname")
    assert slurm.wait(other)["JobState"] == "COMPLETED"
    assert slurm.job(job)["JobState"] == "PENDING"
    assert slurm.output(job).count(STOPPED) == 2, slurm.output(job)
    assert "saved" in slurm.output(job)
    slurm.nothing_left()
