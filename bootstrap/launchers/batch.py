"""Smaller batch systems: Flux, Grid Engine, OAR."""

import contextlib
import json
from functools import partial

from bootstrap import timeouts
from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.process import command
from bootstrap.rendezvous import slurm

_FLUX_RUN = "flux run -N$(flux resource list -no {nnodes}) -n$(flux resource list -no {nnodes}) ray-bootstrap ..."


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
    if context.settings.head_address is not None or nodes == "1":
        return {}
    ask = ["flux", "job", "info", context.host.get("FLUX_JOB_ID") or "", "R"]
    said, _ = command.output(ask, context.host.env, timeouts.FLUX_S)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        listed = ",".join(json.loads(said)["execution"]["nodelist"])
        return hostlist.by_rank(slurm.hosts(listed), "`flux job info`")
    return {}


def by_file(_found: Facts, context: Context, variable: str) -> Facts:
    """Derive this node's place in the file that a variable names.

    :raises IdentityError: if the file cannot be read on this node.
    """
    path = context.host.get(variable)
    names = hostlist.in_file(path, context.host)
    if names is None:
        what = (
            f"{variable}={path}: no such file on this node, or it cannot be read" if path else f"{variable} is not set"
        )
        raise IdentityError(
            what,
            hint=f"cp ${variable} to a folder that all nodes see, and --hostfile=FILE",
        )
    return hostlist.place(names, f"{variable}={path}", context)


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "flux",
        any_of=("FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID"),
        all_of=("FLUX_JOB_ID",),
        built_on=("pals", "slurm", "lsf", "pbs"),
        rank=("FLUX_TASK_RANK",),
        size=("FLUX_JOB_NNODES",),
        run_id=("flux-{FLUX_JOB_ID}",),
        local_rank=("FLUX_TASK_LOCAL_ID",),
        derive=flux,
        local_hint=_FLUX_RUN,
        look="flux jobs {FLUX_JOB_ID}; see the output of flux run (--label-io) of task {ranks}",
    ),
    Launcher(
        "gridengine",
        any_of=("PE_HOSTFILE",),
        all_of=("JOB_ID",),
        run_name=("gridengine-{JOB_ID}.{SGE_TASK_ID}", "gridengine-{JOB_ID}"),
        derive=partial(by_file, variable="PE_HOSTFILE"),
        local_hint="qrsh -inherit HOST ray-bootstrap ..., once for each host",
        look="qstat -j {JOB_ID}; qhost -h {hosts}",
    ),
    Launcher(
        "oar",
        any_of=("OAR_JOB_ID", "OAR_NODEFILE"),
        run_name=("oar-{OAR_JOB_ID}",),
        derive=partial(by_file, variable="OAR_NODEFILE"),
        local_hint="oarsh HOST ray-bootstrap ..., once for each host",
        look="oarstat -fj {OAR_JOB_ID}; oarnodes {hosts}",
    ),
)
