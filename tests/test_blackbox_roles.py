"""A head that only leads, and what the quorum expects of it and of the others, with the fake Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nvml
import pytest

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

LEADS = ("--head-cpus=0", "--head-gpus=0", '--head-resources={"NPU": 0}')


def with_gpus(site: Site, count: int) -> dict[str, str]:
    """The variables of a node whose NVML shows that many."""
    folder = site.folder / "nvml"
    folder.mkdir(exist_ok=True)
    env = nvml.environment(nvml.gpus(count), folder, {})
    return {name: env[name] for name in ("LD_LIBRARY_PATH", "NVML_STUB")}


@pytest.mark.requires("cc")
def test_the_same_command_line_starts_a_head_that_only_leads_and_workers_that_work(site: Site) -> None:
    given = (*LEADS, "--expect-gpus=2", '--resources={"NPU": 8}', '--expect-resources={"NPU": 8, "CPU": 1}')
    workload = ["sh", "-c", "echo $RAY_BOOTSTRAP_CLUSTER_GPUS GPUs, ${CUDA_VISIBLE_DEVICES-unset}"]
    head = site.rank(0, 2, *given, workload=workload)  # without a driver
    worker = site.rank(1, 2, *given, "--ignore-check=gpu-health", "--ignore-check=node-address", env=with_gpus(site, 2))
    assert (head.wait(), worker.wait()) == (0, 0), head.err
    assert {"--num-cpus=0", "--num-gpus=0", '--resources={"NPU": 0}'} <= set(head.argv)
    assert {"--num-cpus=1", "--num-gpus=2"} <= set(worker.argv)
    assert any('"NPU": 8' in argument for argument in worker.argv)
    assert head.out == "2 GPUs, unset\n"
    assert "; it has" not in head.err  # the difference was asked for


def test_a_difference_that_was_not_asked_for_is_still_named(site: Site) -> None:
    head = site.rank(0, 2, "--num-gpus=0", "--head-cpus=3")
    worker = site.rank(1, 2, "--num-gpus=2", "--head-cpus=3")
    assert (head.wait(), worker.wait()) == (0, 0), head.err
    assert "; it has 2 GPUs (-), the head 0 (-)\n" in head.err


def test_the_head_says_which_rank_is_short_of_which_resource(site: Site) -> None:
    expects = (*LEADS, '--expect-resources={"NPU": 16, "CPU": 1}', "--quorum-timeout=2s")
    nodes = [site.rank(rank, 3, *expects, f'--resources={{"NPU": {has}}}') for rank, has in enumerate((9, 16, 8))]
    assert [node.wait() for node in nodes] == [75, 75, 75]
    reason = nodes[0].verdict["reason"].splitlines()
    assert reason[:2] == [
        "2 of 3 nodes after 2 s; joined: rank 0, 1",
        "rank 2: 127.0.0.3 has 8 NPU, 16 expected",
    ]
    assert "waiting for rank 2 (8 of 16 NPU)" in nodes[0].err
    assert "--resources with NPU on the nodes that are short of it" in nodes[0].verdict["hint"]


@pytest.mark.requires("cc")
def test_a_head_that_is_to_offer_some_gpus_is_expected_to_have_these(site: Site) -> None:
    args = ("--head-gpus=1", "--expect-gpus=2", "--ignore-check=gpu-health", "--", "true")
    head = site.run(*args, env=with_gpus(site, 1))
    assert head.wait() == 0, head.err
    assert "--num-gpus=1" in head.argv
    unfit = site.run("--head-gpus=4", "--", "true", env={"CUDA_VISIBLE_DEVICES": ""})
    assert unfit.wait() == 78
    assert "--head-gpus=4, but CUDA_VISIBLE_DEVICES='' leaves 0" in unfit.err
