"""Grid Engine: the tasks of ``qrsh -inherit``."""

from collections.abc import Mapping

from bootstrap.launchers import hostlist
from bootstrap.launchers.place import Place
from bootstrap.launchers.row import Context, Facts, Launcher

_QRSH = (
    "qrsh -inherit -V HOST ray-bootstrap ... for each other host, ray-bootstrap --launcher=gridengine ... in the script"
)


def gridengine(_found: Facts, context: Context) -> Facts:
    """Derive this node's place in PE_HOSTFILE.

    In Grid Engine 8.1.9 the file lies in the spool of the first host, on which the script runs. A task of
    ``qrsh -inherit`` has JOB_SCRIPT=QRSH and NHOSTS=1, but PE_HOSTFILE only if qrsh was given -V or -v.

    :raises IdentityError: if the file cannot be read on this node, or if this is the script, which runs on the first of
        several hosts alone. Where ``job_is_first_task`` (sge_pe(5)) is TRUE, qrsh may start no task there, so a script
        that starts the others is this host's node, and says so with ``--launcher=gridengine``.
    """
    hint = f"cp $PE_HOSTFILE to a folder that all nodes see, export PE_HOSTFILE=COPY, and {_QRSH}"
    facts = hostlist.place_in_file("PE_HOSTFILE", hint, context)
    script, (size, source) = context.host.get("JOB_SCRIPT"), facts["size"]
    is_task = script == "QRSH" or context.settings.launcher == "gridengine"
    if size != "1" and "rank" in facts and facts["rank"][0] == "0" and not is_task:
        raise hostlist.no_task(f"JOB_SCRIPT={script}, not QRSH", f"{size} hosts ({source})", _QRSH)
    return facts


def pe_hostfile(place: Place) -> Mapping[str, str]:
    """Return the list of hosts, each with slots, queue and processors (sge_pe(5), ``$pe_hostfile``)."""
    return {"pe_hostfile": "\n".join(f"{name} 1 all.q@{name} UNDEFINED" for name in place.names)}


ROWS: tuple[Launcher, ...] = (
    Launcher(
        "gridengine",
        any_of=("PE_HOSTFILE", "PE"),
        all_of=("JOB_ID", "SGE_TASK_ID"),
        attempt=("RESTARTED",),  # 1 after any number of restarts
        run_name=("gridengine-{JOB_ID}.{SGE_TASK_ID}",),  # .undefined outside arrays
        replaced_nodes="none",
        derive=gridengine,
        fields=pe_hostfile,
        local_hint=_QRSH,
        look="see the errors of qrsh in the job's output for rank {ranks}; qstat -j {JOB_ID}; qhost -h {hosts}",
    ),
)
