"""LSF: blaunch, and jsrun of IBM Spectrum MPI."""

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher

_BLAUNCH = """blaunch -z "$(echo $LSB_MCPU_HOSTS | xargs -n2 | cut -d' ' -f1)" ray-bootstrap ..."""


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


def jsrun(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from LSF's list, of which the first is the launch node, on which no task runs.

    :raises IdentityError: if this node has another place in that list than jsrun gave it.
    """
    hosts = hostlist.unique((context.host.get("LSB_MCPU_HOSTS") or "").split()[::2])[1:]
    settings = context.settings
    if not hosts or settings.rank is not None or settings.shared_dir is not None or settings.head_address is not None:
        return {}
    return hostlist.same_place(found, hostlist.place(hosts, "LSB_MCPU_HOSTS", context), "LSB_MCPU_HOSTS")


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "jsrun",
        any_of=("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
        built_on=("lsf", "openmpi"),
        rank=("JSM_NAMESPACE_RANK",),
        size=("JSM_NAMESPACE_SIZE",),
        run_name=("lsf-{LSB_JOBID}.{LSB_JOBINDEX}", "lsf-{LSB_JOBID}"),
        local_rank=("JSM_NAMESPACE_LOCAL_RANK",),
        local_size=("JSM_NAMESPACE_LOCAL_SIZE",),
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
)
