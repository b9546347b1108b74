"""Flux: the tasks of ``flux run``."""

import contextlib
import json
from itertools import islice

from bootstrap import timeouts
from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.process import command
from bootstrap.rendezvous import slurm

_FLUX_RUN = "flux run --nodes=N ray-bootstrap ..., without --ntasks: then it is one task on each of N whole nodes"


def flux(_found: Facts, context: Context) -> Facts:
    """Derive the hosts, of which the first is the head, from the job's resources, for which the local broker is asked.

    Source: https://flux-framework.readthedocs.io/projects/flux-rfc/en/latest/spec_20.html (R, version 1)

    :raises IdentityError: if there are more tasks than nodes: their ranks are not the nodes'.
    """
    tasks, nodes = context.host.get("FLUX_JOB_SIZE"), context.host.get("FLUX_JOB_NNODES")
    if tasks and nodes and tasks != nodes:
        raise IdentityError(
            f"FLUX_JOB_SIZE={tasks} tasks on FLUX_JOB_NNODES={nodes} nodes: expected one task on each node",
            hint=_FLUX_RUN,
        )
    if nodes == "1" or context.settings.head_address or context.settings.shared_dir:
        return {}  # the head is found otherwise
    ask = ["flux", "job", "info", context.host.get("FLUX_JOB_ID") or "", "R"]
    said, fault = command.output(ask, context.host.env, timeouts.FLUX_S)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        listed = ",".join(json.loads(said)["execution"]["nodelist"])
        return hostlist.by_rank(islice(slurm.hosts(listed), hostlist.MOST_HOSTS), "`flux job info`")
    return {"note": (f"`{' '.join(ask)}` names no nodes: {fault or 'no nodelist in its output'}", "flux")}


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "flux",
        any_of=("FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID"),
        all_of=("FLUX_JOB_ID",),
        built_on=("openmpi", "pals", "slurm", "lsf", "pbs"),
        rank=("FLUX_TASK_RANK",),
        size=("FLUX_JOB_NNODES",),
        # The job id alone is the time since its instance started: a batch job is an instance of its own.
        run_id=("flux-{FLUX_JOB_ID_PATH}", "flux-{FLUX_JOB_ID}"),
        local_rank=("FLUX_TASK_LOCAL_ID",),
        derive=flux,
        local_hint=_FLUX_RUN,
        look="flux jobs {FLUX_JOB_ID}; see the output of flux run (--label-io) of task {ranks}",
    ),
)
