"""Clouds and managed platforms that start the same container on each of a run's machines."""

import json
import re
from collections.abc import Mapping
from functools import partial

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.document import read_json, unexpected
from bootstrap.launchers.place import Place
from bootstrap.launchers.row import Context, Facts, Launcher

DETERMINED = "/run/determined/info/rendezvous.json"


def by_variable(_found: Facts, context: Context, variable: str) -> Facts:
    """Derive head and hosts from a variable that lists addresses by rank."""
    return hostlist.by_rank((context.host.get(variable) or "").split(), variable)


def volcengine(_found: Facts, context: Context) -> Facts:
    """Derive nothing, but refuse the roles beside the workers, which are numbered from 0, too.

    :raises IdentityError: if this is a parameter server, scheduler or the like.
    """
    role = context.host.get("MLP_ROLE") or "WORKER"
    if role.upper() != "WORKER":
        raise IdentityError(
            f"MLP_ROLE={role!r}: expected WORKER, as ranks count the workers alone",
            hint="start ray-bootstrap in the role WORKER only; or --rank=N and --nodes=N",
        )
    return {}


def vertex(_found: Facts, context: Context) -> Facts:
    """Derive rank, size, head and hosts from CLUSTER_SPEC: worker pool 0, whose one replica is the head, then pool 1.

    Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training

    :raises IdentityError: in pools 2 and 3, parameter servers and evaluators, and if it is not what is documented.
    """
    spec = read_json(context.host.get("CLUSTER_SPEC"), "CLUSTER_SPEC")
    try:
        task, index = str(spec["task"]["type"]), int(spec["task"]["index"])
        lists = {pool: spec["cluster"].get(pool, []) for pool in ("workerpool0", "workerpool1")}
        pools = {pool: [re.sub(":[0-9]+$", "", host) for host in hosts] for pool, hosts in lists.items()}
        if not all(isinstance(hosts, list) for hosts in lists.values()):
            raise TypeError("a worker pool is not a list")
        ranks = [(pool, place) for pool, hosts in pools.items() for place in range(len(hosts))]
        names = [pools[pool][place] for pool, place in ranks]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise unexpected("CLUSTER_SPEC", f"{type(error).__name__}: {error}", "cluster and task") from None
    if (task, index) not in ranks:
        raise IdentityError(
            f"CLUSTER_SPEC: {task} {index} is neither in workerpool0 nor in workerpool1",
            hint="start ray-bootstrap in these two worker pools only; or --rank=N and --nodes=N",
        )
    rank = (str(ranks.index((task, index))), f"{task} {index} in CLUSTER_SPEC")
    named = {"size": (str(len(ranks)), "CLUSTER_SPEC"), "run_name": (f"vertex-{names[0]}", "CLUSTER_SPEC")}
    return {"rank": rank, **named, **hostlist.by_rank(names, "CLUSTER_SPEC")}


def vertex_documents(place: Place) -> Mapping[str, str]:
    """Return CLUSTER_SPEC and TF_CONFIG, as the page above has them: rank 0 in pool 0, the others in pool 1."""
    hosts, pool = [f"{name}:2222" for name in place.names], min(place.rank, 1)
    index, role = max(place.rank - 1, 0), ("chief", "worker")[pool]
    pools = {name: listed for name, listed in (("workerpool0", hosts[:1]), ("workerpool1", hosts[1:])) if listed}
    task = {"type": f"workerpool{pool}", "index": index}
    spec = {"cluster": pools, "environment": "cloud", "task": task, "job": {}}
    roles = dict(zip(("chief", "worker"), pools.values(), strict=False))
    config = {"cluster": roles, "environment": "cloud", "task": {"type": role, "index": index, "cloud": "x"}}
    return {"cluster_spec": json.dumps(spec), "tf_config": json.dumps(config)}


def determined(_found: Facts, context: Context) -> Facts:
    """Derive rank, size, head and hosts from the file that Determined writes into each container.

    Source: harness/determined/_info.py (https://github.com/determined-ai/determined)

    :raises IdentityError: if the file is not what that writes.
    """
    info = read_json(context.host.read(DETERMINED), DETERMINED)
    rank, hosts = info.get("container_rank"), info.get("container_addrs")
    if not isinstance(rank, int) or not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        what = f"container_rank={rank!r}, container_addrs={hosts!r}"
        raise unexpected(DETERMINED, what, "a number and a list of addresses")
    facts = {"rank": (str(rank), DETERMINED), "size": (str(len(hosts)), DETERMINED)}
    return {**facts, **hostlist.by_rank(hosts, DETERMINED)}


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "skypilot",
        built_on=("slurm",),
        rank=("SKYPILOT_NODE_RANK",),
        size=("SKYPILOT_NUM_NODES",),
        run_id=("{SKYPILOT_TASK_ID}",),  # unique per task, but a recovery of the task keeps it
        derive=partial(by_variable, variable="SKYPILOT_NODE_IPS"),
        look="sky status --refresh; sky logs {cluster} shows the output of rank {ranks}",
    ),
    Launcher(
        "dstack",
        all_of=("DSTACK_RUN_ID",),
        rank=("DSTACK_NODE_RANK",),
        size=("DSTACK_NODES_NUM",),
        head=("DSTACK_MASTER_NODE_IP",),
        run_id=("{DSTACK_RUN_ID}",),  # DSTACK_JOB_ID differs on each node
        derive=partial(by_variable, variable="DSTACK_NODES_IPS"),
        look="dstack logs {DSTACK_RUN_NAME} --job {ranks}; dstack ps",
    ),
    Launcher(
        "beaker",
        rank=("BEAKER_REPLICA_RANK",),
        size=("BEAKER_REPLICA_COUNT",),
        head=("BEAKER_LEADER_REPLICA_HOSTNAME",),
        run_id=("beaker-{BEAKER_LEADER_REPLICA_JOB_ID}",),
        run_name=("beaker-{BEAKER_WORKLOAD_ID}", "beaker-{BEAKER_EXPERIMENT_ID}"),
        look="see the log of replica {ranks}: beaker experiment logs {BEAKER_WORKLOAD_ID}",
    ),
    Launcher(
        "lepton",
        built_on=("kubernetes", "torchrun"),  # its templates export NODE_RANK and NNODES
        rank=("LEPTON_JOB_WORKER_INDEX",),
        size=("LEPTON_JOB_TOTAL_WORKERS",),
        head=(
            "{LEPTON_JOB_SERVICE_PREFIX}-0.{LEPTON_SUBDOMAIN}",
            "{LEPTON_JOB_SERVICE_PREFIX}-0.{LEPTON_JOB_NAME}-job-svc",
            "{LEPTON_JOB_NAME}-0.{LEPTON_SUBDOMAIN}",
            "{LEPTON_JOB_NAME}-0.{LEPTON_JOB_NAME}-job-svc",
        ),
        attempt=("LEPTON_JOB_FAILURE_COUNT",),
        run_name=("lepton-{LEPTON_JOB_NAME}",),
        rendezvous="dns",
        requeues=True,
        look="see the logs of worker {ranks} in the job's page, or: lep job log -i {LEPTON_JOB_NAME}",
    ),
    Launcher(
        "volcengine",
        rank=("MLP_ROLE_INDEX",),
        size=("MLP_WORKER_NUM",),
        head=("MLP_WORKER_0_HOST",),
        run_id=("volcengine-{MLP_TASK_ID}",),
        derive=volcengine,
        look="see the log of worker {ranks} in the task's page",
    ),
    Launcher(
        "vertex",
        any_of=("CLUSTER_SPEC",),
        run_id=("vertex-{CLOUD_ML_JOB_ID}",),
        derive=vertex,
        fields=vertex_documents,
        look="gcloud ai custom-jobs stream-logs {CLOUD_ML_JOB_ID}",
    ),
    # Its MPI distribution, its PyTorch distribution, which sets NODE_RANK, or none.
    Launcher(
        "azureml",
        any_of=("AZ_BATCH_MASTER_NODE", "AZ_BATCHAI_MPI_MASTER_NODE", "AZ_BATCHAI_TASK_INDEX"),
        built_on=("openmpi", "torchrun", "torch-env", "volcano"),
        rank=("OMPI_COMM_WORLD_RANK", "NODE_RANK", "AZ_BATCHAI_TASK_INDEX"),
        size=("OMPI_COMM_WORLD_SIZE", "AZUREML_NODE_COUNT"),
        head=("AZ_BATCH_MASTER_NODE", "AZ_BATCHAI_MPI_MASTER_NODE", "AZ_BATCHAI_JOB_MASTER_NODE_IP"),
        run_name=("azureml-{AZUREML_RUN_ID}",),  # a node of low priority restarts with the same
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK"),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        local_hint="process_count_per_instance: 1 in the job's distribution",
        look="see the logs of node {ranks} in user_logs of the job's outputs",
    ),
    Launcher(
        "determined",
        any_of=("DET_TRIAL_ID",),
        files=(DETERMINED,),
        run_id=("determined-{DET_ALLOCATION_ID}",),
        attempt=("DET_TRIAL_RUN_ID",),
        built_on=("kubernetes", "slurm", "pbs"),
        requeues=True,  # max_restarts, 5 by default
        derive=determined,
        look="det task logs {DET_TASK_ID}",
    ),
)
