"""A Ray that already runs: ``--attach`` or RAY_ADDRESS names it, and the run attaches to it instead of starting one."""

import secrets
from collections.abc import Iterable

from bootstrap import parsers, settings
from bootstrap.errors import IdentityError, UsageError
from bootstrap.files.secret import demanded_by
from bootstrap.host import Host
from bootstrap.launchers.row import Launcher, number
from bootstrap.model import NodeIdentity, Role
from bootstrap.settings import Settings

_ADDRESS, _COMMAND, _DASHBOARD = "RAY_ADDRESS", "KUBERAY_GEN_RAY_START_CMD", "RAY_DASHBOARD_ADDRESS"
# Ray sets RAY_ADDRESS for the entrypoint of a job (job_supervisor.py), and KubeRay in Ray's containers unless the user
# does (setContainerEnvVars in its common/pod.go). The others are signs of KubeRay alone: of Ray's containers, and of
# the pod that submits a RayJob.
ROW = Launcher(
    "ray",
    any_of=(_ADDRESS, _COMMAND, _DASHBOARD),
    look="kubectl get pods -o wide -l ray.io/cluster={RAY_CLUSTER_NAME}",
)
_STARTING = {"launcher", "role", "rank", "hostfile", "head_address", "rendezvous", "shared_dir"}
"""Options that say which node of a Ray of its own this is."""
_USED = {"attach", "nodes", "min_nodes", "run_id", "attempt", "ready_port", "keep_logs"}
_USED |= {"expect_gpus", "expect_resources", "head_cpus", "head_gpus", "head_resources"}
_USED |= {"head_timeout", "quorum_timeout", "last_call", "grace", "framework_env", "log_format", "result_file"}
_USED |= {"trace", "metrics_file"}


def identify(chosen: Settings, host: Host, ranks: Iterable[str]) -> tuple[NodeIdentity, list[str]]:
    """Return the identity of the one process that runs the workload against that Ray, and notes for the log.

    :param ranks: the variables in which launchers number nodes.
    :raises UsageError: if an option says that a Ray is to be started, or that its connections are to be secured.
    :raises IdentityError: if no GCS is named, or this is one of several nodes, each of which would run the workload.
    """
    address, source = _address(chosen, host)
    by, usual = f"{source}={address}", Settings()
    instead = (
        f"{'leave out --attach' if source == '--attach' else '--launcher=local, or another name,'} to start a Ray here"
    )
    names = [option.name for option in settings.options()]
    given = [name for name in names if getattr(chosen, name) != getattr(usual, name)]
    wrong = [settings.flag(name) for name in given if name in _STARTING and getattr(chosen, name) != ROW.name]
    if wrong := [*wrong, *filter(None, [demanded_by(chosen)])]:
        raise UsageError([f"{', '.join(wrong)} with {by}: that Ray runs already"], hint=f"leave it out; or {instead}")
    for name in ranks:
        if number(host.get(name)) > 0:
            what = f"{name}={host.get(name)} with {by}: each of several nodes would run the workload"
            raise IdentityError(what, hint=f"run it on one node only; or {instead}")
    idle = [settings.flag(name) for name in given if name not in _USED | _STARTING]
    run_id = (chosen.run_id, "--run-id") if chosen.run_id else (f"{ROW.name}-{secrets.token_hex(4)}", "generated here")
    return NodeIdentity(
        launcher=ROW.name,
        role=Role.DRIVER,
        rank=None,
        size=chosen.nodes,
        run_id=run_id[0],
        attempt=chosen.attempt or 0,
        head_hints=(address,),
        sources={"launcher": source, "role": f"launcher {ROW.name}", "head": source, "run_id": run_id[1]},
    ), ([f"without effect, since this run starts no Ray: {', '.join(idle)}"] if idle else [])


def _address(chosen: Settings, host: Host) -> tuple[str, str]:
    """Return the address of GCS, and what names it."""
    if chosen.attach != "auto":
        return chosen.attach, "--attach"
    if value := host.get(_ADDRESS):
        try:
            return parsers.gcs_address(value), _ADDRESS
        except ValueError as error:
            hint = "--attach=HOST:PORT with GCS's; or --launcher=local to start a Ray here"
            raise IdentityError(f"{_ADDRESS}={parsers.quoted(value)}: {error}", hint=hint) from None
    dashboard = host.get(_DASHBOARD) or ""
    sign = f"{_DASHBOARD}={dashboard}" if dashboard else f"{_COMMAND}={parsers.quoted(host.env[_COMMAND])}"
    head = dashboard.rpartition(":")[0] or "HOST"
    hint = f"--attach={head}:6379, or GCS's other port; or --launcher=local to start one here"
    raise IdentityError(f"{sign}: a Ray runs here, but {_ADDRESS} is not set: nothing names its GCS", hint=hint)
