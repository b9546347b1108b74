"""Steps that srun makes in other ways than slurm/ray.sbatch does, and scripts beside a step, in a real Slurm."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import COUNT
from conftest import REPOSITORY
from requirements import HOSTS, requires
from slurm_cluster import Slurm, slurm_on_hosts

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray,
    pytest.mark.requires("slurm", "freezer"),
    pytest.mark.timeout(180),
]

BIN = Path(sys.executable).parent
AGENT = f"{BIN}/ray-bootstrap"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Two nodes and a controller."""
    requires(*HOSTS, "slurm", "freezer")
    with slurm_on_hosts(tmp_path_factory.mktemp("slurm"), nodes=2) as slurm:
        (slurm.folder / "count.py").write_text(COUNT)
        yield slurm


def test_a_step_with_two_tasks_on_a_node_is_refused_whole_and_the_remedy_works_in_its_allocation(slurm):
    """In an allocation with --ntasks-per-node=2 srun ignores --ntasks-per-node=1, with a warning."""
    ran = slurm.folder / "ran"
    sizes = ["--nodes=2", "--ntasks-per-node=2", "--mem=1800M", "--output=%x-%j.out"]
    srun = f"srun --ntasks-per-node=1 --kill-on-bad-exit=0 {AGENT}"
    job = slurm.submit(*sizes, f"--wrap={srun} -- touch {ran}")
    ended = slurm.wait(job, seconds=60)
    said = slurm.output(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "65:0"), said
    assert said.count("SLURM_STEP_NUM_TASKS=4 on SLURM_STEP_NUM_NODES=2 (tasks on each node: 2(x2))") == 4
    assert not ran.exists()
    assert "the roll call is open" not in said

    (remedy,) = set(re.findall("fix: (srun .*) ray-bootstrap [.]{3}$", said, re.MULTILINE))
    workload = f"{sys.executable} {slurm.folder}/count.py 0"
    again = slurm.submit(*sizes, f"--wrap={remedy} {AGENT} --num-cpus=1 -- {workload}")
    ended = slurm.wait(again)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), slurm.output(again)
    assert re.search("^nodes 2 ", slurm.output(again), re.MULTILINE)
    slurm.nothing_left()


def test_a_direct_srun_knows_the_memory_of_its_step(slurm):
    """It sets no SLURM_MEM_*, and here no control group limits memory."""
    sizes = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--mem-per-cpu=300M")
    said = slurm.run("srun", *sizes, AGENT, "detect")
    assert (
        re.findall(r"^memory +(\d+) .*`scontrol --details show job \d+`: Mem=600 MiB", said, re.MULTILINE)
        == [str(600 << 20)] * 2
    )


def script(slurm: Slurm, *commands: str, **env: str) -> str:
    """The shipped script that goes on, with these commands in the place of its last ones; with the test's programs."""
    text = (REPOSITORY / "slurm" / "script.sbatch").read_text()
    before, _, _ = text.partition("run ray job submit")
    path = slurm.folder / "script.sbatch"
    path.write_text(before.replace("set -eo", f"PATH={BIN}:$PATH; set -eo", 1) + "\n".join(commands) + "\n")
    return slurm.submit("--cpus-per-task=2", "--mem=1800M", str(path), env={"HOME": "/tmp/home", **env})


def test_a_batch_script_goes_on_beside_the_cluster_and_its_status_is_the_jobs(slurm):
    count = f"{sys.executable} {slurm.folder}/count.py"
    job = script(
        slurm,
        "ray-bootstrap status --run",
        f"run ray job submit -- {count} 0",
        f"run {count} 3",
    )
    ended = slurm.wait(job)
    said = slurm.output(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "3:0"), said
    assert len(re.findall("^nodes 2 ", said, re.MULTILINE)) == 2
    assert said.count("exit status 3 (from ray-bootstrap: down)") == 2
    worse = [line for line in said.splitlines() if re.search("rank [01]: (error|warning)", line)]
    assert [line for line in worse if "nofile" not in line] == []  # which depends on the machine
    slurm.nothing_left()


def test_a_batch_script_that_is_killed_takes_its_cluster_along(slurm):
    """Slurm kills srun with it, and so every task by SIGKILL; what that leaves in /tmp the user's next run removes."""
    job = script(slurm, 'kill -KILL "$$"')
    ended = slurm.wait(job)
    said = slurm.output(job)
    assert ended["JobState"] == "FAILED", said
    assert said.count("quorum reached") == 1
    slurm.nothing_runs()
    slurm.run("srun", "--nodes=2", "--ntasks-per-node=1", "--mem=1800M", AGENT, "--num-cpus=1", "--", "true")
    slurm.nothing_left()


def test_a_batch_script_whose_run_fails_ends_with_its_status(slurm):
    """At once, although nothing is left that could answer: ``wait`` finds on this node how the run ended."""
    job = script(slurm, "echo not reached", RAY_BOOTSTRAP_EXPECT_GPUS="8")
    ended = slurm.wait(job, seconds=60)
    said = slurm.output(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "78:0"), said
    assert "not reached" not in said


def test_a_bare_srun_up_is_refused(slurm):
    job = slurm.submit("--nodes=2", f"--wrap=srun --ntasks-per-node=1 --kill-on-bad-exit=0 {AGENT} up")
    ended = slurm.wait(job, seconds=60)
    said = slurm.output(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "64:0"), said
    assert len(re.findall(r"slurmstepd \(pid \d+\) started `ray-bootstrap up`", said)) == 2
    assert "without `up`, `srun ray-bootstrap` stays" in said
