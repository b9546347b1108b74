"""The shipped script in a real Grid Engine, with a fake Ray."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import FAKE_RAY
from conftest import REPOSITORY
from grid_engine import GridEngine, grid_engine_on_hosts
from requirements import HOSTS, requires

pytestmark = [pytest.mark.hosts, pytest.mark.requires("grid-engine"), pytest.mark.timeout(120)]

BIN = str(Path(sys.executable).parent)
SCRIPT = str(REPOSITORY / "examples" / "launchers" / "gridengine.sh")
COMMAND = f"""\
#!/bin/sh
export PYTHONPATH={FAKE_RAY} RAY_BOOTSTRAP_IGNORE_CHECK=memory RAY_BOOTSTRAP_NUM_CPUS=1
export FAKE_RAY_CLUSTER="${{0%/bin/*}}/clusters/$JOB_ID"
export FAKE_RAY_RECORD="$FAKE_RAY_CLUSTER/record"
mkdir -p "$FAKE_RAY_CLUSTER"
exec {BIN}/python -m bootstrap "$@"
"""
"""The ray-bootstrap that a job finds first: each job has a fake Ray of its own."""
PROGRAM = """\
trap 'echo "saved at SIGTERM"; exit 0' TERM
echo "rank 0 is on $(hostname), of $RAY_BOOTSTRAP_CLUSTER_NODES nodes; <$1>"
until [ -e "$2" ]; do sleep 0.1; done
exit 3
"""
WORD = "two  blanks, $HOME and it's"
"""An argument that a shell on the other host must not change."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridEngine]:
    """Two hosts and a master, for all tests of this file."""
    requires(*HOSTS, "grid-engine")
    with grid_engine_on_hosts(tmp_path_factory.mktemp("sge")) as site:
        (site.folder / "bin").mkdir()
        (site.folder / "bin" / "ray-bootstrap").write_text(COMMAND)
        (site.folder / "bin" / "ray-bootstrap").chmod(0o755)
        (site.folder / "program.sh").write_text(PROGRAM)
        (site.folder / "clusters").mkdir()
        (site.folder / "clusters").chmod(0o1777)
        yield site


def submit(site: GridEngine, *argv: str) -> str:
    """``qsub`` for two hosts, with the ray-bootstrap above in the job's path."""
    path = f"PATH={site.folder}/bin:/usr/bin:/bin"
    return site.submit("-pe", "ray", "2", "-v", f"{path},SGE_QMASTER_PORT,SGE_EXECD_PORT", *argv)


def program(site: GridEngine, go: str) -> tuple[str, ...]:
    """A program that runs until there is a file of this name, and then ends with status 3."""
    return ("sh", f"{site.folder}/program.sh", WORD, f"{site.folder}/jobs/{go}")


def test_the_script_as_it_is_and_its_programs_status(site: GridEngine) -> None:
    job = submit(site, SCRIPT, *program(site, "go"))
    site.prints(job, "rank 0 is on")
    (site.folder / "jobs" / "go").touch()
    assert site.wait(job) == 3, site.output(job)
    said = site.output(job)
    first = next(line for line in said.splitlines() if line.startswith("rank 0 is on "))
    assert first.endswith(f"of 2 nodes; <{WORD}>")
    assert f"{first.split()[4].rstrip(',')} is head, rank 0 of 2, of run 'gridengine-{job}.undefined'" in said
    assert said.count("exit status 3 (from the workload)") == 2, said
    assert "this run is open" not in said
    assert [path.name for path in (site.folder / "jobs").iterdir() if path.is_dir()] == []
    site.nothing_left()


def test_qdel_ends_all_nodes_in_order(site: GridEngine) -> None:
    """At the signal that -notify sends ahead: what comes after it is SIGKILL."""
    job = submit(site, SCRIPT, *program(site, "never"))
    site.prints(job, "rank 0 is on")
    site.run("qdel", job)
    assert site.wait(job) == 143, site.output(job)
    said = site.output(job)
    assert said.count("saved at SIGTERM") == 1, said
    assert said.count("exit status 143 (from ray-bootstrap: stopped)") == 2, said
    site.nothing_left()


def test_a_script_alone_and_tasks_without_the_list_of_hosts_are_no_nodes(site: GridEngine) -> None:
    """None of them is a cluster of its own: NHOSTS is 1 in a task."""
    script = site.folder / "bare.sh"
    script.write_text(
        "ray-bootstrap -- echo ran; echo script: $?\n"
        "other=$(sed -n '2s/ .*//p' $PE_HOSTFILE)\n"
        "qrsh -inherit -v PATH $other ray-bootstrap -- echo ran; echo task: $?\n"
        "qrsh -inherit -V $other ray-bootstrap -- echo ran; echo task with -V: $?\n"
    )
    job = submit(site, "-j", "y", str(script))
    assert site.wait(job) == 0, site.output(job)
    said = site.output(job)
    assert [line for line in said.splitlines() if line.startswith(("script: ", "task"))] == [
        "script: 65",
        "task: 65",
        "task with -V: 65",
    ], said
    assert "is the job's script, which runs on the first of 2 hosts" in said
    assert "PE_HOSTFILE is not set" in said
    assert f"/active_jobs/{job}.1/pe_hostfile: no such file on this node" in said
    assert "ran" not in said.splitlines()
    site.nothing_left()
