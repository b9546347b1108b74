"""OAR: the processes that oarsh starts."""

from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher


def oar(_found: Facts, context: Context) -> Facts:
    """Derive this node's place in OAR_NODEFILE, which each host of the job has (job_resource_manager_cgroups.pl)."""
    hint = "cp $OAR_NODEFILE to a folder that all nodes see, and --hostfile=FILE"
    return hostlist.place_in_file("OAR_NODEFILE", hint, context)


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "oar",
        any_of=("OAR_JOB_ID", "OAR_NODEFILE"),
        run_name=("oar-{OAR_JOB_ID}",),
        derive=oar,
        local_hint="oarsh HOST ray-bootstrap ..., once for each host",
        look="oarstat -fj {OAR_JOB_ID}; oarnodes {each_host}",
    ),
)
