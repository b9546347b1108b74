"""PBS Professional and OpenPBS, and PALS, the mpiexec of HPE Cray, in their jobs."""

from collections.abc import Mapping

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import hostlist
from bootstrap.launchers.place import Place
from bootstrap.launchers.row import Context, Facts, Launcher

_TMRSH = "for host in $(sort -u $PBS_NODEFILE); do pbs_tmrsh $host $(command -v ray-bootstrap) ... & done; wait"
"""pbsdsh starts a task for each line of the file, of which a host may have several, and its status is always 0."""
_NO_LIST = "--nodes=N, or --hostfile=FILE with a copy of $PBS_NODEFILE in a folder that all nodes see"


def pbs(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from the job's list of nodes, and the rank where no variable has it.

    PBS_NODENUM is the place in the list (add_mom_to_job in start_exec.c, https://github.com/openpbs/openpbs). The list
    lies on all of the job's hosts (since OpenPBS 22.05, mom_comm.c), but pbsdsh's task on the first one lacks the
    variable. PBS_TASKNUM is 1 in the job's script, and has eight digits in a task (start_exec.c).

    :raises IdentityError: if this is the script, which runs on the first of several hosts alone.
    """
    path, names = _nodes(context.host)
    if len(names) > 1 and context.host.get("PBS_TASKNUM") == "1" and context.settings.rank is None:
        raise hostlist.no_task("PBS_TASKNUM=1", f"{len(names)} hosts ({path})", _TMRSH)
    if not names and context.settings.nodes is None:
        raise IdentityError(f"{path}: no such file on this node, or it cannot be read", hint=_NO_LIST)
    if "rank" in found or not names:
        return hostlist.nodes(names, path)
    return hostlist.place(names, path, context)


def pals(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from the list of PBS, if mpiexec was started on all of them.

    PALS numbers the nodes of its own list, which may be a part of the job's, and has no size under PMIx
    (PALS_PMI=pmix, as on Aurora).

    :raises IdentityError: if this node has another place in the job's list.
    """
    path, names = _nodes(context.host)
    settings = context.settings
    if not names or settings.rank is not None or settings.nodes is not None:
        return hostlist.nodes(names, path)
    return hostlist.same_place(found, hostlist.place(names, path, context), path)


def task(place: Place) -> Mapping[str, str]:
    """Return the number of the task of TM on this node, with the node's own in the highest bits; the script's is 1.

    Source: momtask_create() in src/resmom/mom_comm.c (https://github.com/openpbs/openpbs)
    """
    return {"task": f"{place.rank << 32 - len(place.names).bit_length() | (1 if place.rank else 2):08X}"}


def _nodes(host: Host) -> tuple[str, list[str]]:
    """Return the path of the job's list of nodes, and the hosts in it, each once; none if it cannot be read."""
    path = host.get("PBS_NODEFILE") or f"/var/spool/pbs/aux/{host.get('PBS_JOBID')}"
    return path, hostlist.unique(hostlist.in_file(path, host) or ())


ROWS: tuple[Launcher, ...] = (
    # HPE Cray's mpiexec, started in a job of PBS.
    Launcher(
        "pals",
        any_of=("PALS_NODEID", "PALS_RANKID"),
        none_of=("SLURM_STEP_ID",),  # srun --mpi=cray_shasta sets them, too (mpi_cray_shasta.c)
        built_on=("hydra", "pbs"),
        rank=("PALS_NODEID",),
        size=("PMI_SIZE",),
        run_id=("pals-{PALS_APID}",),
        run_name=("pbs-{PBS_JOBID}",),
        local_rank=("PALS_LOCAL_RANKID",),
        local_size=("PALS_LOCAL_SIZE",),
        requeues=True,
        replaced_nodes="none",
        derive=pals,
        local_hint="mpiexec --ppn 1 --cpu-bind none -n NODES ray-bootstrap ...",
        look="see the output of mpiexec (--line-buffer -l) for rank {ranks}",
    ),
    Launcher(
        "pbs",
        any_of=("PBS_JOBID",),
        rank=("PBS_NODENUM",),
        run_name=("pbs-{PBS_JOBID}",),
        requeues=True,  # node_fail_requeue, 310 s by default (PBS Administrator's Guide)
        derive=pbs,
        fields=task,
        local_hint=_TMRSH,
        look="qstat -f {PBS_JOBID}; pbsnodes {each_host}",
    ),
)
