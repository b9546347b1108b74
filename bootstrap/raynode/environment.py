"""The environment of every process that the agent starts:

======================================  =========================================  ==================
variable                                from                                       for
======================================  =========================================  ==================
all others                              the agent's own environment                everything
RAY_ADDRESS, RAY_API_SERVER_ADDRESS,    removed: they belong to an outer cluster   Ray
RAY_DASHBOARD_ADDRESS, RAY_JOB_ID
RAY_BOOTSTRAP_SECRET                    removed: Ray gets a token derived from it  everything
RAY_BOOTSTRAP_SIGNALS                   removed: what it marks has been undone     everything
RAY_AUTH_MODE, RAY_AUTH_TOKEN[_PATH]    Ray's token                                everything
RAY_USE_TLS, RAY_TLS_*                  this node's certificate                    everything
MASTER_ADDR, VLLM_HOST_IP, ...          :mod:`bootstrap.raynode.frameworks`        everything
CUDA_VISIBLE_DEVICES                    the GPUs that this node may use            everything
RAY_ADDRESS, RAY_BOOTSTRAP_*            the cluster (docs/workload.md)             the workload
RAY_API_SERVER_ADDRESS, and for serve   the dashboard's URL                        the workload
RAY_DASHBOARD_ADDRESS
no_proxy, NO_PROXY                      extended by all nodes' addresses           the workload
======================================  =========================================  ==================

With a Ray that already runs, the workload gets the agent's own environment without the two that are removed for
everything, and RAY_ADDRESS, RAY_BOOTSTRAP_* and no_proxy.
"""

import shlex
from collections.abc import Collection, Mapping

from bootstrap.files.certificates import TlsFiles
from bootstrap.files.secret import Token
from bootstrap.host import Host
from bootstrap.node.inspection import Node
from bootstrap.parsers import host_port
from bootstrap.process.signals import ENTRYPOINT_MARK
from bootstrap.raynode import frameworks
from bootstrap.settings import SECRET, Settings

_NOT_FOR_RAY = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_JOB_ID")
"""Set by an outer cluster, such as in a shell of its job: Ray would join it, or run as one of its jobs."""
_TLS = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")


def for_node(node: Node, token: Token, head: str | None, files: TlsFiles | None = None) -> dict[str, str]:
    """Return the environment of everything that is started on this node: Ray, and with more the workload.

    :param head: the head's node address; None on a worker that has not joined: :func:`with_head` adds what needs it.
    :param files: this node's certificate, if the run has TLS.
    """
    # Ray would prefer RAY_AUTH_TOKEN to a file.
    left_out = _NOT_FOR_RAY if token.path is None else (*_NOT_FOR_RAY, "RAY_AUTH_TOKEN")
    env = {name: value for name, value in _common(node).items() if name not in left_out}
    env |= {**authentication(token, off=node.settings.auth == "off"), **tls(files)}
    return with_head(node, env, head)


def with_head(node: Node, env: Mapping[str, str], head: str | None) -> dict[str, str]:
    """Return ``env`` with what frameworks look for, now that the head's node address is known."""
    return {**env, **frameworks.variables(node, env, head, ray_ip=node.address.ip)}


def for_starter(host: Host) -> dict[str, str]:
    """Return the environment of the process that imports Ray, before the rest is known; and where none is started."""
    return {name: value for name, value in host.env.items() if name not in (SECRET, ENTRYPOINT_MARK)}


def for_kuberay(node: Node) -> dict[str, str]:
    """Return the environment of KubeRay's own command, which sets up the rest by itself."""
    env = _common(node)
    return {**env, **frameworks.variables(node, env, None, ray_ip=None)}


def _common(node: Node) -> dict[str, str]:
    visible = node.resources.gpu_visibility
    return {**for_starter(node.host), **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}


def authentication(token: Token, *, off: bool) -> dict[str, str]:
    """Return the variables that make Ray use this token; without one, none, or if it is ``off`` those that say so."""
    if token.value is None:
        return {"RAY_AUTH_MODE": "disabled"} if off else {}
    if token.path is None:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token.value}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token.path)}


def tls(files: TlsFiles | None) -> dict[str, str]:
    """Return the variables that make Ray use TLS with these files; none without: the user's own then stay."""
    if files is None:
        return {}
    return dict(zip(_TLS, ("1", str(files.certificate), str(files.key), str(files.ca)), strict=True))


DECIDED = (*_NOT_FOR_RAY, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", *_TLS, "CUDA_VISIBLE_DEVICES")
"""What the agent has decided before a command of ``--setup`` could set it."""
_FOR_SHELLS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", *_TLS)
"""None of them is a secret: where the token is in no file, the user has given it."""


def for_shell(env: Mapping[str, str], gcs_address: str) -> str:
    """Return what another shell of this user on this node must set to use the cluster, as it is typed."""
    variables = {"RAY_ADDRESS": gcs_address, **_for_shells(env)}
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def how_to_use(env: Mapping[str, str]) -> str:
    """Return what to type in another shell, and which variables that sets."""
    return f'eval "$(ray-bootstrap env)", which sets {", ".join(["RAY_ADDRESS", *_for_shells(env)])}'


def _for_shells(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in (*_FOR_SHELLS, *frameworks.exceptions(env, ())) if name in env}


def for_workload(
    node: Node, env: Mapping[str, str], gcs: str, dashboard: str, nodes: Collection[str], gpus: float
) -> dict[str, str]:
    """Return the environment of the workload, as docs/workload.md documents it.

    :param env: from :func:`for_node`.
    :param gcs: ``host:port`` of GCS; ``dashboard``: of the dashboard.
    :param nodes: the addresses of the nodes that are ready.
    """
    url, driver = f"http://{dashboard}", for_driver(node.settings, env, node.identity.run_id, gcs, nodes, gpus)
    return {**driver, "RAY_API_SERVER_ADDRESS": url, "RAY_DASHBOARD_ADDRESS": url}


def for_driver(
    settings: Settings, env: Mapping[str, str], run_id: str, gcs: str, nodes: Collection[str], gpus: float
) -> dict[str, str]:
    """Return the environment of a workload that finds a Ray, whoever has started it, at ``gcs``, with these nodes."""
    return {
        **env,
        **(frameworks.exceptions(env, [*nodes, host_port(gcs)[0]]) if settings.framework_env == "auto" else {}),
        "RAY_ADDRESS": gcs,
        "RAY_BOOTSTRAP_RUN_ID": run_id,
        "RAY_BOOTSTRAP_CLUSTER_NODES": str(len(nodes)),
        "RAY_BOOTSTRAP_CLUSTER_GPUS": f"{gpus:g}",
    }
