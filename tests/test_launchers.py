"""Who am I? A table of environments and options, and the identity or the error that each must give."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import LAUNCHERS, identify
from bootstrap.model import NodeIdentity, Role
from bootstrap.settings import Settings

SRUN = "srun --ntasks=$SLURM_JOB_NUM_NODES --ntasks-per-node=1 ray-bootstrap"
SLURM = {
    "SLURM_JOB_ID": "42",
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "SLURM_JOB_NODELIST": "gpu[001-004]",
    "SLURM_STEP_NODELIST": "gpu[002-004]",
}
BATCH = {
    "SLURM_JOB_ID": "42",
    "SLURM_NODEID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_JOB_NODELIST": "gpu[001-004]",
}
CRAY = {"PALS_NODEID": "1", "PALS_RANKID": "1", "PALS_LOCAL_RANKID": "0", "PALS_APID": "42.0", "PMI_SIZE": "3"}
LWS = {"LWS_WORKER_INDEX": "1", "LWS_GROUP_SIZE": "4", "LWS_LEADER_ADDRESS": "lws-0.lws.ns"}
TRAINER = {
    "PET_NODE_RANK": "2",
    "PET_NNODES": "4",
    "PET_NPROC_PER_NODE": "auto",
    "PET_MASTER_ADDR": "t-node-0-0.t",
    "PET_MASTER_PORT": "29500",
    "JOB_COMPLETION_INDEX": "2",
}
JOBSET = {"JOBSET_NAME": "js", "JOBSET_UID": "u-1", "JOBSET_RESTART_ATTEMPT": "2", "JOB_COMPLETION_INDEX": "1"}
KEY = "c1afa6c6616832a5-543e31a0497bab81"
OMPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_MCA_orte_precondition_transports": KEY,
    "PMIX_NAMESPACE": "2482438145",
}
OMPI_5 = {**OMPI, "OMPI_MCA_orte_precondition_transports": "", "PMIX_NAMESPACE": "prterun-a-7@1"}
JSRUN = {"LSB_JOBID": "7", "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "0"}
SKY = {
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5",
    "SKYPILOT_TASK_ID": "sky-2026-x",
}
TORCHRUN = {
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "RANK": "8",
    "WORLD_SIZE": "16",
    "MASTER_ADDR": "10.0.0.9",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "3",
}
AWS = {
    "AWS_BATCH_JOB_ID": "u-1#0",
    "AWS_BATCH_JOB_NODE_INDEX": "0",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "2",
    "AWS_BATCH_JOB_NUM_NODES": "3",
}
AZURE = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "AZ_BATCH_MASTER_NODE": "10.0.0.4:6000"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
INTEL = {**HYDRA, "I_MPI_HYDRA_UUID": "96720000-48d7-4416-db60-060044bd646a"}
FLUX = {"FLUX_JOB_ID": "f1", "FLUX_TASK_RANK": "1", "FLUX_JOB_NNODES": "2", "FLUX_TASK_LOCAL_ID": "0"}
VOLCANO = {
    "VK_TASK_INDEX": "1",
    "VC_TASK_INDEX": "1",
    "VC_NODE_HOSTS": "ray-node-0.ray,ray-node-1.ray,ray-node-2.ray",
    "VC_NODE_NUM": "3",
}
MODELARTS = {
    "MA_NUM_HOSTS": "2",
    "MA_TASK_NAME": "worker",
    "MA_VJ_NAME": "ma-job-5bd6",
    "VC_TASK_INDEX": "1",
    "VC_WORKER_HOSTS": "ma-job-5bd6-worker-0.ma-job-5bd6,ma-job-5bd6-worker-1.ma-job-5bd6",
    "VC_WORKER_NUM": "2",
}
GRIDENGINE = {"JOB_ID": "7", "PE": "mpi", "SGE_TASK_ID": "undefined", "NHOSTS": "1", "JOB_SCRIPT": "QRSH"}
SOLE = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h"}
PYTORCHJOB = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "pt-master-0"}
POD_HOSTS = "127.0.0.1\tlocalhost\n10.0.0.5\tjob-1.sub.ns.svc.cluster.local\tjob-1\n"


def asked(**options: Any) -> Settings:
    return Settings(**options)


def who(
    env: Mapping[str, str],
    settings: Settings | None = None,
    *,
    hostname: str = "node",
    root: Path = Path("/nonexistent"),
    own: Collection[str] = (),
    names: Mapping[str, list[str]] | None = None,
) -> tuple[NodeIdentity, list[str]]:
    def resolve(name: str) -> list[str]:
        found = (names or {}).get(name)
        if found is None:
            raise OSError(-2, "Name or service not known")
        return found

    host = Host(env=env, hostname=hostname, root=root)
    return identify(settings or Settings(), host, own_addresses=lambda: own, resolve=resolve)


def pod(tmp_path: Path, hosts: str = POD_HOSTS) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text(hosts)
    return tmp_path


WORKERS = [  # launcher, environment, (rank, size, head, run id, attempt, rendezvous), source of the rank
    ("slurm", SLURM, (1, 3, ("gpu002",), "slurm-42.0", 0, "slurm"), "SLURM_NODEID"),
    ("slurm", SLURM | {"SLURM_RESTART_COUNT": "2"}, (1, 3, ("gpu002",), "slurm-42.0", 2, "slurm"), "SLURM_NODEID"),
    ("slurm", SLURM | CRAY, (1, 3, ("gpu002",), "slurm-42.0", 0, "slurm"), "SLURM_NODEID"),
    ("leaderworkerset", LWS, (1, 4, ("lws-0.lws.ns",), "lws-lws-0.lws.ns", 0, "dns"), "LWS_WORKER_INDEX"),
    ("kubeflow-trainer", TRAINER, (2, 4, ("t-node-0-0.t",), "kubeflow-t-node-0-0.t", 0, "dns"), "PET_NODE_RANK"),
    ("openmpi", OMPI, (1, 2, (), f"openmpi-{KEY}", 0, "file"), "OMPI_COMM_WORLD_RANK"),
    ("openmpi", SLURM | OMPI, (1, 2, (), f"openmpi-{KEY}", 0, "file"), "OMPI_COMM_WORLD_RANK"),
    ("openmpi", OMPI_5, (1, 2, (), "openmpi-prterun-a-7@1", 0, "file"), "OMPI_COMM_WORLD_RANK"),
    ("hydra", INTEL, (1, 2, (), "hydra-96720000-48d7-4416-db60-060044bd646a", 0, "file"), "PMI_RANK"),
    ("jsrun", OMPI | JSRUN, (1, 2, (), "lsf-7", 0, "static"), "JSM_NAMESPACE_RANK"),
    ("skypilot", SKY, (1, 2, ("10.0.0.4",), "sky-2026-x", 0, "static"), "SKYPILOT_NODE_RANK"),
    ("torchrun", TORCHRUN, (1, 2, ("10.0.0.9",), "torchrun-none-10.0.0.9-29500", 3, "static"), "GROUP_RANK"),
    (
        "torchrun",
        {"NODE_RANK": "1", "NNODES": "2", "MASTER_ADDR": "h"},
        (1, 2, ("h",), "torchrun-h", 0, "static"),
        "NODE_RANK",
    ),
    ("volcano", VOLCANO, (1, 3, ("ray-node-0.ray",), "volcano-ray", 0, "dns"), "VC_TASK_INDEX"),
    (
        "volcano",
        MODELARTS,
        (1, 2, ("ma-job-5bd6-worker-0.ma-job-5bd6",), "volcano-ma-job-5bd6", 0, "dns"),
        "VC_TASK_INDEX",
    ),
    # Volcano's plugin pytorch, mpirun in a pod, and Azure ML's PyTorch on Kubernetes number the nodes themselves.
    ("pytorchjob", VOLCANO | PYTORCHJOB, (1, 3, ("pt-master-0",), "pytorchjob-pt-master-0", 0, "dns"), "RANK"),
    ("openmpi", VOLCANO | OMPI, (1, 2, (), f"openmpi-{KEY}", 0, "file"), "OMPI_COMM_WORLD_RANK"),
    (
        "torchrun",
        VOLCANO | {"NODE_RANK": "1", "AZUREML_NODE_COUNT": "3", "MASTER_ADDR": "h"},
        (1, 3, ("h",), "torchrun-h", 0, "static"),
        "NODE_RANK",
    ),
    ("pytorchjob", PYTORCHJOB, (1, 3, ("pt-master-0",), "pytorchjob-pt-master-0", 0, "dns"), "RANK"),
    ("torch-env", {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h"}, (1, 2, ("h",), "torch-h", 0, "static"), "RANK"),
]


@pytest.mark.parametrize(("launcher", "env", "expected", "source"), WORKERS, ids=[f"{w[0]}-{w[2][3]}" for w in WORKERS])
def test_a_row_says_who_this_node_is(
    launcher: str, env: dict[str, str], expected: tuple[Any, ...], source: str
) -> None:
    identity, _ = who(env)
    assert identity.launcher == launcher
    assert identity.role is Role.WORKER
    found = (identity.rank, identity.size, identity.head_hints, identity.run_id, identity.attempt, identity.rendezvous)
    assert found == expected
    assert identity.sources["rank"] == source
    assert {"rank", "size", "role", "run_id", "attempt", "rendezvous", "launcher"} <= set(identity.sources)


ROWS = {row.name: row for row in LAUNCHERS}


@pytest.mark.parametrize(("launcher", "env"), [w[:2] for w in WORKERS], ids=[f"{w[0]}-{w[2][3]}" for w in WORKERS])
def test_a_head_that_is_cut_off_ends_where_the_launcher_starts_lost_runs_anew(
    launcher: str, env: dict[str, str]
) -> None:
    identity, _ = who(env)
    assert identity.isolation_timeout == (60.0 if ROWS[launcher].requeues else math.inf)
    assert identity.sources["isolation_timeout"] == f"launcher {launcher}"
    for given_time in (5.0, math.inf):
        identity, _ = who(env, asked(isolation_timeout=given_time))
        assert (identity.isolation_timeout, identity.sources["isolation_timeout"]) == (
            given_time,
            "--isolation-timeout",
        )


def test_who_replaces_lost_nodes_is_the_rows_default() -> None:
    assert [who(env)[0].replaced_nodes for env in (SLURM, OMPI, LWS)] == ["none", "none", "all"]


@pytest.mark.parametrize(
    ("env", "options", "hosts"),
    [
        (SLURM, {}, ("gpu002", "gpu003", "gpu004")),
        (SLURM, {"head_address": "10.0.0.1"}, ("gpu002", "gpu003", "gpu004")),
        (SLURM, {"rank": 2}, ()),  # numbered by hand
        (SLURM | {"SLURM_STEP_NODELIST": "gpu[001-004]"}, {}, ()),  # more names than nodes
        (SLURM | {"SLURM_STEP_NODELIST": "gpu[001-]"}, {"head_address": "10.0.0.1"}, ()),
        (SKY, {}, ("10.0.0.4", "10.0.0.5")),
        (OMPI, {}, ()),
        (TORCHRUN, {}, ()),
    ],
)
def test_the_names_of_all_nodes_by_rank(env: dict[str, str], options: dict[str, Any], hosts: tuple[str, ...]) -> None:
    assert who(env, asked(**options))[0].hosts == hosts


@pytest.mark.parametrize("launcher", sorted({w[0] for w in WORKERS}))
def test_rank_0_of_the_same_launcher_is_the_head_of_the_same_run(launcher: str) -> None:
    _, env, expected, source = next(w for w in WORKERS if w[0] == launcher)
    identity, _ = who(env | {source: "0"})
    assert (identity.role, identity.rank, identity.run_id) == (Role.HEAD, 0, expected[3])


def test_a_pytorchjob_master_that_is_told_localhost_names_the_run_as_its_workers_do() -> None:
    identity, _ = who(PYTORCHJOB | {"RANK": "0", "MASTER_ADDR": "localhost"}, hostname="pt-master-0")
    assert identity.run_id == "pytorchjob-pt-master-0"


def test_an_indexed_job_finds_its_head_by_its_own_line_in_etc_hosts(tmp_path: Path) -> None:
    env, settings = {"JOB_COMPLETION_INDEX": "1"}, asked(nodes=2)
    identity, notes = who(env, settings, hostname="job-1", root=pod(tmp_path))
    assert identity.launcher == "kubernetes"
    assert identity.head_hints == ("job-0.sub.ns.svc.cluster.local",)
    assert (identity.rank, identity.size, identity.run_id, identity.rendezvous) == (1, 2, "job-job", "dns")
    assert identity.sources["size"] == "--nodes"
    assert any("batch.kubernetes.io/controller-uid" in note and "not unique" in note for note in notes)


def test_an_mpirun_whose_name_repeats_says_how_to_name_the_run() -> None:
    """Open MPI 5 names it by mpirun's host and process id alone."""
    assert (who(OMPI)[1], who(INTEL)[1]) == ([], [])
    (note,) = who(OMPI_5)[1]
    assert note.startswith("run id 'openmpi-prterun-a-7@1' is not unique")
    assert "mpirun -x RAY_BOOTSTRAP_RUN_ID=" in note


@pytest.mark.parametrize(
    "hosts", ["127.0.0.1 localhost\n10.0.0.5 job-1\n", "", "garbage\n# 10.0.0.5 job-1.sub job-1\n"]
)
def test_an_indexed_job_without_a_subdomain_has_no_head_hint(tmp_path: Path, hosts: str) -> None:
    identity, _ = who({"JOB_COMPLETION_INDEX": "1"}, asked(nodes=2), hostname="job-1", root=pod(tmp_path, hosts))
    assert identity.head_hints == ()
    assert identity.rendezvous == "dns"


def test_an_indexed_job_with_its_uid_and_a_shared_folder_needs_no_note() -> None:
    settings = asked(nodes=2, run_id="uid-7", shared_dir="/shared")
    identity, notes = who({"JOB_COMPLETION_INDEX": "0"}, settings, hostname="the-machine")
    assert (identity.run_id, identity.rendezvous, notes) == ("uid-7", "file", [])
    assert (identity.sources["run_id"], identity.sources["rendezvous"]) == ("--run-id", "--shared-dir")


def test_an_indexed_job_on_the_host_network_must_name_its_run() -> None:
    with pytest.raises(IdentityError) as caught:
        who({"JOB_COMPLETION_INDEX": "0"}, asked(nodes=2), hostname="the-machine")
    assert "controller-uid" in caught.value.hint


ONE_JOB = {"JOBSET_JOB_GLOBAL_INDEX": "0", "JOBSET_GLOBAL_REPLICAS": "1"}
COORDINATOR = {"JOBSET_COORDINATOR": "js-head-0-0.js"}


def jobs_of(index: int, pods: str, jobs: int = 3) -> dict[str, str]:
    """The variables of a pod of a JobSet of three Jobs, here a head, and workers twice."""
    several = {"JOBSET_JOB_GLOBAL_INDEX": str(index), "JOBSET_GLOBAL_REPLICAS": str(jobs)}
    return JOBSET | several | {"JOBSET_PODS_PER_JOB": pods}


@pytest.mark.parametrize("extra", [{}, ONE_JOB])
def test_a_jobset_of_one_job(tmp_path: Path, extra: dict[str, str]) -> None:
    root = pod(tmp_path, "10.0.0.5 js-w-0-1.js.ns.svc.cluster.local js-w-0-1\n")
    identity, notes = who(JOBSET | extra, asked(nodes=2), hostname="js-w-0-1", root=root)
    assert (identity.launcher, identity.rank, identity.run_id, identity.attempt) == ("jobset", 1, "jobset-u-1", 2)
    assert identity.head_hints == ("js-w-0-0.js.ns.svc.cluster.local",)
    assert notes == []


@pytest.mark.parametrize(
    ("env", "hostname", "rank", "size", "heads"),
    [
        (jobs_of(2, "2"), "js-w-2-1", 5, 6, ("js-w-0-0.js.ns.svc.cluster.local",)),
        (jobs_of(2, "2,2,2"), "js-w-2-1", 5, 6, ("js-w-0-0.js.ns.svc.cluster.local",)),
        (
            jobs_of(0, "1,8,8") | {"JOB_COMPLETION_INDEX": "0"},
            "js-head-0-0",
            0,
            17,
            ("js-head-0-0.js.ns.svc.cluster.local",),
        ),
        (jobs_of(1, "1,8,8") | COORDINATOR, "js-w-0-1", 2, 17, ("js-head-0-0.js",)),
        (jobs_of(2, "1, 8, 8") | COORDINATOR, "js-w-1-1", 10, 17, ("js-head-0-0.js",)),
        # with the machine's network the name is the machine's
        (jobs_of(1, "1,3", jobs=2) | COORDINATOR, "gpu-7", 2, 4, ("js-head-0-0.js",)),
        (jobs_of(0, "2,1", jobs=2) | {"JOBSET_COORDINATOR": "js-w-0-0.js"}, "rack-3-7", 1, 3, ("js-w-0-0.js",)),
        (
            jobs_of(2, "1,4,0,2", jobs=4) | COORDINATOR | {"JOBSET_JOB_GLOBAL_INDEX": "3"},
            "js-x-0-1",
            6,
            7,
            ("js-head-0-0.js",),
        ),
    ],
)
def test_a_jobset_counts_over_all_its_jobs(
    tmp_path: Path, env: dict[str, str], hostname: str, rank: int, size: int, heads: tuple[str, ...]
) -> None:
    root = pod(tmp_path, f"10.0.0.5 {hostname}.js.ns.svc.cluster.local {hostname}\n")
    identity, _ = who(env, hostname=hostname, root=root)
    assert (identity.rank, identity.size, identity.head_hints) == (rank, size, heads)
    assert identity.sources["size"] == "JOBSET_PODS_PER_JOB"


@pytest.mark.parametrize("hostname", ["js-head-0-0", "js-w-0-1"])
def test_a_jobset_without_its_uid_is_named_by_its_service_in_all_its_jobs(tmp_path: Path, hostname: str) -> None:
    head = hostname.startswith("js-head")
    env = jobs_of(0 if head else 1, "1,2", jobs=2) | {"JOB_COMPLETION_INDEX": hostname[-1]} | COORDINATOR
    root = pod(tmp_path, f"10.0.0.5 {hostname}.js.ns.svc.cluster.local {hostname}\n")
    identity, _ = who(env | {"JOBSET_NAME": "", "JOBSET_UID": ""}, hostname=hostname, root=root)
    assert (identity.role is Role.HEAD, identity.run_id) == (head, "jobset-js")


@pytest.mark.parametrize(
    "options",
    [{"head_address": "ray-head"}, {"shared_dir": "/s"}, {"rendezvous": "file", "shared_dir": "/s"}],
)
def test_a_pod_of_another_replicated_job_never_guesses_the_heads_name(tmp_path: Path, options: dict[str, Any]) -> None:
    root = pod(tmp_path, "10.0.0.5 js-w-0-1.js.ns.svc.cluster.local js-w-0-1\n")
    env = jobs_of(1, "1,2", jobs=2)
    with pytest.raises(IdentityError) as caught:
        who(env, hostname="js-w-0-1", root=root)
    assert (
        caught.value.message == "js-w-0-1 is not of the first replicated Job, and so does not know the name of rank 0"
    )
    assert "--head-address=HOST; or JOBSET_COORDINATOR" in caught.value.hint
    identity, _ = who(env, asked(**options), hostname="js-w-0-1", root=root)
    assert (identity.rank, identity.head_hints) == (2, tuple(filter(None, [options.get("head_address")])))


@pytest.mark.parametrize(
    ("env", "hostname"),
    [
        (jobs_of(1, "2,1", jobs=2) | {"JOB_COMPLETION_INDEX": "0"}, "js-head-0-0"),  # the workers' Job comes first
        (jobs_of(0, "2,1", jobs=2) | {"JOB_COMPLETION_INDEX": "0"}, "js-w-0-0"),
    ],
)
def test_a_coordinator_of_another_rank_is_not_the_head(tmp_path: Path, env: dict[str, str], hostname: str) -> None:
    root = pod(tmp_path, f"10.0.0.5 {hostname}.js.ns.svc.cluster.local {hostname}\n")
    with pytest.raises(IdentityError, match=r"the head is js-head-0-0, and .* has rank [02]: rank 0 is the head"):
        who(env | COORDINATOR, hostname=hostname, root=root)


def test_a_jobsets_coordinator_is_the_head_if_the_manifest_names_it(tmp_path: Path) -> None:
    root = pod(tmp_path, "10.0.0.5 js-w-0-1.js.ns.svc.cluster.local js-w-0-1\n")
    env = JOBSET | {"JOBSET_COORDINATOR": "js-driver-0-0.js"}
    assert who(env, asked(nodes=2), hostname="js-w-0-1", root=root)[0].head_hints == ("js-driver-0-0.js",)


ERRORS = [  # environment, options, what the message quotes, what the hint says
    (BATCH, {}, ("SLURM_JOB_ID='42'", "SLURM_STEP_ID is not set"), SRUN),
    (SLURM | {"SLURM_STEP_ID": "4294967290"}, {}, ("interactive",), SRUN),
    (SLURM | {"SLURM_LOCALID": "1"}, {}, ("SLURM_LOCALID=1",), SRUN),
    # The first task of a node, too: as of `sbatch --ntasks-per-node=2`, and of `srun --ntasks=4` on three nodes.
    (
        SLURM | {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"},
        {},
        ("SLURM_STEP_NUM_TASKS=6 on SLURM_STEP_NUM_NODES=3 (tasks on each node: 2(x3))",),
        SRUN,
    ),
    (SLURM | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "2,1(x2)"}, {}, ("2,1(x2)",), SRUN),
    (SLURM | {"SLURM_STEP_NODELIST": "gpu[2-1]"}, {}, ("SLURM_STEP_NODELIST", "2-1"), "--head-address"),
    (SLURM | {"SLURM_NODEID": ""}, {}, ("SLURM_NODEID", "SLURM_STEP_NUM_NODES='3'"), "--rank"),
    (SLURM | {"SLURM_NODEID": "three"}, {}, ("SLURM_NODEID='three'",), "--rank"),
    (SLURM | {"SLURM_NODEID": "3"}, {}, ("SLURM_NODEID='3'", "SLURM_STEP_NUM_NODES='3'"), ""),
    (SLURM | {"SLURM_NODEID": "-1"}, {}, ("SLURM_NODEID='-1'",), "--rank"),
    (SLURM | {"SLURM_RESTART_COUNT": "x"}, {}, ("SLURM_RESTART_COUNT='x'",), "--attempt"),
    (OMPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "1"}, {}, ("OMPI_COMM_WORLD_LOCAL_RANK=1",), "ppr:1:node"),
    (OMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, {}, ("OMPI_COMM_WORLD_LOCAL_SIZE='8'",), "ppr:1:node"),
    (OMPI_5 | {"PMIX_NAMESPACE": ""}, {}, ("names this run",), "RAY_BOOTSTRAP_RUN_ID"),
    (TORCHRUN | {"LOCAL_RANK": "3"}, {}, ("LOCAL_RANK=3",), "--nproc-per-node=1"),
    (LWS | {"LWS_GROUP_SIZE": ""}, {}, ("LWS_WORKER_INDEX='1'", "LWS_GROUP_SIZE"), "--nodes"),
    (LWS | {"LWS_GROUP_SIZE": ""}, {"min_nodes": 2}, ("LWS_WORKER_INDEX='1'", "LWS_GROUP_SIZE"), "--nodes"),
    (LWS | {"LWS_WORKER_INDEX": ""}, {}, ("LWS_WORKER_INDEX", "LWS_GROUP_SIZE='4'"), "--rank"),
    (LWS | {"LWS_GROUP_SIZE": "0"}, {}, ("LWS_GROUP_SIZE='0'",), "--nodes"),
    (LWS, {"min_nodes": 5}, ("--min-nodes=5", "LWS_GROUP_SIZE='4'"), "--min-nodes=4"),
    (TRAINER | {"PET_NNODES": "1:4"}, {}, ("PET_NNODES='1:4'",), "--nodes"),
    (TRAINER | {"PET_MASTER_ADDR": "a b"}, {}, ("PET_MASTER_ADDR='a b'",), "--head-address"),
    ({"JOB_COMPLETION_INDEX": "0"}, {}, ("JOB_COMPLETION_INDEX='0'", "--nodes"), 'RAY_BOOTSTRAP_NODES\n    value: "2"'),
    (JOBSET | {"JOBSET_JOB_GLOBAL_INDEX": "1"}, {"nodes": 4}, ("JOBSET_GLOBAL_REPLICAS=None",), "--rank"),
    (JOBSET | {"JOBSET_PODS_PER_JOB": "1,2"}, {}, ("JOBSET_JOB_GLOBAL_INDEX=None",), "job-global-index"),
    (
        jobs_of(1, ""),
        {"nodes": 6},
        ("JOBSET_PODS_PER_JOB=None", "each of the 3 Jobs"),
        'JOBSET_PODS_PER_JOB\n    value: "1,8"',
    ),
    (jobs_of(1, "1,8"), {}, ("JOBSET_PODS_PER_JOB='1,8' with JOBSET_GLOBAL_REPLICAS=3",), "the same text"),
    (jobs_of(1, "1,8,x"), {}, ("JOBSET_PODS_PER_JOB='1,8,x'",), "the same text"),
    (jobs_of(1, "8,1,8"), {}, ("JOBSET_JOB_GLOBAL_INDEX=1 and JOB_COMPLETION_INDEX='1'",), "in their order"),
    (jobs_of(1, "1,8,8"), {"nodes": 4}, ("--nodes=4", "3 Jobs makes 17"), "--nodes=17"),
    ({"VC_TASK_INDEX": "1"}, {}, ("VC_TASK_INDEX='1', but no VC_<TASK>_HOSTS",), "plugins: {env: [], svc: ["),
    (VOLCANO | {"VC_NODE_NUM": "4"}, {}, ("has 3 names, and VC_NODE_NUM='4'",), "--rank=N"),
    (VOLCANO | {"VC_TASK_INDEX": "3"}, {}, ("VC_TASK_INDEX='3'", "VC_NODE_HOSTS='ray-node-0.ray,"), "--rank=N"),
    (VOLCANO | {"VC_HEAD_HOSTS": "ray-head-0.ray"}, {}, ("host name 'job-0'", "VC_HEAD_HOSTS='ray-head-0.ray'"), ""),
    # `hostname` in the template: one name, whatever `replicas` says
    (
        VOLCANO | {"VC_TASK_INDEX": "0", "VC_NODE_HOSTS": "ray.ray", "VC_NODE_NUM": "1"},
        {},
        ("VC_NODE_HOSTS='ray.ray' does not name a pod of this task",),
        "take `hostname` out",
    ),
    (MODELARTS | {"MA_NUM_HOSTS": "3"}, {}, ("MA_NUM_HOSTS='3', and VC_WORKER_HOSTS has 2 names",), "--nodes=N"),
    (MODELARTS | {"MA_NUM_HOSTS": "1"}, {}, ("MA_NUM_HOSTS='1', and VC_WORKER_HOSTS has 2 names",), "--nodes=N"),
    # Volcano's plugin svc without env: no index
    (VOLCANO | {"VC_TASK_INDEX": "", "VK_TASK_INDEX": ""}, {}, ("VC_NODE_HOSTS", "several nodes"), "--hostfile"),
    (PYTORCHJOB | {"WORLD_SIZE": ""}, {}, ("RANK='1'", "WORLD_SIZE"), "--nodes"),
    (SLURM, {"role": "head"}, ("--role='head'", "SLURM_NODEID='1'"), "--rank"),
    (SLURM | {"SLURM_NODEID": "0"}, {"role": "worker"}, ("--role='worker'", "SLURM_NODEID='0'"), "--launcher=explicit"),
    ({}, {"rank": 1}, ("--rank='1'", "--nodes"), "--nodes=N"),
    ({}, {"nodes": 2}, ("--nodes='2'", "--rank"), "--role=head"),
    ({}, {"min_nodes": 2}, ("no rank",), "--role=head"),
    ({}, {"role": "head", "shared_dir": "/s", "run_id": "r"}, ("no size",), "--nodes=N"),
    ({}, {"rank": 0, "nodes": 2, "shared_dir": "/s"}, ("shared folder without a run id",), "--run-id"),
    (
        {"PMI_SIZE": "4", "PMI_RANK": "1"},
        {},
        ("PMI_RANK=1: there are", "(also set: PMI_SIZE=4)"),
        "--rank",
    ),
    ({"DSTACK_RUN_ID": "r", "DSTACK_NODES_NUM": "2"}, {}, ("DSTACK_NODE_RANK", "DSTACK_NODES_NUM='2'"), "--rank"),
    ({"DSTACK_NODES_NUM": "2"}, {}, ("DSTACK_NODES_NUM=2", "several nodes"), "--hostfile"),
    ({"BEAKER_REPLICA_RANK": "1"}, {}, ("BEAKER_REPLICA_COUNT", "BEAKER_REPLICA_RANK='1'"), "--nodes"),
    ({"BEAKER_REPLICA_RANK": "1", "BEAKER_REPLICA_COUNT": "2"}, {}, ("names this run",), "--run-id"),
    ({"LEPTON_JOB_TOTAL_WORKERS": "2"}, {}, ("LEPTON_JOB_WORKER_INDEX",), "--rank"),
    (
        {"LEPTON_JOB_WORKER_INDEX": "-1", "LEPTON_JOB_TOTAL_WORKERS": "2"},
        {},
        ("LEPTON_JOB_WORKER_INDEX='-1'",),
        "--rank",
    ),
    ({"MLP_ROLE_INDEX": "0", "MLP_WORKER_NUM": "2", "MLP_ROLE": "SERVER"}, {}, ("MLP_ROLE='SERVER'",), "WORKER"),
    ({"MLP_WORKER_NUM": "2"}, {}, ("MLP_WORKER_NUM='2'",), "--rank"),
    ({"TRAINING_JOB_ARN": "arn:1"}, {}, ("/opt/ml/input/config/resourceconfig.json",), "--rank=N and --nodes=N"),
    ({"DET_TRIAL_ID": "7"}, {}, ("/run/determined/info/rendezvous.json",), "--rank=N and --nodes=N"),
    (
        {"TF_CONFIG": '{"cluster": {"worker": ["a:2222", "b:2222"]}}'},
        {},
        (
            "TF_CONFIG=",
            "lists 2 hosts",
        ),
        "--rank",
    ),
    ({"RANK": "1", "MASTER_ADDR": "h"}, {}, ("RANK=1: there are several nodes",), "--nodes"),
    # Nodes that each would be alone, although something numbers or counts them.
    (
        OMPI | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "SLURM_NODEID": "1"},
        {},
        ("SLURM_NODEID=1",),
        "--launcher=local",
    ),
    (
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "VC_TASK_INDEX": "1"},
        {},
        ("WORLD_SIZE=1, but VC_TASK_INDEX=1",),
        "--launcher=local",
    ),
    ({"NOMAD_ALLOC_INDEX": "1"}, {}, ("NOMAD_ALLOC_INDEX=1",), "--launcher=local"),
    ({"HOROVOD_SIZE": "2"}, {}, ("HOROVOD_SIZE=2",), "--launcher=local"),
    ({"MEGASCALE_NUM_SLICES": "2"}, {}, ("MEGASCALE_NUM_SLICES=2",), "--launcher=local"),
    ({"TRAINING_JOB_ARN": "arn"}, {}, ("resourceconfig.json: not there",), "--rank"),
    ({"LOCAL_RANK": "0", "WORLD_SIZE": "8"}, {}, ("WORLD_SIZE=8",), "--launcher=local"),
    (PYTORCHJOB | {"PET_NNODES": "1:3", "PET_NODE_RANK": "1"}, {}, ("PET_NNODES='1:3'",), "--nodes"),
    ({}, {"launcher": "sagemaker"}, ("needs the file /opt/ml", "or TRAINING_JOB_ARN set"), "--launcher=auto"),
    (AWS | {"AWS_BATCH_JOB_MAIN_NODE_INDEX": ""}, {}, ("MAIN_NODE_INDEX=unset", "NODE_INDEX=0"), "--rank"),
    (AWS | {"AWS_BATCH_JOB_NODE_INDEX": "3"}, {}, ("NODE_INDEX=3", "NUM_NODES=3"), "--rank"),
    (AWS | {"AWS_BATCH_JOB_NUM_NODES": ""}, {}, ("NUM_NODES=unset",), "--nodes"),
    (
        AZURE | {"OMPI_COMM_WORLD_LOCAL_RANK": "2"},
        {},
        ("OMPI_COMM_WORLD_LOCAL_RANK=2",),
        "process_count_per_instance: 1",
    ),
    ({"CLUSTER_SPEC": "[]"}, {}, ("CLUSTER_SPEC: '[]': expected a JSON object",), "--rank"),
    ({"CLUSTER_SPEC": '{"cluster": {}}'}, {}, ("KeyError: 'task'",), "--rank"),
    (
        {"CLUSTER_SPEC": '{"cluster": {"workerpool0": ["a:1"]}, "task": {"type": "workerpool2", "index": 0}}'},
        {},
        ("workerpool2 0 is neither in workerpool0 nor in workerpool1",),
        "--rank",
    ),
    (HYDRA | {"MPI_LOCALRANKID": "1"}, {}, ("MPI_LOCALRANKID=1",), "-ppn 1"),
    (HYDRA | {"MPI_LOCALNRANKS": "8"}, {}, ("MPI_LOCALNRANKS='8'",), "-ppn 1"),
    (HYDRA | {"PMI_SIZE": ""}, {}, ("PMI_SIZE", "PMI_RANK='1'"), "--nodes"),
    (HYDRA, {}, ("names this run",), "RAY_BOOTSTRAP_RUN_ID"),
    ({"MV2_COMM_WORLD_SIZE": "2"}, {}, ("MV2_COMM_WORLD_RANK",), "--rank"),
    (FLUX | {"FLUX_TASK_LOCAL_ID": "1"}, {}, ("FLUX_TASK_LOCAL_ID=1",), "flux run"),
    (FLUX | {"FLUX_JOB_SIZE": "4"}, {}, ("FLUX_JOB_SIZE=4 tasks on FLUX_JOB_NNODES=2 nodes",), "flux run"),
    (FLUX | {"FLUX_TASK_RANK": ""}, {}, ("FLUX_TASK_RANK", "FLUX_JOB_NNODES='2'"), "--rank"),
    ({"PALS_NODEID": "1", "PALS_APID": "a"}, {}, ("PMI_SIZE", "PALS_NODEID='1'"), "--nodes"),
    (
        {"PALS_NODEID": "1", "PALS_LOCAL_RANKID": "3", "PALS_APID": "a", "PMI_SIZE": "2"},
        {},
        ("PALS_LOCAL_RANKID=3",),
        "mpiexec --ppn 1",
    ),
    ({"JSM_NAMESPACE_RANK": "1", "LSB_JOBID": "7"}, {}, ("JSM_NAMESPACE_SIZE",), "--nodes"),
    ({"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "a 8 job-0 8"}, {}, ("LSF_PM_TASKID", "2 hosts"), "blaunch -z"),
    (
        {"LSB_JOBID": "7", "LSB_MCPU_HOSTS": "a 8 b 8", "LSF_PM_TASKID": "2"},
        {},
        ("none is this node (job-0)",),
        "--rank",
    ),
    ({"LSB_JOBID": "7"}, {}, ("LSB_MCPU_HOSTS is not set",), "--hostfile"),
    (
        {"PBS_JOBID": "1.s", "PBS_NODENUM": "1"},
        {},
        ("pbs/aux/1.s: no such file on this node",),
        "$PBS_NODEFILE",
    ),
    (GRIDENGINE | {"PE_HOSTFILE": "/none"}, {}, ("PE_HOSTFILE=/none: no such file on this node",), "cp $PE_HOSTFILE"),
    (GRIDENGINE, {}, ("PE_HOSTFILE is not set",), "qrsh -inherit -V"),
    ({"OAR_JOB_ID": "7"}, {}, ("OAR_NODEFILE is not set",), "--hostfile"),
    ({"NODE_COUNT": "2"}, {}, ("NODE_COUNT=2",), "--rank"),
    ({"NODE_RANK": "1"}, {}, ("NODE_COUNT, NUM_NODES set",), "--nodes"),
    ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "t-0,t-1"}, {}, ("lists 2 hosts", "TPU_WORKER_ID=0"), "--rank"),
    ({}, {"launcher": "slurms"}, ("'slurms'",), "leaderworkerset"),
    ({}, {"launcher": "slurm"}, ("SLURM_JOB_ID",), "--launcher=auto"),
    (PYTORCHJOB | {"LOCAL_RANK": "0"}, {"launcher": "pytorchjob"}, ("none of", "LOCAL_RANK"), "--launcher=auto"),
    ({}, {"launcher": "hostfile"}, ("needs the list",), "--hostfile=FILE"),
    ({}, {"launcher": "address"}, ("head's address",), "--head-address"),
    ({}, {"launcher": "local", "nodes": 2}, ("one node",), "--launcher=explicit"),
    ({}, {"head_address": "127.0.0.1:6379", "nodes": 2}, ("127.0.0.1", "2 nodes"), "--head-address"),
]


@pytest.mark.parametrize(
    ("env", "options", "quoted", "hint"), ERRORS, ids=[f"{i}-{e[2][0]}" for i, e in enumerate(ERRORS)]
)
def test_nothing_decisive_is_guessed(
    env: dict[str, str], options: dict[str, Any], quoted: tuple[str, ...], hint: str
) -> None:
    with pytest.raises(IdentityError) as caught:
        who(env, asked(**options), hostname="job-0")
    assert caught.value.status == 65
    for text in quoted:
        assert text in caught.value.message
    assert hint in caught.value.hint


def test_options_override_single_values_of_a_launcher() -> None:
    settings = asked(nodes=7, run_id="mine", attempt=5, head_address="h:6380")
    identity, _ = who(SLURM, settings)
    assert (identity.launcher, identity.rank, identity.size) == ("slurm", 1, 7)
    assert (identity.run_id, identity.attempt, identity.head_hints) == ("mine", 5, ("h:6380",))
    assert identity.rendezvous == "static"
    assert identity.sources == {
        "launcher": "SLURM_JOB_ID",
        "rank": "SLURM_NODEID",
        "size": "--nodes",
        "role": "rank 1",
        "run_id": "--run-id",
        "attempt": "--attempt",
        "head": "--head-address",
        "rendezvous": "--head-address",
        "isolation_timeout": "launcher slurm",
    }


@pytest.mark.parametrize(
    ("options", "rendezvous"),
    [
        ({}, "slurm"),
        ({"shared_dir": "/s"}, "file"),
        ({"shared_dir": "/s", "rendezvous": "slurm"}, "slurm"),
        ({"head_address": "h"}, "static"),
        ({"head_address": "h", "rendezvous": "dns"}, "dns"),
    ],
)
def test_an_option_chooses_the_rendezvous_over_the_launcher(options: dict[str, Any], rendezvous: str) -> None:
    assert who(SLURM, asked(**options))[0].rendezvous == rendezvous


def test_rank_and_size_by_option_make_no_use_of_a_launcher() -> None:
    identity, notes = who(BATCH, asked(rank=0, nodes=2))
    assert (identity.launcher, identity.role, identity.size) == ("explicit", Role.HEAD, 2)
    assert notes[0] == "launcher explicit; also matches slurm; --launcher=NAME overrides"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"role": "head", "nodes": 2}, (Role.HEAD, 0, 2)),
        ({"role": "head", "min_nodes": 2}, (Role.HEAD, 0, None)),
        ({"role": "worker"}, (Role.WORKER, None, None)),
        ({"role": "worker", "nodes": 2}, (Role.WORKER, None, 2)),
        ({"rank": 1, "min_nodes": 1}, (Role.WORKER, 1, None)),
    ],
)
def test_a_role_without_a_launcher_goes_by_the_options(options: dict[str, Any], expected: tuple[Any, ...]) -> None:
    identity, _ = who({}, asked(**options))
    assert (identity.launcher, (identity.role, identity.rank, identity.size)) == ("explicit", expected)


def test_explicit_nodes_agree_on_the_run_without_a_run_id() -> None:
    head, _ = who({}, asked(role="head", nodes=2))
    worker, notes = who({}, asked(role="worker", head_address="10.0.0.1"))
    assert head.run_id == worker.run_id
    assert any("--run-id" in note for note in notes)


HOSTS = {"head.example": ["10.0.0.1", "fd00::1"], "here": ["127.0.1.1"]}


@pytest.mark.parametrize(
    ("head", "own", "role"),
    [
        ("10.0.0.1:6379", {"10.0.0.1", "127.0.0.1"}, Role.HEAD),
        ("head.example", {"10.0.0.1"}, Role.HEAD),
        ("head.example:6379", {"fd00:0::1"}, Role.HEAD),
        ("here", {"10.0.0.7"}, Role.HEAD),
        ("node", {"10.0.0.7"}, Role.HEAD),
        ("node.cluster", {"10.0.0.7"}, Role.HEAD),
        ("head.example", {"10.0.0.2", "fe80::1%eth0"}, Role.WORKER),
        ("10.0.0.1", {"10.0.0.2"}, Role.WORKER),
        ("unknown.example", {"10.0.0.2"}, Role.WORKER),
    ],
)
def test_the_node_that_has_the_heads_address_is_the_head(head: str, own: set[str], role: Role) -> None:
    names = {**HOSTS, "10.0.0.1": ["10.0.0.1"]}
    identity, _ = who({}, asked(head_address=head, nodes=2), own=own, names=names)
    assert (identity.launcher, identity.role, identity.head_hints) == ("address", role, (head,))
    assert identity.rank == (0 if role is Role.HEAD else None)
    assert f"--head-address={head}" in identity.sources["rank" if role is Role.HEAD else "role"]


def test_addresses_are_asked_for_only_where_they_decide() -> None:
    def never(*_: object) -> list[str]:
        raise AssertionError("asked")

    host = Host(env=SLURM, hostname="node")
    identify(Settings(head_address="10.0.0.1"), host, own_addresses=never, resolve=never)
    identify(Settings(head_address="h", role="worker"), Host({}, "node"), own_addresses=never, resolve=never)


def test_nothing_at_all_is_one_local_node_with_a_fresh_run_id() -> None:
    (first, notes), (second, _) = who({}), who({})
    assert (first.launcher, first.role, first.rank, first.size) == ("local", Role.HEAD, 0, 1)
    assert first.run_id.startswith("local-")
    assert len(first.run_id) == len("local-") + 8
    assert first.run_id != second.run_id
    assert notes == []


def test_a_pod_that_nobody_numbers_is_local_and_says_so() -> None:
    identity, notes = who({"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert identity.launcher == "local"
    assert "JOB_COMPLETION_INDEX" in notes[0]


def test_grid_engines_script_is_a_node_if_it_says_so_and_tasks_of_an_array_are_runs_of_their_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "hosts").write_text("n1 2 all.q@n1 UNDEFINED\nn2 2 all.q@n2 UNDEFINED\n")
    task = GRIDENGINE | {"PE_HOSTFILE": "/hosts", "SGE_TASK_ID": "3", "RESTARTED": "1"}
    script = task | {"JOB_SCRIPT": "/spool/n1/job_scripts/7", "NHOSTS": "2"}
    with pytest.raises(IdentityError, match="first of 2 hosts"):
        who(script, hostname="n1", root=tmp_path)
    head, _ = who(script, asked(launcher="gridengine"), hostname="n1", root=tmp_path)
    worker, _ = who(task, hostname="n2", root=tmp_path)
    for rank, identity in enumerate((head, worker)):
        found = (identity.rank, identity.size, identity.head_hints, identity.run_id, identity.attempt)
        assert found == (rank, 2, ("n1",), "gridengine-7.3", 1)
    (tmp_path / "hosts").write_text("n1 2 all.q@n1 UNDEFINED\n")
    alone, _ = who(script | {"SGE_TASK_ID": "undefined"}, hostname="n1", root=tmp_path)
    assert (alone.rank, alone.size, alone.run_id) == (0, 1, "gridengine-7.undefined")


ALONE = [
    {"WORLD_SIZE": "1", "MASTER_ADDR": "localhost"},
    {"GKE_NODE_COUNT": "3", "ES_NUM_NODES": "3", "JOB_ID": "8"},
    {"NHOSTS": "1", "NSLOTS": "1", "JOB_ID": "8", "SGE_TASK_ID": "undefined"},
    {"AWS_BATCH_JOB_ID": "u", "AWS_BATCH_JOB_ARRAY_INDEX": "5", "AWS_BATCH_JOB_ARRAY_SIZE": "9"},
    {"SM_NUM_GPUS": "1"},
    {"TF_CONFIG": '{"cluster": {"worker": ["a:2222"]}}', "FOO_NODE_COUNT": "9" * 5000},
]


@pytest.mark.parametrize("env", ALONE, ids=lambda env: next(iter(env)))
def test_a_single_machine_needs_no_launcher_and_no_note(env: dict[str, str]) -> None:
    identity, notes = who(env)
    assert (identity.launcher, identity.size, notes) == ("local", 1, [])


@pytest.mark.parametrize(
    ("launcher", "env"),
    [
        ("hydra", HYDRA | {"PMI_RANK": "0", "PMI_SIZE": "1"}),
        ("openmpi", {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}),
        ("volcengine", {"MLP_ROLE_INDEX": "0", "MLP_WORKER_NUM": "1"}),
        ("torchrun", {"NODE_RANK": "0", "NUM_NODES": "1"}),
        ("azureml", {"AZ_BATCH_MASTER_NODE": "10.0.0.4:6000", "AZUREML_NODE_COUNT": "1"}),
        ("lsf", {"LSB_JOBID": "9", "LSB_MCPU_HOSTS": "node 8"}),
        ("torch-env", {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}),
    ],
)
def test_a_run_of_one_node_needs_no_name_no_lock_and_no_note(launcher: str, env: dict[str, str]) -> None:
    identity, notes = who(env)
    assert (identity.launcher, identity.rank, identity.size, identity.one_process) == (launcher, 0, 1, "")
    assert identity.run_id
    assert notes == []


def test_a_processing_job_of_sagemaker_has_its_list_in_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "opt/ml/config/resourceconfig.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}')
    identity, _ = who({}, asked(run_id="r"), root=tmp_path)
    assert (identity.launcher, identity.rank, identity.size, identity.hosts) == (
        "sagemaker",
        1,
        2,
        ("algo-1", "algo-2"),
    )
    with pytest.raises(IdentityError, match="nothing names this run"):
        who({}, root=tmp_path)


def test_launcher_local_runs_alone_inside_a_batch_script() -> None:
    assert who(BATCH, asked(launcher="local"))[0].size == 1


def test_a_worker_sent_to_its_own_loopback_is_noted() -> None:
    _, notes = who(TORCHRUN | {"MASTER_ADDR": "127.0.0.1"})
    assert any("MASTER_ADDR=127.0.0.1" in note for note in notes)


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        (SKY | {"SKYPILOT_TASK_ID": "s" * 257}, "run id 's{100}\\.\\.\\.' \\(SKYPILOT_TASK_ID\\): .* got 257"),
        (SKY | {"SKYPILOT_TASK_ID": "s\udcff"}, "'s\\\\udcff' \\(SKYPILOT_TASK_ID\\): expected valid UTF-8"),
        (LWS | {"LWS_LEADER_ADDRESS": "l" * 60 + ".x" * 120}, "LWS_LEADER_ADDRESS.* got 304"),
        (TORCHRUN | {"MASTER_ADDR": "bad_host..x"}, "MASTER_ADDR='bad_host..x': .* cannot be a host name"),
        (SLURM | {"SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "g" * 64 + "[1-3]"}, "cannot be a host name"),
    ],
)
def test_what_cannot_go_over_the_wire_or_to_a_name_server_is_told_at_once(env: dict[str, str], fault: str) -> None:
    with pytest.raises(IdentityError, match=fault):
        who(env)


VARIABLES = sorted({v for row in LAUNCHERS for v in (*row.any_of, *row.rank, *row.size, *row.head, *row.local_rank)})


@given(st.dictionaries(st.sampled_from(VARIABLES), st.sampled_from(["", "0", "1", "2", "-1", "x", "a:1", "gpu[1-2]"])))
def test_any_mixture_of_variables_is_an_identity_that_holds_together_or_an_error(env: dict[str, str]) -> None:
    try:
        identity, _ = who(env, hostname="job-0")
    except IdentityError:
        return
    assert identity.rank is not None
    assert identity.size is not None
    assert 0 <= identity.rank < identity.size
    assert (identity.role is Role.HEAD) == (identity.rank == 0)
    assert identity.run_id
