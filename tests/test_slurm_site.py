"""The shipped script on a site like others: users, failing nodes, limits, preemption, arrays; with a fake Ray."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import FAKE_RAY
from conftest import REPOSITORY
from hosts import wait_for
from requirements import HOSTS, requires
from slurm_cluster import Slurm, slurm_on_hosts

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.requires("slurm", "freezer"),
    pytest.mark.timeout(280),
]

BIN = str(Path(sys.executable).parent)
SCRIPT = str(REPOSITORY / "slurm" / "ray.sbatch")
CONF = """\
SlurmdTimeout=3
TaskPlugin=task/affinity
TaskPluginParam=autobind=threads
SchedulerParameters=bf_interval=1
PartitionName=cancel Nodes=ALL PriorityTier=1 PreemptMode=CANCEL
PartitionName=gentle Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime=60
PartitionName=patient Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
"""
"""A task is bound to one CPU unless it asks otherwise. A node that does not answer is down after some 30 s; a
heterogeneous job starts within seconds, not half a minute."""
COMMAND = f"""\
#!/bin/sh
export PYTHONPATH={FAKE_RAY} RAY_BOOTSTRAP_IGNORE_CHECK=memory
export FAKE_RAY_CLUSTER="$CLUSTERS/$SLURM_JOB_ID.$SLURM_STEP_ID.$SLURM_RESTART_COUNT"
export FAKE_RAY_RECORD="$FAKE_RAY_CLUSTER/record"
mkdir -p "$FAKE_RAY_CLUSTER"
exec {BIN}/python {BIN}/ray-bootstrap "$@"
"""
"""The ray-bootstrap that a job finds first: each run has a fake Ray of its own."""
PROGRAM = """\
trap 'echo saved at SIGUSR1; exit 0' USR1
trap 'echo saved at SIGTERM; exit 0' TERM
echo "uid $(id -u), attempt ${SLURM_RESTART_COUNT:-0}, $RAY_BOOTSTRAP_CLUSTER_NODES nodes"
echo "granted: ${SLURM_CPUS_ON_NODE} CPUs, ${SLURM_CPUS_PER_TASK:-all} for the task, bound to $(nproc)"
until [ -e "$1" ]; do sleep 0.1; done
exit "${2:-0}"
"""
STOPPED = "exit status 143 (from ray-bootstrap: stopped)"
ONE = "--ntasks-per-node=1 --kill-on-bad-exit=0"


@pytest.fixture(scope="module")
def whole_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Four nodes and a controller, for all tests of this file."""
    requires(*HOSTS, "slurm", "freezer")
    with slurm_on_hosts(tmp_path_factory.mktemp("slurm"), conf=CONF) as slurm:
        (slurm.folder / "bin").mkdir()
        (slurm.folder / "bin" / "ray-bootstrap").write_text(COMMAND)
        (slurm.folder / "bin" / "ray-bootstrap").chmod(0o755)
        (slurm.folder / "clusters").mkdir()
        (slurm.folder / "clusters").chmod(0o1777)
        (slurm.folder / "program.sh").write_text(PROGRAM)
        yield slurm


@pytest.fixture
def slurm(whole_slurm: Slurm) -> Iterator[Slurm]:
    """The Slurm, without a job before the test and after it."""
    yield whole_slurm
    whole_slurm.empty()


def environment(slurm: Slurm, home: str = "/tmp/home") -> dict[str, str]:
    """What the user submits with: sbatch passes it on, POSIXLY_CORRECT too, which changes bash."""
    path = f"{slurm.folder}/bin:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "CLUSTERS": f"{slurm.folder}/clusters", "HOME": home, "POSIXLY_CORRECT": "1"}


def program(slurm: Slurm, go: str = "go", status: int = 0) -> tuple[str, ...]:
    """A program that runs until there is a file of this name, and then ends with this status."""
    return ("sh", f"{slurm.folder}/program.sh", f"{slurm.folder}/jobs/{go}", str(status))


def submit(slurm: Slurm, *options: str, script: str = SCRIPT, go: str = "go") -> str:
    """The shipped script as it is, with a program that ends at the file of this name."""
    return slurm.submit(*options, script, *program(slurm, go), env=environment(slurm))


def let_end(slurm: Slurm, go: str = "go") -> None:
    (slurm.folder / "jobs" / go).touch()


def ended(slurm: Slurm, job: str) -> tuple[str, str]:
    found = slurm.wait(job)
    return found["JobState"], found["ExitCode"]


def test_the_script_as_it_is_fits_small_nodes_and_takes_whole_ones(slurm):
    """With --mem=0, which sbatch would refuse beside a --mem-per-cpu of the script's."""
    small = submit(slurm)
    whole = submit(slurm, "--nodes=2", "--exclusive", "--mem=0")
    slurm.prints(small, "uid 0, attempt 0, 2 nodes")
    slurm.prints(whole, "uid 0, attempt 0, 2 nodes")
    let_end(slurm)
    assert [ended(slurm, small), ended(slurm, whole)] == [("COMPLETED", "0:0")] * 2
    assert "granted: 2 CPUs, all for the task, bound to 2" in slurm.output(small)
    assert f"granted: 4 CPUs, all for the task, bound to {min(4, os.cpu_count() or 4)}" in slurm.output(whole)
    slurm.nothing_left()


def test_tasks_of_an_array_are_runs_of_their_own_whatever_number_of_tasks_the_job_has(slurm):
    """The number of tasks is sbatch's or the site's; one of an array's tasks has the array's own job id."""
    array = slurm.submit(
        *("--array=0-1", "--output=%x-%j.out", "--nodes=2", "--cpus-per-task=2", "--ntasks-per-node=2"),
        *(SCRIPT, *program(slurm)),
        env=environment(slurm),
    )

    def running() -> dict[str, str]:
        rows = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format=%A %K").splitlines()
        return dict(row.split() for row in rows) if len(rows) == 2 else {}

    tasks = wait_for(running, what="two tasks of the array")
    (other,) = tasks.keys() - {array}
    for task in tasks:
        slurm.prints(task, "granted: 4 CPUs, all for the task")
        assert "uid 0, attempt 0, 2 nodes" in slurm.output(task)
        assert f"of run 'slurm-{task}.0'" in slurm.output(task)
    slurm.run("scancel", "--full", "--signal=TERM", f"{array}_{tasks[array]}")
    slurm.prints(array, STOPPED, times=2, seconds=20)
    let_end(slurm)
    assert ended(slurm, other) == ("COMPLETED", "0:0"), slurm.output(other)
    assert "saved" not in slurm.output(other)
    slurm.nothing_left()


@pytest.mark.parametrize(
    ("how", "name", "expected"),
    [
        ("--batch", "USR1", ("COMPLETED", "0:0")),
        ("--full", "TERM", ("FAILED", "143:0")),
        ("--batch", "TERM", ("FAILED", "143:0")),
    ],
)
def test_a_signal_to_the_batch_shell_lets_the_program_save(slurm, how, name, expected):
    job = submit(slurm)
    slurm.prints(job, "uid 0")
    slurm.run("scancel", how, f"--signal={name}", job)
    assert ended(slurm, job) == expected, slurm.output(job)
    assert slurm.output(job).count(f"saved at SIG{name}") == 1
    assert slurm.output(job).count("exit status") == 2, slurm.output(job)
    slurm.nothing_left()


def test_limits_of_time_and_failures_of_nodes(slurm):
    """In one test, as slurmctld looks only every 30 s. Node 1 loses its cable, node 3 crashes."""
    part = ("--cpus-per-task=1", "--mem=900M")
    warned = submit(slurm, "--nodes=1", "--nodelist=node-0", *part, "--time=1", "--signal=B:USR1@60")
    overdue = submit(slurm, "--nodes=1", "--nodelist=node-0", *part)
    cut_off = submit(slurm, "--nodelist=node-[0-1]", *part)
    crashed = submit(slurm, "--nodelist=node-[2-3]", "--requeue")
    for job in (warned, overdue, cut_off, crashed):
        slurm.prints(job, "attempt 0")
    # Not "now": scontrol says which second that is, and slurmctld, perhaps in the next, refuses one that is over.
    slurm.run("scontrol", "update", f"JobId={overdue}", "EndTime=now+5")
    slurm.nodes[1].drop()
    slurm.crash(slurm.nodes[3])
    try:
        assert ended(slurm, warned) == ("COMPLETED", "0:0"), slurm.output(warned)
        assert slurm.wait(overdue)["JobState"] == "TIMEOUT"
        assert slurm.wait(cut_off)["JobState"] == "NODE_FAIL"
        slurm.wait(crashed, "PENDING")
    finally:
        slurm.nodes[1].undrop()
        slurm.repair(slurm.nodes[3])
    assert "saved at SIGUSR1" in slurm.output(warned)
    for job in (overdue, cut_off, crashed):
        assert slurm.output(job).count("saved at SIGTERM") == 1, slurm.output(job)
        assert re.search(f"rank 0: {re.escape(STOPPED)}", slurm.output(job)), slurm.output(job)
    slurm.run("scontrol", "update", f"JobId={crashed}", "StartTime=now")
    slurm.prints(crashed, "attempt 1, 2 nodes")
    let_end(slurm)
    assert ended(slurm, crashed) == ("COMPLETED", "0:0"), slurm.output(crashed)
    slurm.nothing_runs(seconds=90)
    slurm.tidy()


def test_preemption_with_and_without_a_grace_time(slurm):
    """A job that ends within its partition's GraceTime has ended by itself; even PreemptMode=REQUEUE lets it go."""
    part = ("--nodelist=node-[0-1]", "--cpus-per-task=1", "--mem=900M")
    cancelled = submit(slurm, "--partition=cancel", *part)
    not_queued = submit(slurm, *part)  # the script says --no-requeue, and the partition PreemptMode=REQUEUE
    gentle = submit(slurm, "--partition=gentle", *part)
    patient = submit(slurm, "--partition=patient", "--nodelist=node-[2-3]", "--requeue")
    for job in (cancelled, not_queued, gentle, patient):
        slurm.prints(job, "attempt 0")
    urgent = ("--partition=urgent", "--nodes=4", "--exclusive", "--mem=3G")
    other = slurm.submit(*urgent, "--output=%x-%j.out", "--wrap", "srun hostname")
    assert ended(slurm, other) == ("COMPLETED", "0:0")
    assert [slurm.job(job)["JobState"] for job in (cancelled, not_queued)] == ["PREEMPTED"] * 2
    for job in (gentle, patient):
        assert ended(slurm, job) == ("FAILED", "143:0")
        assert slurm.job(job)["PreemptTime"] != "None"
    for job in (cancelled, not_queued, gentle, patient):
        assert slurm.output(job).count("saved at SIGTERM") == 1, slurm.output(job)
        assert slurm.output(job).count(STOPPED) == 2
    slurm.nothing_left()


def test_a_job_is_queued_again_by_the_lines_of_the_docs(slurm):
    """Its program says so by its status, or it was preempted and has ended within the GraceTime."""
    (lines,) = re.findall(r"  ```sh\n(.*?)  ```\n", (REPOSITORY / "docs" / "slurm.md").read_text(), re.DOTALL)
    text = Path(SCRIPT).read_text()
    assert text.endswith('done\nwait "$step"\n')
    script = slurm.folder / "requeues.sbatch"
    script.write_text(text.removesuffix('wait "$step"\n') + textwrap.dedent(lines))
    options = ("--requeue", "--mem=900M", "--cpus-per-task=1", str(script))
    jobs = []
    for part, nodes, status in (("main", "node-[0-1]", 99), ("patient", "node-[2-3]", 0)):
        where = (f"--partition={part}", f"--nodelist={nodes}")
        jobs.append(slurm.submit(*where, *options, *program(slurm, part, status), env=environment(slurm)))
        slurm.prints(jobs[-1], "attempt 0")
    let_end(slurm, "main")
    slurm.wait(jobs[0], "PENDING")
    urgent = slurm.submit("--partition=urgent", "--nodelist=node-[2-3]", "--nodes=2", "--exclusive", "--wrap=srun true")
    assert ended(slurm, urgent) == ("COMPLETED", "0:0")
    slurm.wait(jobs[1], "PENDING")
    for job in jobs:
        assert slurm.job(job)["Restarts"] == "1"
    slurm.nothing_left()


def write(slurm: Slurm, name: str, *lines: str) -> str:
    script = slurm.folder / name
    script.write_text("\n".join(["#!/bin/bash", "#SBATCH --output=%x-%j.out", *lines]))
    return str(script)


def test_steps_side_by_side_in_one_job(slurm):
    ways = ("--exact --cpus-per-task=1 --mem=900", "--exact --cpus-per-task=1 --mem=900", "--overlap")
    command = "ray-bootstrap -- sh " + " ".join(program(slurm, status=0)[1:3])
    steps = (f"(srun {ONE} {way} {command} {n}; echo step {n} ended with $?) &" for n, way in enumerate(ways))
    job = submit(slurm, "--nodes=2", "--cpus-per-task=2", "--mem=2G", script=write(slurm, "steps", *steps, "wait"))
    slurm.prints(job, "uid 0, attempt 0, 2 nodes", times=3)
    let_end(slurm)
    assert ended(slurm, job) == ("COMPLETED", "0:0"), slurm.output(job)
    for n in range(3):
        assert f"step {n} ended with {n}\n" in slurm.output(job), slurm.output(job)
    slurm.nothing_left()


def test_a_heterogeneous_job_is_one_run_if_srun_says_so(slurm):
    command = " ".join(["ray-bootstrap --", *program(slurm)])
    parts = ("#SBATCH --nodes=2 --mem=900", "#SBATCH hetjob", "#SBATCH --nodes=1 --cpus-per-task=2 --mem=1200")
    job = submit(slurm, script=write(slurm, "het", *parts, f"srun --het-group=0,1 --cpu-bind=none {ONE} {command}"))
    slurm.prints(job, "uid 0, attempt 0, 3 nodes")
    let_end(slurm)
    assert ended(slurm, job) == ("COMPLETED", "0:0"), slurm.output(job)
    cpus = re.findall(r"rank (\d): fit: .*, (\d) CPUs", slurm.output(job))
    assert sorted(cpus) == [("0", "1"), ("1", "1"), ("2", "2")], slurm.output(job)
    slurm.nothing_left()


ONE_USER, OTHER_USER = "1", "65534"
"""Any two that have no rights over each other."""


def test_two_users_on_the_same_nodes_keep_to_themselves(slurm):
    """One with the shipped script, one with the README's line, whose secret comes through MUNGE."""

    def run(user: str, host: object, *argv: str, **env: str) -> tuple[int, str]:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *argv]
        given = {**slurm.env, **environment(slurm, f"/tmp/home-{user}"), **env}
        result = host.run(as_user, check=False, env=given)  # type: ignore[attr-defined]
        return result.returncode, result.stdout + result.stderr

    where = ("--parsable", f"--chdir={slurm.folder}/jobs", "--nodelist=node-[0-1]", "--mem=900M")
    line = " ".join([f"srun {ONE} ray-bootstrap --", *program(slurm)])
    wrapped = ("--nodes=2", "--output=%x-%j.out", f"--wrap={line}")
    one = run(ONE_USER, slurm.controller, "sbatch", *where, *wrapped)[1].strip()
    other = run(OTHER_USER, slurm.controller, "sbatch", *where, SCRIPT, *program(slurm))[1].strip()
    slurm.prints(one, f"uid {ONE_USER}, attempt 0, 2 nodes")
    slurm.prints(other, f"uid {OTHER_USER}, attempt 0, 2 nodes")
    tunnels = [re.search(r"ssh -L 8265:localhost:(\d+) node-0", slurm.output(job)) for job in (one, other)]
    assert len({tunnel[1] for tunnel in tunnels if tunnel}) == 2
    assert "this run is open" not in slurm.output(one) + slurm.output(other)

    worker = slurm.nodes[1]
    for attempt in (
        ("scancel", one),
        ("scancel", "--signal=USR1", one),
        ("srun", f"--jobid={one}", "--overlap", "hostname"),
    ):
        status, said = run(OTHER_USER, slurm.controller, *attempt)
        assert (status != 0, "denied" in said) == (True, True), said
    agents = [p for p in worker.pids() if p.cmdline.startswith(f"{BIN}/python {BIN}/ray-bootstrap")]
    theirs = [p.pid for p in agents if Path(f"/proc/{p.pid}").stat().st_uid == int(ONE_USER)]
    assert len(theirs) == 3
    inside = [worker.run(["pgrep", "--uid", ONE_USER]).stdout.split()[0], "/tmp/ray-bootstrap.*/"]
    for attempt in (("kill", "-0", inside[0]), ("cat", f"/proc/{inside[0]}/environ")):
        status, said = run(OTHER_USER, worker, *attempt)
        assert (status != 0, "denied" in said or "not permitted" in said) == (True, True), said
    folders = worker.run(
        ["find", "/tmp", "-maxdepth", "1", "-name", "ray-bootstrap.*", "-uid", ONE_USER]
    ).stdout.split()
    assert folders
    for folder in folders:
        status, said = run(OTHER_USER, worker, "ls", folder)
        assert (status != 0, "denied" in said) == (True, True), said
    step = {"SLURM_JOB_ID": one, "SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
    step |= {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node-[0-1]"}
    status, said = run(OTHER_USER, worker, "ray-bootstrap", "--head-timeout=10s", "--", "true", **step)
    assert (status, "Unauthorized credential" in said) == (77, True), said
    let_end(slurm)
    assert [ended(slurm, one), ended(slurm, other)] == [("COMPLETED", "0:0")] * 2, slurm.output(one)
    slurm.nothing_left()
