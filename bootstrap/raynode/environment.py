"""The environment of every process that the agent starts:

======================================  =========================================  ==================
variable                                from                                       for
======================================  =========================================  ==================
all others                              the agent's own environment                everything
RAY_ADDRESS, RAY_JOB_ID                 removed: they belong to an outer cluster   Ray
RAY_AUTH_MODE, RAY_AUTH_TOKEN[_PATH]    the run's secret                           everything
GLOO_SOCKET_IFNAME                      set if /etc/hosts could not be written     everything
CUDA_VISIBLE_DEVICES                    the GPUs that this node may use            everything
RAY_ADDRESS, RAY_BOOTSTRAP_*            the cluster (docs/workload.md)             the workload
======================================  =========================================  ==================
"""

from collections.abc import Mapping

from bootstrap.files.secret import Secret
from bootstrap.node.inspection import Node

_NOT_FOR_RAY = ("RAY_ADDRESS", "RAY_JOB_ID")
"""Set by an outer cluster, such as in a shell of its job: Ray would join it, or run as one of its jobs."""


def for_node(node: Node, secret: Secret, hosts: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of everything that is started on this node: Ray, and with more the workload.

    :param hosts: variables to add because /etc/hosts could not be written.
    """
    # Ray would prefer RAY_AUTH_TOKEN to the file that the user named.
    left_out = _NOT_FOR_RAY if secret.path is None else (*_NOT_FOR_RAY, "RAY_AUTH_TOKEN")
    env = {name: value for name, value in for_kuberay(node, hosts).items() if name not in left_out}
    return {**env, **token(secret)}


def for_kuberay(node: Node, hosts: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of KubeRay's own command, which sets up the rest by itself."""
    visible = node.resources.gpu_visibility
    return {**node.host.env, **hosts, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}


def token(secret: Secret) -> dict[str, str]:
    """Return the variables that make Ray use this secret as its token."""
    if secret.value is None:
        return {"RAY_AUTH_MODE": "disabled"} if secret.source == "--auth=off" else {}
    if secret.path is None:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret.value.decode("utf-8", "surrogateescape")}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(secret.path)}


def for_workload(env: Mapping[str, str], run_id: str, gcs_address: str, nodes: int, gpus: float) -> dict[str, str]:
    """Return the environment of the workload, as docs/workload.md documents it."""
    return {
        **env,
        "RAY_ADDRESS": gcs_address,
        "RAY_BOOTSTRAP_RUN_ID": run_id,
        "RAY_BOOTSTRAP_CLUSTER_NODES": str(nodes),
        "RAY_BOOTSTRAP_CLUSTER_GPUS": f"{gpus:g}",
    }
