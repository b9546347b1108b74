"""Smaller batch systems: Grid Engine, OAR."""

from functools import partial

from bootstrap.errors import IdentityError
from bootstrap.launchers import hostlist
from bootstrap.launchers.row import Context, Facts, Launcher

_QRSH = (
    "qrsh -inherit -V HOST ray-bootstrap ... for each other host, ray-bootstrap --launcher=gridengine ... in the script"
)


def gridengine(found: Facts, context: Context) -> Facts:
    """Derive this node's place in PE_HOSTFILE, and the name of an array's task.

    In Grid Engine 8.1.9 the file lies in the spool of the first host, on which the script runs. A task of
    ``qrsh -inherit`` has JOB_SCRIPT=QRSH and NHOSTS=1, but PE_HOSTFILE only if qrsh was given -V or -v.

    :raises IdentityError: if the file cannot be read on this node, or if this is the script, which runs on the first of
        several hosts alone. Where ``job_is_first_task`` (sge_pe(5)) is TRUE, qrsh may start no task there, so a script
        that starts the others is this host's node, and says so with ``--launcher=gridengine``.
    """
    hint = f"cp $PE_HOSTFILE to a folder that all nodes see, export PE_HOSTFILE=COPY, and {_QRSH}"
    facts = by_file(found, context, "PE_HOSTFILE", hint)
    script, (size, source) = context.host.get("JOB_SCRIPT"), facts["size"]
    is_first = size != "1" and facts.get("rank", ("", ""))[0] == "0"
    if is_first and script != "QRSH" and context.settings.launcher == "auto":
        raise IdentityError(
            f"JOB_SCRIPT={script} is the job's script, which runs on the first of {size} hosts ({source}) alone",
            hint=f"{_QRSH}   (--launcher=local for this machine alone)",
        )
    task, (name, variable) = context.host.get("SGE_TASK_ID") or "", found["run_name"]
    return {**facts, "run_name": (f"{name}.{task}", f"{variable}+SGE_TASK_ID")} if task.isdecimal() else facts


def by_file(_found: Facts, context: Context, variable: str, hint: str) -> Facts:
    """Derive this node's place in the file that a variable names.

    :param hint: how to make it readable on all nodes.
    :raises IdentityError: if the file cannot be read on this node.
    """
    path = context.host.get(variable)
    names = hostlist.in_file(path, context.host)
    if names is None:
        what = (
            f"{variable}={path}: no such file on this node, or it cannot be read" if path else f"{variable} is not set"
        )
        raise IdentityError(what, hint=hint)
    return hostlist.place(names, f"{variable}={path}", context)


_OAR_FILE = "cp $OAR_NODEFILE to a folder that all nodes see, and --hostfile=FILE"

ROWS: tuple[Launcher, ...] = (
    Launcher(
        "gridengine",
        any_of=("PE_HOSTFILE", "PE"),
        all_of=("JOB_ID", "SGE_TASK_ID"),
        attempt=("RESTARTED",),  # 1 after any number of restarts
        run_name=("gridengine-{JOB_ID}",),
        replaced_nodes="none",
        derive=gridengine,
        local_hint=_QRSH,
        look="see the errors of qrsh in the job's output for rank {ranks}; qstat -j {JOB_ID}; qhost -h {hosts}",
    ),
    Launcher(
        "oar",
        any_of=("OAR_JOB_ID", "OAR_NODEFILE"),
        run_name=("oar-{OAR_JOB_ID}",),
        derive=partial(by_file, variable="OAR_NODEFILE", hint=_OAR_FILE),
        local_hint="oarsh HOST ray-bootstrap ..., once for each host",
        look="oarstat -fj {OAR_JOB_ID}; oarnodes {each_host}",
    ),
)
