"""How to look at the other nodes: one line for each launcher, with the names of this run."""

from __future__ import annotations

import pytest

from bootstrap.host import Host
from bootstrap.launchers import LAUNCHERS
from bootstrap.launchers.look import how_to_look, how_to_reach

JOB = "batch.kubernetes.io/job-name=train"


@pytest.mark.parametrize(
    ("launcher", "hostname", "env", "ranks", "hosts", "texts"),
    [
        (
            "kubernetes",
            "train-0.svc",
            {},
            [1, 3],
            [],
            [
                f"kubectl get pods -o wide -l {JOB};",
                f"kubectl describe pods -l '{JOB},batch.kubernetes.io/job-completion-index in (1,3)' (Failed",
                "where there is no pod: kubectl describe job train (FailedCreate: a quota",
            ],
        ),
        ("kubernetes", "machine", {}, [1], [], ["job-name=NAME"]),
        (
            "jobset",
            "x",
            {"JOBSET_NAME": "llm"},
            [0],
            [],
            ["kubectl get pods -o wide -l jobset.sigs.k8s.io/jobset-name=llm"],
        ),
        ("kubeflow-trainer", "x", {"PET_MASTER_ADDR": "ft-node-0-0.ft"}, [0], [], ["jobset-name=ft;"]),
        ("leaderworkerset", "x", {"LWS_LEADER_ADDRESS": "vllm-0.vllm.default"}, [2], [], ["name=vllm", "index in (2)"]),
        (
            "volcano",
            "ray-node-0",
            {"RAY_BOOTSTRAP_RUN_ID": "big-ray-0e6ac3c2-9bd3-4a51-8a30-6b0f7c1c9e55"},
            [1],
            [],
            [
                "kubectl get pods -o wide -l volcano.sh/job-name=big-ray;",
                "kubectl describe vcjob big-ray (FailedCreate",
            ],
        ),
        ("volcano", "ray-node-0", {"RAY_BOOTSTRAP_RUN_ID": "of-ones-own"}, [1], [], ["job-name=NAME;"]),
        ("pytorchjob", "x", {"MASTER_ADDR": "bert-master-0"}, [2], [], ["training.kubeflow.org/job-name=bert"]),
        (
            "slurm",
            "n1",
            {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-4]"},
            [2],
            [],
            ["squeue -j 4711 --steps", "scontrol show node 'n[1-4]'", "task 2"],
        ),
        (
            "slurm",
            "n1",
            {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[1-4]"},
            [2],
            ["n3"],
            ["scontrol show node 'n3'"],
        ),
        ("openmpi", "n1", {}, [1], [], ["the output of mpirun", "rank 1"]),
        ("pbs", "n1", {"PBS_JOBID": "7.pbs"}, [1, 2], ["n2", "n3"], ["qstat -f 7.pbs", "pbsnodes n2 n3"]),
        ("lsf", "n1", {"LSB_JOBID": "7"}, [1], [], ["bjobs -l 7", "bhosts NODE"]),
        ("explicit", "n1", {}, [1, 2], [], ["the command on rank 1,2"]),
    ],
)
def test_the_commands(
    launcher: str, hostname: str, env: dict[str, str], ranks: list[int], hosts: list[str], texts: list[str]
) -> None:
    line = how_to_look(launcher, Host(env, hostname), ranks, hosts)
    assert [text for text in texts if text not in line] == []


def test_only_slurms_users_are_shown_a_tunnel_to_the_dashboard() -> None:
    host = Host({"SLURMD_NODENAME": "gpu-7"}, "gpu-7.example")
    named = "127.0.0.1:61793 (from elsewhere: ssh -L 8265:localhost:61793 gpu-7)"
    assert how_to_reach("slurm", host, "127.0.0.1:61793") == named
    assert how_to_reach("kubernetes", host, "127.0.0.1:61793") == "127.0.0.1:61793"


@pytest.mark.parametrize("row", LAUNCHERS, ids=lambda row: row.name)
def test_every_row_has_a_line_without_any_variable_set(row: object) -> None:
    line = how_to_look(getattr(row, "name"), Host({}, ""), [1])  # noqa: B009
    assert line
    assert not set("{\n") & set(line)
