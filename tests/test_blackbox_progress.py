"""What a node says of itself while it comes up, and how the head shows it: black box, with the fake Ray."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import nvml
import pytest

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
SOON = {"QUIET_START_S": 0.1, "SLOW_START_S": 0.5, "READ_LOGS_AGAIN_S": 0.1, "REPORTS_TOGETHER_S": 0.1}


def last_lines(node: Node, count: int = 15) -> str:
    return "\n".join(node.err.splitlines()[-count:])


@pytest.mark.parametrize(
    ("words", "telling", "remedy"),
    [
        ("no-gcs", "Failed to connect to GCS at address 127.0.0.9:6379 within 5 seconds.", "ip route get 127.0.0.9"),
        ("log-error", "raylet.out: Check failed: the port is already in use", "`ss -ltnp`"),
    ],
)
def test_what_a_worker_s_ray_says_is_on_the_head_while_it_starts_and_at_the_time_out(
    site: Site, words: str, telling: str, remedy: str
) -> None:
    site.folder.chmod(0o755)  # Ray's folder is this run's alone, so that the logs in it are
    site.shorten(**SOON)
    head = site.rank(0, 2, "--quorum-timeout=8")
    worker = site.rank(1, 2, env={"FAKE_RAY": words})
    head.says(f"): starting-ray: no raylet yet; {telling}")
    assert "exit status" not in head.err
    assert (worker.wait(), head.wait()) == (69, 69)
    assert head.err.count(f"starting-ray: no raylet yet; {telling}") == 1
    for node in (head, worker):
        assert f": no raylet yet; {telling}" in last_lines(node).partition("`ray start` timed out after ")[2]
        assert remedy in node.verdict["hint"], node.err
        assert "waits longer" not in node.err


@pytest.mark.parametrize("released", [False, True])
def test_a_slow_import_is_on_the_head_before_and_after_the_release(site: Site, *, released: bool) -> None:
    site.shorten(**SOON)
    head = site.rank(0, 2, env={"FAKE_RAY": "" if released else "gate"})
    worker = site.rank(1, 2, env={"FAKE_RAY": "slow-import"})
    head.says("): starting-ray: importing Ray for " if released else "): waiting: importing Ray for ")
    for node in (head, worker):
        (node.folder / "record.go").touch()
    assert (head.wait(), worker.wait()) == (0, 0)


def test_a_ray_that_cannot_be_imported_ends_the_run_before_the_head_s_ray_is_up(site: Site) -> None:
    head = site.rank(0, 2, env={"FAKE_RAY": "gate"})
    head.is_in("starting-ray")
    broken = site.folder / "broken" / "ray"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libfoo.so: no such file')")
    worker = site.rank(1, 2, env={"PYTHONPATH": str(broken.parent)})
    assert (worker.wait(), head.wait()) == (69, 69)
    assert "Ray cannot be imported: ImportError: libfoo.so: no such file" in last_lines(head)


def test_a_healthy_start_says_nothing_of_its_progress(site: Site) -> None:
    nodes = site.several(2)
    assert [node.wait() for node in nodes] == [0, 0]
    assert [text for node in nodes for text in ("no raylet yet", "importing", "registering") if text in node.err] == []


@pytest.mark.parametrize("rank", [0, 1])
def test_of_a_traceback_every_node_gets_the_error_and_only_its_own_the_rest(site: Site, rank: int) -> None:
    nodes = [site.rank(r, 2, env={"FAKE_RAY": "traceback" if r == rank else ""}) for r in range(2)]
    assert [node.wait() for node in nodes] == [69, 69]
    for node in nodes:
        assert "`ray start` failed: KeyError: 'ray_params'" in node.verdict["reason"]
        assert "Traceback" not in node.verdict["reason"]
        assert ("Traceback" in node.err) is (node is nodes[rank])
        assert "KeyError" in node.err


def test_a_bug_of_ours_is_one_line_elsewhere_and_a_traceback_here(site: Site) -> None:
    site.patch("from bootstrap.run import head", "head.wait_for_quorum = lambda *_: {}['quorum']")
    head = site.rank(0, 2)
    worker = site.rank(1, 2)
    assert (head.wait(), worker.wait()) == (70, 70)
    assert head.verdict["reason"] == worker.verdict["reason"] == "internal error: KeyError: 'quorum'"
    assert "Traceback" in head.err
    assert "Traceback" not in worker.err


@pytest.mark.parametrize(
    ("signum", "remedy"), [(signal.SIGKILL, "another process, or the platform, killed it"), (signal.SIGBUS, "/dev/shm")]
)
def test_the_remedy_fits_how_a_raylet_ended(site: Site, signum: int, remedy: str) -> None:
    node = site.run("--", "sleep", "60")
    node.is_in("running")
    os.kill(node.raylet, signum)
    assert node.wait() == 76
    assert f"was killed by {signal.Signals(signum).name}" in node.verdict["reason"]
    assert remedy in node.verdict["hint"]
    assert "waits longer" not in node.err


def test_a_raylet_that_the_oom_killer_ends_needs_memory(site: Site) -> None:
    text = "the kernel's OOM killer ended 1 process in the cgroup of here"
    site.patch("from bootstrap import cgroup", f"cgroup.OomCount.since = lambda _self: {text!r}")
    node = site.run("--", "sleep", "60")
    node.is_in("running")
    os.kill(node.raylet, signal.SIGKILL)
    assert node.wait() == 76
    assert node.verdict["reason"].endswith(f"was killed by SIGKILL; {text}")
    assert node.verdict["hint"].startswith("more memory for each node")
    assert "earlyoom" not in node.err


def _with_stub(site: Site, description: str) -> dict[str, str]:
    folder = Path(site.folder) / "nvml"
    folder.mkdir(exist_ok=True)
    return {name: nvml.environment(description, folder, {})[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")}


@pytest.mark.requires("cc")
@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("init 15\n", "NVML: GPU is lost, so this node has no GPUs; fix: drain the node"),
        ("init 18\n", "NVML: Driver/library version mismatch, so this node has no GPUs; fix: reboot"),
        ("init 9\n", "NVML: Driver Not Loaded, so this node has no GPUs; fix: --num-gpus=0"),
        ("", "NVML shows no devices, so this node has no GPUs; fix: --num-gpus=0"),
    ],
)
def test_nvml_s_error_is_on_the_head_at_once_and_once(site: Site, description: str, text: str) -> None:
    site.shorten(REPORTS_TOGETHER_S=0.5)
    broken = _with_stub(site, description)
    head = site.rank(0, 3, workload=["true"], env={"FAKE_RAY": "gate"})
    head.says("the roll call is open")
    for rank in (1, 2):
        site.rank(rank, 3, env=broken)
    head.says(f"nvml: {text}")
    (head.folder / "record.go").touch()
    assert [node.wait() for node in site.nodes] == [0, 0, 0]
    assert 1 <= head.err.count(f"nvml: {text}") <= 2  # the second node's may come too late for the first line


@pytest.mark.requires("cc")
@pytest.mark.parametrize("option", ["--num-gpus=0", "--expect-gpus=0"])
def test_where_no_gpus_are_wanted_nvml_s_error_is_not_said(site: Site, option: str) -> None:
    node = site.run(option, "--", "true", env=_with_stub(site, "init 9\n"))
    assert node.wait() == 0
    assert "NVML" not in node.err


def test_a_warning_of_a_node_is_on_the_head_only_if_that_node_does_not_come(site: Site) -> None:
    site.shorten(LATE_RANK_S=0.5, **SOON)
    head = site.rank(0, 3, "--quorum-timeout=8")
    joined = site.rank(1, 3, env={"PMI_RANK": "7"})
    site.rank(2, 3, env={"PMI_RANK": "8", "FAKE_RAY": "hang"})
    finding = "): mpi-variables: PMI_RANK: MPI in Ray's workers (mpi4py, DeepSpeed) would take itself for PMI_RANK=8"
    head.says("rank 2 (", finding)
    assert joined.process.poll() is None
    assert [node.wait() for node in site.nodes[::-1]] == [69, 69, 69]
    assert head.err.count("mpi-variables") == head.err.count(finding) == 2  # while it waits, and when it has failed


def test_what_is_alike_on_all_nodes_is_said_once_and_by_the_head(site: Site) -> None:
    """Under Slurm all nodes write to one file, which had this line a thousand times."""
    few = ["prlimit", "--nofile=15000:15000"]
    nodes = [site.rank(r, 4, workload=["sleep", "2"], before=few) for r in range(3)]
    other = site.rank(3, 4, before=["prlimit", "--nofile=12000:12000"])
    assert [node.wait() for node in (*nodes, other)] == [0] * 4
    head, *workers = nodes
    assert head.err.count("warning: nofile: the hard limit of open files is 15000; Ray asks for 65536; fix:") == 1
    assert re.search(r"warning: rank [12] \(.+\), [12]: nofile: as on this node$", head.err, re.MULTILINE)
    assert re.search(r"warning: rank 3 \(.+\): nofile: the hard limit of open files is 12000; Ray", head.err)
    assert [worker.err for worker in (*workers, other) if "nofile" in worker.err] == []
