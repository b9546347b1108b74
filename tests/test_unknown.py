"""Pods that no row knows: those of a StatefulSet, and TPU slices. Several nodes are never each the only one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import NodeIdentity
from bootstrap.settings import Settings

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
TPU = {**POD, "TPU_WORKER_HOSTNAMES": "tpu-0.tpu,tpu-1.tpu", "TPU_NAME": "tpu"}
"""What GKE sets in each pod of a slice, beside TPU_WORKER_ID."""


def who(tmp_path: Path, env: dict[str, str], pod: str, service: str = "", **options: object) -> NodeIdentity:
    (tmp_path / "etc").mkdir(exist_ok=True)
    domain = f"{pod}.{service}.default.svc.cluster.local\t" if service else ""
    (tmp_path / "etc/hosts").write_text(f"127.0.0.1\tlocalhost\n10.0.0.5\t{domain}{pod}\n")
    return identify(Settings(**options), Host(env, pod, tmp_path))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("pod", ["vllm-1", "vllm-12", "a-b-3"])
def test_a_later_pod_of_a_stateful_set_is_not_a_cluster_of_its_own(tmp_path: Path, pod: str) -> None:
    with pytest.raises(
        IdentityError, match=f"this pod is called {pod}, as the second or a later one of a StatefulSet"
    ) as caught:
        who(tmp_path, POD, pod, "vllm")
    assert caught.value.status == 65
    assert "--rank=N and --nodes=N on each node with --head-address=HOST" in caught.value.hint


@pytest.mark.parametrize(
    ("pod", "service"),
    [
        ("vllm-0", "vllm"),  # may be one of one; the others say that they are more
        ("vllm-1", ""),  # any pod may be called so
        ("train-6f7d9c5b8-x7k2p", "train"),  # of a Deployment
        ("job-20260822", "jobs"),
    ],
)
def test_other_pods_may_be_alone(tmp_path: Path, pod: str, service: str) -> None:
    identity = who(tmp_path, POD, pod, service)
    assert (identity.launcher, identity.size) == ("local", 1)


def test_a_stateful_set_as_the_docs_have_it(tmp_path: Path) -> None:
    """RAY_BOOTSTRAP_RANK by the downward API, and the rest in the manifest."""
    options = {"rank": 1, "nodes": 2, "head_address": "vllm-0.vllm", "run_id": "vllm"}
    identity = who(tmp_path, POD, "vllm-1", "vllm", **options)
    assert (identity.launcher, identity.rank, identity.size) == ("explicit", 1, 2)
    assert (identity.head_hints, identity.rendezvous, identity.run_id) == (("vllm-0.vllm",), "static", "vllm")


def test_a_tpu_slice_alone_says_that_there_are_several(tmp_path: Path) -> None:
    for worker in ("0", "1"):
        with pytest.raises(IdentityError, match=r"TPU_WORKER_HOSTNAMES=.* lists 2 hosts") as caught:
            who(tmp_path, {**TPU, "TPU_WORKER_ID": worker}, "pod")
        assert f"TPU_WORKER_ID={worker}" in caught.value.message


def test_a_tpu_slices_numbers_do_not_count_beside_a_jobs(tmp_path: Path) -> None:
    """Of a leader without TPU, and of several slices, they are others than the ranks."""
    leader = {"LWS_LEADER_ADDRESS": "lws-0.lws.ns", "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": "1"}
    identity = who(tmp_path, {**TPU, **leader, "TPU_WORKER_ID": "0"}, "lws-0-1", "lws")
    assert (identity.launcher, identity.rank, identity.size) == ("leaderworkerset", 1, 3)
    slices = {
        "JOBSET_UID": "u",
        "JOBSET_JOB_GLOBAL_INDEX": "1",
        "JOBSET_GLOBAL_REPLICAS": "2",
        "JOBSET_PODS_PER_JOB": "2",
    }
    second = {**TPU, **slices, "MEGASCALE_SLICE_ID": "1", "TPU_WORKER_ID": "1", "JOB_COMPLETION_INDEX": "1"}
    identity = who(tmp_path, second, "js-slice-1-1", "js")
    assert (identity.launcher, identity.rank, identity.size) == ("jobset", 3, 4)


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({"NOMAD_ALLOC_INDEX": "0", "NOMAD_JOB_ID": "j"}, "no launcher matches NOMAD_ALLOC_INDEX=0: this machine"),
        ({"SM_NUM_CPUS": "4", "NHOSTS": "1"}, "no launcher matches NHOSTS=1, SM_NUM_CPUS=4: this machine"),
        ({"PBS_NUM_PPN": "4", "VC_TASK_SPEC": "x", "HOME": "/"}, "no launcher matches PBS_NUM_PPN=4: this machine"),
        ({**POD, "NUM_NODES": "1"}, "no launcher matches NUM_NODES=1: this pod"),
        (POD, "no JOB_COMPLETION_INDEX or the like in this pod: this pod"),
    ],
)
def test_what_numbers_or_counts_nodes_here_is_shown_with_what_to_give_by_hand(env: dict[str, str], shown: str) -> None:
    identity, (note,) = identify(Settings(), Host(env, "machine"))
    assert (identity.launcher, identity.size) == ("local", 1)
    assert note.startswith(shown)
    assert "for several: --rank=N and --nodes=N on each node with --head-address=HOST and --run-id=TEXT" in note


def test_an_ordinary_machine_has_nothing_to_be_shown() -> None:
    env = {"HOME": "/", "PATH": "/bin", "JOB_ID": "7", "PE": "x", "SHELL": "sh", "MACHTYPE": "x", "PEP_SIZE": "3"}
    assert identify(Settings(), Host(env, "laptop-1"))[1] == []


@pytest.mark.parametrize(("nodes", "status"), [("2", 65), ("1", 0), ("?", 0)])
def test_the_script_of_a_flux_batch_job_is_no_node_of_several(tmp_path: Path, nodes: str, status: int) -> None:
    (tmp_path / "flux").write_text(f"#!/bin/sh\ntest \"$*\" = 'getattr size' && echo '{nodes}'\n")
    (tmp_path / "flux").chmod(0o755)
    host = Host({"FLUX_URI": "local:///run/flux/local", "PATH": f"{tmp_path}:/bin:/usr/bin"}, "n1")
    if not status:
        assert identify(Settings(), host)[0].size == 1
        return
    with pytest.raises(IdentityError, match="`flux getattr size` says 2, and this is not a task of `flux run`"):
        identify(Settings(), host)
