"""Volcano's Jobs: the rank of each pod, of one task or of several, by what its controller makes of the Job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from controllers import volcano_lists
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import NodeIdentity
from bootstrap.settings import Settings

TASKS = st.dictionaries(st.sampled_from(["master", "head", "head-node", "ps", "worker", "a-b-c"]), st.integers(1, 12))


def job(tasks: dict[str, int], **template: Any) -> dict[str, Any]:
    listed = [{"name": name, "replicas": n, "template": {"spec": template}} for name, n in tasks.items()]
    return {"metadata": {"name": "ray"}, "spec": {"tasks": listed}}


def who(env: dict[str, str], hostname: str, root: Path = Path("/nonexistent"), **options: Any) -> NodeIdentity:
    return identify(Settings(**options), Host(env, hostname, root))[0]


def every(tasks: dict[str, int]) -> list[NodeIdentity]:
    """Of each pod, as Volcano's controller names them, in the order of the tasks."""
    lists = volcano_lists(job(tasks))
    pods = [(f"ray-{task}-{index}", str(index)) for task, n in tasks.items() for index in range(n)]
    return [who({**lists, "VC_TASK_INDEX": index}, name) for name, index in pods]


@given(TASKS.filter(bool))
def test_each_pod_of_any_tasks_has_a_rank_of_its_own_and_all_have_the_same_head(tasks: dict[str, int]) -> None:
    found = every(tasks)
    assert sorted(identity.rank or 0 for identity in found) == list(range(sum(tasks.values())))
    for identity in found:
        assert (identity.launcher, identity.size, identity.run_id) == ("volcano", len(found), "volcano-ray")
        assert identity.head_hints == found[0].head_hints
        assert len(identity.hosts) == len(found)


@pytest.mark.parametrize(
    ("tasks", "order"),
    [
        ({"worker": 2, "master": 1}, ["ray-master-0.ray", "ray-worker-0.ray", "ray-worker-1.ray"]),
        ({"worker": 1, "head": 1, "actor": 1}, ["ray-head-0.ray", "ray-actor-0.ray", "ray-worker-0.ray"]),
        ({"b": 1, "a": 2}, ["ray-a-0.ray", "ray-a-1.ray", "ray-b-0.ray"]),
    ],
)
def test_the_heads_task_comes_first_and_the_others_by_name(tasks: dict[str, int], order: Sequence[str]) -> None:
    for identity in every(tasks):
        assert list(identity.hosts) == order


def test_a_name_that_begins_like_anothers_is_not_taken_for_it() -> None:
    lists = volcano_lists(job({"worker": 12, "worker-1": 12}))
    assert who({**lists, "VC_TASK_INDEX": "10"}, "ray-worker-10").rank == 10
    assert who({**lists, "VC_TASK_INDEX": "0"}, "ray-worker-1-0").rank == 12
    with pytest.raises(IdentityError, match=r"VC_TASK_INDEX='1', host name 'ray-worker-10'.* is not certain"):
        who({**lists, "VC_TASK_INDEX": "1"}, "ray-worker-10")


def test_without_variables_the_lists_are_in_the_files(tmp_path: Path) -> None:
    """svc: [--inject-hosts-env=false]"""
    folder = tmp_path / "etc/volcano"
    folder.mkdir(parents=True)
    for name, text in volcano_lists(job({"master": 1, "worker": 3}), files=True).items():
        (folder / name).write_text(text)
    identity = who({"VC_TASK_INDEX": "1"}, "ray-worker-1", tmp_path)
    assert (identity.rank, identity.size, identity.head_hints) == (2, 4, ("ray-master-0.ray",))


def test_the_one_name_of_a_template_with_a_host_name_is_no_list() -> None:
    lists = volcano_lists(job({"worker": 3}, hostname="ray"))
    assert lists == {"VC_WORKER_HOSTS": "ray.ray", "VC_WORKER_NUM": "1"}
    for index in "012":
        with pytest.raises(IdentityError, match=r"'ray\.ray' does not name a pod of this task") as caught:
            who({**lists, "VC_TASK_INDEX": index}, "ray")
        assert "take `hostname` out of the task's template" in caught.value.hint


@pytest.mark.parametrize(
    ("hostname", "more", "rank"),
    [
        ("the-machine", {}, None),  # hostNetwork: the name is the machine's
        ("the-machine", {"MA_TASK_NAME": "worker"}, 2),
        ("the-machine", {"MA_TASK_NAME": "other"}, None),
        ("ray-worker-1", {"VC_TASK_INDEX": "0"}, None),
        ("ray-worker-1", {"VC_TASK_INDEX": ""}, 2),
    ],
)
def test_of_several_tasks_its_own_must_be_certain(hostname: str, more: dict[str, str], rank: int | None) -> None:
    env = {**volcano_lists(job({"master": 1, "worker": 3})), "VC_TASK_INDEX": "1", "MA_NUM_HOSTS": "4", **more}
    if rank is not None:
        assert who(env, hostname).rank == rank
        return
    with pytest.raises(IdentityError, match="is not certain") as caught:
        who(env, hostname)
    assert "--rank=N on each node" in caught.value.hint
    assert who(env, hostname, rank=3).rank == 3  # as the hint says: size and head are those of the lists
    assert who(env, hostname, rank=3).size == 4


@pytest.mark.parametrize(
    "more",
    [
        {"VC_TASK_INDEX": "7"},  # means nothing there
        {"VC_TASK_INDEX": "7", "VC_WORKER_HOSTS": "x-worker-0.x", "VC_WORKER_NUM": "1"},
        {"MA_VJ_NAME": "ma-job-1"},
    ],
)
def test_the_only_node_on_modelarts(more: dict[str, str]) -> None:
    identity = who({"MA_NUM_HOSTS": "1", **more}, "node-a")
    assert (identity.launcher, identity.rank, identity.size) == ("volcano", 0, 1)
    assert identity.run_id == f"volcano-{more.get('MA_VJ_NAME', 'x' if 'VC_WORKER_HOSTS' in more else 'node-a')}"


def test_several_nodes_without_lists_do_not_name_the_run_after_themselves() -> None:
    """Each would have another name."""
    with pytest.raises(IdentityError, match="nothing names this run") as caught:
        who({"VC_TASK_INDEX": "1"}, "ray-worker-1", nodes=2)
    assert "metadata.annotations['scheduling.k8s.io/group-name']" in caught.value.hint
    identity = who({"VC_TASK_INDEX": "1"}, "ray-worker-1", nodes=2, run_id="r", head_address="ray-head")
    assert (identity.rank, identity.size, identity.run_id) == (1, 2, "r")
