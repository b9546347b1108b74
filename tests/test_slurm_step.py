"""Steps that srun makes in other ways than slurm/ray.sbatch does, in a real Slurm."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import COUNT
from requirements import HOSTS, requires
from slurm_cluster import Slurm, slurm_on_hosts

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray,
    pytest.mark.requires("slurm", "freezer"),
    pytest.mark.timeout(180),
]

AGENT = f"{Path(sys.executable).parent}/ray-bootstrap"


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
