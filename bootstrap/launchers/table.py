"""The launchers' table, in order of precedence: our words on the left, their variables on the right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bootstrap.host import Host
from bootstrap.launchers import derived, events
from bootstrap.launchers.derived import Context, Facts
from bootstrap.rendezvous import slurm
from bootstrap.settings import Settings

Names = tuple[str, ...]


@dataclass(frozen=True)
class Launcher:
    """One row. Of several variables for one value the first that is set counts."""

    name: str
    any_of: Names = ()
    """The row matches if any of these is set ..."""
    all_of: Names = ()
    """... and all of these ..."""
    none_of: Names = ()
    """... and none of these."""
    when: Callable[[Settings], bool] | None = None
    """Instead of the three, for a row that depends on options."""

    rank: Names = ()
    size: Names = ()
    head: Names = ()
    attempt: Names = ()
    run_id: Names = ()
    """Templates for an id that no other run has."""
    run_name: Names = ()
    """Templates for an id that the next run of that name repeats; second best. A row needs one of these two, or a
    ``derive`` that gives one."""
    local_rank: Names = ()
    """Above 0 this is a second process on the node, which must not start a second Ray."""
    rendezvous: str = "static"
    requeues: bool = False
    """Whether it starts a run, or its pods on a lost machine, anew by itself while a head that is cut off still works.

    Kubernetes' controllers replace such pods (https://kubernetes.io/docs/concepts/workloads/controllers/job/), Slurm
    requeues a batch job whose node failed (JobRequeue in slurm.conf(5), 1 by default). ``sky jobs`` starts a task anew,
    too, but terminates its machines first; ``sky launch``, mpirun and torchrun on several machines do not.
    """
    replaced_nodes: str = "all"
    """Default of ``--replaced-nodes``; ``all`` also where that is unknown.

    srun and mpirun start each task once (srun(1), ``--no-kill``; mpirun(1)).
    """
    derive: Callable[[Facts, Context], Facts] | None = None
    """Derives the facts that are in no variable from those that are."""

    size_hint: str = "--nodes=N, on all nodes"
    run_id_hint: str = "--run-id=TEXT, the same on all nodes of a run and on no other's"
    local_hint: str = "start one process per node"
    look: str = "look at the terminal or the log of the command on rank {ranks}"
    """What to type to see what has become of other nodes; ``{ranks}``, ``{hosts}``, ``{name}`` and variables are filled
    in (:func:`bootstrap.launchers.look.how_to_look`)."""
    name_in: tuple[str, str] | None = None
    """The variable, or "" for the pod's name, and the pattern in which the group is ``{name}``."""
    tunnel: str = ""
    """What to type elsewhere for a connection to ``{port}`` on this node's loopback address; beside the port only
    variables are filled in (:func:`bootstrap.launchers.look.how_to_reach`)."""
    why: Callable[[Host], events.Causes] | None = None
    """Finds out why nodes have not come; it may block, and raises an OSError if it cannot."""
    nodes: Names = ()
    """Variables with the nodes of the run, for ``{hosts}`` of nodes that were never seen."""

    def matches(self, settings: Settings, host: Host) -> bool:
        """Return whether this launcher's variables, or its options, are set."""
        if self.when is not None:
            return self.when(settings)
        return (
            any(map(host.get, self.any_of or self.all_of))
            and all(map(host.get, self.all_of))
            and not any(map(host.get, self.none_of))
        )


def _label(label: str) -> str:
    return (
        "set it through the downward API:\n  env:\n  - name: RAY_BOOTSTRAP_RUN_ID\n"
        f"    valueFrom: {{fieldRef: {{fieldPath: \"metadata.labels['{label}']\"}}}}"
    )


def _pods(labels: str, maker: str, these: str = "") -> str:
    """Return how to look at the pods with these labels, at their causes, and at what makes them.

    :param maker: the kind of that, and its name or labels.
    :param these: labels of the pods that are to be described.
    """
    described = ",".join(filter(None, [labels, these]))
    return (
        f"kubectl get pods -o wide -l {labels}; kubectl describe pods -l '{described}' (FailedScheduling: no room;"
        " ErrImagePull: no such image; CreateContainerConfigError: no such Secret or ConfigMap); where there is no pod:"
        f" kubectl describe {maker} (FailedCreate: a quota or an admission webhook)"
    )


_JOBSET_PODS = _pods("jobset.sigs.k8s.io/jobset-name={name}", "jobs -l jobset.sigs.k8s.io/jobset-name={name}")
_JOBS_EVENTS = partial(events.causes, pods="{job}-([0-9]{1,9})-[a-z0-9]*", makers="{job}")
_NODES_YAML = """\
Kubernetes sets no variable for it; --nodes=N, or in the manifest (the number in spec.completions):
  env:
  - name: RAY_BOOTSTRAP_NODES
    value: "2\""""

LAUNCHERS: tuple[Launcher, ...] = (
    Launcher(
        "explicit",
        when=lambda s: s.rank is not None and (s.nodes or s.min_nodes) is not None,
        run_name=("default",),
    ),
    Launcher(
        "kubeflow-trainer",
        any_of=("PET_NODE_RANK", "PET_NNODES"),
        rank=("PET_NODE_RANK",),
        size=("PET_NNODES",),
        head=("PET_MASTER_ADDR", "PET_RDZV_ENDPOINT"),
        attempt=("JOBSET_RESTART_ATTEMPT",),
        run_id=("jobset-{JOBSET_UID}",),
        run_name=("kubeflow-{PET_MASTER_ADDR}", "kubeflow-{PET_RDZV_ENDPOINT}"),
        rendezvous="dns",
        requeues=True,
        run_id_hint=_label("jobset.sigs.k8s.io/jobset-uid"),
        look=_JOBSET_PODS,
        why=_JOBS_EVENTS,
        name_in=("PET_MASTER_ADDR", r"[^.]+\.([^.]+).*"),
    ),
    # JobSet sets no variables: the manifest sets these through the downward API, from labels and annotations.
    Launcher(
        "jobset",
        any_of=("JOBSET_NAME", "JOBSET_UID", "JOBSET_RESTART_ATTEMPT", "JOBSET_COORDINATOR", "JOBSET_JOB_GLOBAL_INDEX"),
        all_of=("JOB_COMPLETION_INDEX",),
        rank=("JOB_COMPLETION_INDEX",),
        head=("JOBSET_COORDINATOR",),
        attempt=("JOBSET_RESTART_ATTEMPT",),
        run_id=("jobset-{JOBSET_UID}",),
        run_name=("jobset-{JOBSET_NAME}",),
        rendezvous="dns",
        requeues=True,
        derive=derived.jobset,
        size_hint=_NODES_YAML,
        run_id_hint=_label("jobset.sigs.k8s.io/jobset-uid"),
        look=_JOBSET_PODS,
        why=_JOBS_EVENTS,
        name_in=("JOBSET_NAME", r"(.+)"),
    ),
    Launcher(
        "leaderworkerset",
        any_of=("LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX"),
        rank=("LWS_WORKER_INDEX",),
        size=("LWS_GROUP_SIZE",),
        head=("LWS_LEADER_ADDRESS",),
        run_name=("lws-{LWS_LEADER_ADDRESS}",),
        rendezvous="dns",
        requeues=True,
        run_id_hint=_label("leaderworkerset.sigs.k8s.io/group-key"),
        look=_pods(
            "leaderworkerset.sigs.k8s.io/name={name}",
            "statefulsets -l leaderworkerset.sigs.k8s.io/name={name}",
            "leaderworkerset.sigs.k8s.io/worker-index in ({ranks})",
        ),
        why=partial(events.causes, pods="{pod}-([0-9]{1,9})", makers="{pod}"),
        name_in=("LWS_LEADER_ADDRESS", r"[^.]+\.([^.]+).*"),
    ),
    Launcher(
        "kubernetes",
        any_of=("JOB_COMPLETION_INDEX",),
        rank=("JOB_COMPLETION_INDEX",),
        rendezvous="dns",
        requeues=True,
        derive=derived.kubernetes,
        size_hint=_NODES_YAML,
        run_id_hint=_label("batch.kubernetes.io/controller-uid"),
        look=_pods(
            "batch.kubernetes.io/job-name={name}",
            "job {name}",
            "batch.kubernetes.io/job-completion-index in ({ranks})",
        ),
        why=_JOBS_EVENTS,
        name_in=("", r"(.+)-[0-9]+"),
    ),
    Launcher(
        "skypilot",
        any_of=("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
        rank=("SKYPILOT_NODE_RANK",),
        size=("SKYPILOT_NUM_NODES",),
        run_id=("{SKYPILOT_TASK_ID}",),  # unique per task, but a recovery of the task keeps it
        derive=derived.skypilot,
        look="sky status --refresh; sky logs {cluster} shows the output of rank {ranks}",
    ),
    # Before Slurm: under sbatch mpirun starts its daemons with srun, on all nodes but the first, and we inherit
    # their SLURM_NODEID, which numbers other nodes than the ranks do.
    Launcher(
        "openmpi",
        any_of=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        rank=("OMPI_COMM_WORLD_RANK",),
        size=("OMPI_COMM_WORLD_SIZE",),
        run_id=("openmpi-{PMIX_NAMESPACE}", "openmpi-{OMPI_MCA_ess_base_jobid}"),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        rendezvous="file",
        replaced_nodes="none",
        derive=derived.openmpi,
        local_hint="mpirun --map-by ppr:1:node ray-bootstrap ...",
        look="see the output of mpirun (with --tag-output each line has its rank) for rank {ranks}",
    ),
    Launcher(
        "slurm",
        any_of=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        rank=("SLURM_NODEID",),
        size=("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES"),
        attempt=("SLURM_RESTART_COUNT",),
        run_id=("slurm-{SLURM_JOB_ID}.{SLURM_STEP_ID}", "slurm-{SLURM_JOB_ID}.{SLURM_STEPID}"),
        run_name=("slurm-{SLURM_JOB_ID}",),
        local_rank=("SLURM_LOCALID",),
        rendezvous="slurm",
        requeues=True,
        replaced_nodes="none",
        derive=derived.slurm_step,
        local_hint=slurm.ONE_TASK,
        look="squeue -j {SLURM_JOB_ID} --steps; scontrol show node '{hosts}'; srun's output (--label) of task {ranks}",
        tunnel="ssh -L 8265:localhost:{port} {SLURMD_NODENAME}",
        nodes=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
    ),
    Launcher(
        "pytorchjob",
        any_of=("RANK", "WORLD_SIZE"),
        all_of=("KUBERNETES_SERVICE_HOST",),
        none_of=("GROUP_RANK", "NODE_RANK", "LOCAL_RANK"),
        rank=("RANK",),
        size=("WORLD_SIZE",),
        head=("MASTER_ADDR",),
        rendezvous="dns",
        requeues=True,
        derive=derived.pytorchjob,
        look=_pods("training.kubeflow.org/job-name={name}", "pytorchjob {name}"),
        name_in=("MASTER_ADDR", r"(.+)-master-0.*"),
    ),
    Launcher(
        "torchrun",
        any_of=("GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "NNODES"),
        rank=("GROUP_RANK", "NODE_RANK"),
        size=("GROUP_WORLD_SIZE", "NNODES", "AZUREML_NODE_COUNT"),
        head=("MASTER_ADDR",),
        attempt=("TORCHELASTIC_RESTART_COUNT",),
        run_id=("torchrun-{TORCHELASTIC_RUN_ID}-{MASTER_ADDR}-{MASTER_PORT}",),  # the id alone is often "none"
        run_name=("torchrun-{MASTER_ADDR}-{MASTER_PORT}", "torchrun-{MASTER_ADDR}", "torchrun-{TORCHELASTIC_RUN_ID}"),
        local_rank=("LOCAL_RANK",),
        local_hint="torchrun --nproc-per-node=1 ...",
        look="see the output of torchrun on the node of rank {ranks}",
    ),
    # The variables of torch.distributed's env://, set by hand; with LOCAL_RANK they would number processes.
    Launcher(
        "torch-env",
        all_of=("RANK", "WORLD_SIZE", "MASTER_ADDR"),
        none_of=("LOCAL_RANK",),
        rank=("RANK",),
        size=("WORLD_SIZE",),
        head=("MASTER_ADDR",),
        run_name=("torch-{MASTER_ADDR}-{MASTER_PORT}", "torch-{MASTER_ADDR}"),
    ),
    Launcher(
        "address",
        when=lambda s: s.head_address is not None and s.rank is None,
        derive=derived.address,
    ),
    Launcher("local", when=lambda _: True, derive=derived.local),
)
