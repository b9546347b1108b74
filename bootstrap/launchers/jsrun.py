"""jsrun, the starter of IBM Spectrum MPI in jobs of LSF."""

from bootstrap.launchers import hostlist, lsf
from bootstrap.launchers.row import Context, Facts, Launcher


def jsrun(found: Facts, context: Context) -> Facts:
    """Derive size, head and hosts from LSF's list, of which the first is the launch node, on which no task runs.

    :raises IdentityError: if this node has another place in that list than jsrun gave it.
    """
    hosts = lsf.hosts_of_job(context.host)[1:]
    settings = context.settings
    if not hosts or settings.rank is not None or settings.shared_dir is not None or settings.head_address is not None:
        return {}
    return hostlist.same_place(found, hostlist.place(hosts, "LSB_MCPU_HOSTS", context), "LSB_MCPU_HOSTS")


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "jsrun",
        built_on=("lsf", "openmpi"),
        rank=("JSM_NAMESPACE_RANK",),
        size=("JSM_NAMESPACE_SIZE",),
        run_name=lsf.RUN_NAMES,
        local_rank=("JSM_NAMESPACE_LOCAL_RANK",),
        local_size=("JSM_NAMESPACE_LOCAL_SIZE",),
        derive=jsrun,
        local_hint="jsrun -r1 -a1 -c ALL_CPUS -g ALL_GPUS -b none ray-bootstrap ...",
        look="bjobs -l {LSB_JOBID}; see the output of jsrun (-e prepended) of task {ranks}",
    ),
)
