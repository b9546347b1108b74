"""Batch systems on clusters: they number a job's nodes, or only list them."""

import contextlib
import json
from functools import partial
from itertools import islice

from bootstrap import timeouts
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.process import command
from bootstrap.rendezvous import slurm

_NO_TASKS = {"4294967290": "an interactive step", "4294967291": "the batch script", "4294967292": "the extern step"}
"""Slurm's reserved step ids (slurm.h, SLURM_INTERACTIVE_STEP and its neighbours): each runs on one node only."""


def slurm_step(_found: Facts, context: Context) -> Facts:
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


_FLUX_RUN = "flux run -N$(flux resource list -no {nnodes}) -n$(flux resource list -no {nnodes}) ray-bootstrap ..."
_PBSDSH = "pbsdsh -- $(command -v ray-bootstrap) ..."
_BLAUNCH = """blaunch -z "$(echo $LSB_MCPU_HOSTS | xargs -n2 | cut -d' ' -f1)" ray-bootstrap ..."""


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


def pbs(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from the job's list of nodes, and the rank where no variable has it.

    PBS_NODENUM is the place in the list (add_mom_to_job in start_exec.c, https://github.com/openpbs/openpbs). The list
    lies on all of the job's hosts (since OpenPBS 22.05, mom_comm.c), but pbsdsh's task on the first one lacks the
    variable. PBS_TASKNUM is 1 in the job's script, and has eight digits in a task (start_exec.c).

    :raises IdentityError: if this is the script, which runs on the first of several hosts alone.
    """
    path, names = _pbs_nodes(context.host)
    if len(names) > 1 and context.host.get("PBS_TASKNUM") == "1":
        raise IdentityError(
            f"PBS_TASKNUM=1 is the job's script, which runs on the first of {len(names)} hosts ({path}) alone",
            hint=f"{_PBSDSH}   (--launcher=local for this machine alone)",
        )
    if "rank" in found or not names:
        return hostlist.nodes(names, path)
    return hostlist.place(names, path, context)


def pals(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from the list of PBS, if mpiexec was started on all of them.

    PALS numbers the nodes of its own list, which may be a part of the job's, and has no size under PMIx
    (PALS_PMI=pmix, as on Aurora).

    :raises IdentityError: if this node has another place in the job's list.
    """
    path, names = _pbs_nodes(context.host)
    settings = context.settings
    if not names or settings.rank is not None or None not in (settings.nodes, settings.head_address):
        return hostlist.nodes(names, path)
    place = hostlist.place(names, path, context)
    if any(found.get(word, place[word])[0] != place[word][0] for word in ("rank", "size")):
        said = ", ".join(f"{found[word][1]}={found[word][0]}" for word in ("rank", "size") if word in found)
        raise IdentityError(
            f"{said}, but this node is number {place['rank'][0]} of {len(names)} in {path}: mpiexec has another list",
            hint="--hostfile=FILE as for mpiexec; or --nodes=N and --head-address=HOST",
        )
    return place


def _pbs_nodes(host: Host) -> tuple[str, list[str]]:
    """Return the path of the job's list of nodes, and the hosts in it, each once; none if it cannot be read."""
    path = host.get("PBS_NODEFILE") or f"/var/spool/pbs/aux/{host.get('PBS_JOBID')}"
    return path, hostlist.unique(hostlist.in_file(path, host) or ())


def jsrun(found: Facts, context: Context) -> Facts:
    """Derive head and hosts from LSF's list, of which the first is the launch node, on which no task runs."""
    counts = (context.host.get("LSB_MCPU_HOSTS") or "").split()
    hosts = hostlist.unique(counts[::2])[1:]
    return hostlist.by_rank(hosts, "LSB_MCPU_HOSTS") if str(len(hosts)) == found.get("size", ("", ""))[0] else {}


def lsf(_found: Facts, context: Context) -> Facts:
    """Derive this node's place in LSB_MCPU_HOSTS, ``host1 8 host2 8``: blaunch numbers tasks, but not nodes.

    LSF's other lists may have another order. A task of blaunch has LSF_PM_TASKID, the batch script has not: Open MPI's
    daemons take their numbers from it (orte/mca/ess/lsf/ess_lsf_module.c).

    :raises IdentityError: if this is the batch script, which runs on the first of several hosts alone.
    """
    hosts = hostlist.unique((context.host.get("LSB_MCPU_HOSTS") or "").split()[::2])
    if len(hosts) > 1 and context.host.get("LSF_PM_TASKID") is None and context.settings.rank is None:
        raise IdentityError(
            f"LSF_PM_TASKID is not set: this is no task of blaunch, and the job has {len(hosts)} hosts",
            hint=f"{_BLAUNCH}   (--launcher=local for this machine alone)",
        )
    return hostlist.place(hosts, "LSB_MCPU_HOSTS", context)


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
    # HPE Cray's mpiexec, started in a job of PBS.
    Launcher(
        "pals",
        any_of=("PALS_NODEID", "PALS_RANKID"),
        built_on=("hydra", "pbs"),
        rank=("PALS_NODEID",),
        size=("PMI_SIZE",),
        run_id=("pals-{PALS_APID}",),
        run_name=("pbs-{PBS_JOBID}",),
        local_rank=("PALS_LOCAL_RANKID",),
        local_size=("PALS_LOCAL_SIZE",),
        replaced_nodes="none",
        derive=pals,
        local_hint="mpiexec --ppn 1 ray-bootstrap ...",
        look="see the output of mpiexec (--line-buffer -l) for rank {ranks}",
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
        derive=slurm_step,
        local_hint=slurm.ONE_TASK,
        look="squeue -j {SLURM_JOB_ID} --steps; scontrol show node '{hosts}'; srun's output (--label) of task {ranks}",
        tunnel="ssh -L 8265:localhost:{port} {SLURMD_NODENAME}",
        nodes=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
    ),
    Launcher(
        "jsrun",
        any_of=("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
        built_on=("lsf", "openmpi"),
        rank=("JSM_NAMESPACE_RANK",),
        size=("JSM_NAMESPACE_SIZE",),
        run_name=("lsf-{LSB_JOBID}.{LSB_JOBINDEX}", "lsf-{LSB_JOBID}"),
        local_rank=("JSM_NAMESPACE_LOCAL_RANK",),
        local_size=("JSM_NAMESPACE_LOCAL_SIZE",),
        rendezvous="file",
        derive=jsrun,
        local_hint="jsrun -r1 -a1 -c ALL_CPUS -g ALL_GPUS ray-bootstrap ...",
        look="bjobs -l {LSB_JOBID}; see the output of jsrun (-e prepended) of task {ranks}",
    ),
    Launcher(
        "lsf",
        any_of=("LSB_JOBID",),
        run_name=("lsf-{LSB_JOBID}.{LSB_JOBINDEX}", "lsf-{LSB_JOBID}"),
        derive=lsf,
        local_hint=_BLAUNCH,
        look="bjobs -l {LSB_JOBID}; bhosts {hosts}",
    ),
    Launcher(
        "pbs",
        any_of=("PBS_JOBID",),
        rank=("PBS_NODENUM",),
        run_name=("pbs-{PBS_JOBID}",),
        derive=pbs,
        size_hint="--nodes=N, or --hostfile=FILE with a copy of $PBS_NODEFILE in a folder that all nodes see",
        local_hint=_PBSDSH,
        look="qstat -f {PBS_JOBID}; pbsnodes {hosts}",
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
