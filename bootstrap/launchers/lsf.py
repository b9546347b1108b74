"""LSF: the tasks of blaunch."""

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher

_BLAUNCH = """blaunch -z "$(echo $LSB_MCPU_HOSTS | xargs -n2 | cut -d' ' -f1 | xargs)" ray-bootstrap ..."""


def lsf(_found: Facts, context: Context) -> Facts:
    """Derive this node's place in LSB_MCPU_HOSTS, ``host1 8 host2 8``: blaunch numbers tasks, but not nodes.

    LSF's other lists may have another order. A task of blaunch has LSF_PM_TASKID, the batch script has not: Open MPI's
    daemons take their numbers from it (orte/mca/ess/lsf/ess_lsf_module.c).

    :raises IdentityError: if this is the batch script, which runs on the first of several hosts alone.
    """
    hosts = hosts_of_job(context.host)
    if len(hosts) > 1 and context.host.get("LSF_PM_TASKID") is None and context.settings.rank is None:
        raise hostlist.no_task("LSF_PM_TASKID is not set", f"{len(hosts)} hosts (LSB_MCPU_HOSTS)", _BLAUNCH)
    if not hosts:
        raise IdentityError("LSB_MCPU_HOSTS is not set", hint="--hostfile=FILE with the job's hosts, one a line")
    return hostlist.place(hosts, "LSB_MCPU_HOSTS", context)


def hosts_of_job(host: Host) -> list[str]:
    """Return the hosts of the job, each once, from ``host1 8 host2 8``."""
    return hostlist.unique((host.get("LSB_MCPU_HOSTS") or "").split()[::2])


RUN_NAMES = ("lsf-{LSB_JOBID}.{LSB_JOBINDEX}", "lsf-{LSB_JOBID}")

ROWS: tuple[Launcher, ...] = (
    Launcher(
        "lsf",
        any_of=("LSB_JOBID",),
        run_name=RUN_NAMES,
        derive=lsf,
        local_hint=_BLAUNCH,
        look="bjobs -l {LSB_JOBID}; bhosts {each_host}",
    ),
)
