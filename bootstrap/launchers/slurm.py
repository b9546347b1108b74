"""Slurm: the steps that srun starts."""

import contextlib
from itertools import islice

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.rendezvous import slurm

_NO_TASKS = {"4294967290": "an interactive step", "4294967291": "the batch script", "4294967292": "the extern step"}
"""Slurm's reserved step ids (slurm.h, SLURM_INTERACTIVE_STEP and its neighbours): each runs on one node only."""


def slurm_step(found: Facts, context: Context) -> Facts:
    """Derive the head, which is the first host of the step, and the names of all its nodes.

    A batch script and an salloc shell are not srun tasks, but they have SLURM_NODEID=0 and SLURM_JOB_NUM_NODES and so
    look like rank 0. A step with more tasks than nodes is refused as a whole: if only the surplus ones were, they would
    fail the job, with their status, after its program has run to its end.

    :raises IdentityError: if this process is not a task of srun, if a node has several, or the node list is malformed.
    """
    get = context.host.get
    step = get("SLURM_STEP_ID") or get("SLURM_STEPID")
    if step in _NO_TASKS or not (step or get("SLURM_STEP_NODELIST")):
        where = f"SLURM_STEP_ID={step} is {_NO_TASKS[step]}" if step else "SLURM_STEP_ID is not set"
        raise IdentityError(
            f"SLURM_JOB_ID={get('SLURM_JOB_ID')!r}, but this process is not a task of srun: {where}",
            hint=f"{slurm.ONE_TASK}   (--launcher=local for this machine alone)",
        )
    tasks, nodes = get("SLURM_STEP_NUM_TASKS"), get("SLURM_STEP_NUM_NODES")
    if tasks and nodes and tasks != nodes:
        spread = get("SLURM_STEP_TASKS_PER_NODE") or "?"
        what = f"SLURM_STEP_NUM_TASKS={tasks} on SLURM_STEP_NUM_NODES={nodes}"
        raise IdentityError(
            f"{what} (tasks on each node: {spread}): expected one task on each node", hint=slurm.ONE_TASK
        )
    return slurm_job(found, context)


def slurm_job(_found: Facts, context: Context) -> Facts:
    """Derive the head and the names of all nodes: those of the step, or in a batch script those of the job.

    :raises IdentityError: if the node list is malformed.
    """
    nodelist, name = slurm.nodelist(context.host)
    hosts: Facts = {}
    with contextlib.suppress(ValueError):
        hosts["hosts"] = (" ".join(islice(slurm.hosts(nodelist), hostlist.MOST_HOSTS)), name)
    if not nodelist or context.settings.head_address is not None:
        return hosts
    try:
        return {"head": (slurm.first(nodelist), f"{name}={nodelist}"), **hosts}
    except ValueError as error:
        raise IdentityError(f"{name}: {error}", hint="--head-address=HOST, the first node of the step") from None


ROWS: tuple[Launcher, ...] = (
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
        derive=slurm_step,
        observe=slurm_job,
        local_hint=slurm.ONE_TASK,
        look="squeue -j {SLURM_JOB_ID} --steps; scontrol show node '{hosts}'; srun's output (--label) of task {ranks}",
        tunnel="ssh -L 8265:localhost:{port} {SLURMD_NODENAME}",
        nodes=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
    ),
)
