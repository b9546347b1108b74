"""Smaller batch systems: Grid Engine, OAR."""

from functools import partial

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher


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
        look="oarstat -fj {OAR_JOB_ID}; oarnodes {each_host}",
    ),
)
