"""The environment of everything that is started on a node, in one place:

======================================  =========================================  ==================
variable                                from                                       for
======================================  =========================================  ==================
all others                              the agent's own environment                everything
RAY_ADDRESS, RAY_JOB_ID                 left out: an outer cluster's               Ray
RAY_AUTH_MODE, RAY_AUTH_TOKEN[_PATH]    the run's secret                           everything
GLOO_SOCKET_IFNAME                      /etc/hosts, where it could not be written  everything
CUDA_VISIBLE_DEVICES                    the GPUs that this node may use            everything
RAY_ADDRESS, RAY_BOOTSTRAP_*            the cluster (docs/workload.md)             the workload
======================================  =========================================  ==================
"""

from collections.abc import Mapping

from bootstrap.files.secret import Secret
from bootstrap.model import Resources

_NOT_FOR_RAY = ("RAY_ADDRESS", "RAY_JOB_ID")
"""Of an outer cluster (a shell in one, say); Ray would join it, or take us for one of its jobs."""


def for_ray(own: Mapping[str, str], resources: Resources, secret: Secret, hosts: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Ray's processes on this node.

    :param own: the agent's.
    :param hosts: what the outcome of /etc/hosts adds.
    """
    # Ray prefers RAY_AUTH_TOKEN to the file that was asked for.
    left_out = _NOT_FOR_RAY if secret.path is None else (*_NOT_FOR_RAY, "RAY_AUTH_TOKEN")
    env = {name: value for name, value in own.items() if name not in left_out}
    return {**env, **hosts, **visible_gpus(resources), **token(secret)}


def visible_gpus(resources: Resources) -> dict[str, str]:
    """Return CUDA_VISIBLE_DEVICES, where it must differ from what it is."""
    return {} if resources.gpu_visibility is None else {"CUDA_VISIBLE_DEVICES": resources.gpu_visibility}


def token(secret: Secret) -> dict[str, str]:
    """Return what makes Ray use this secret as its token."""
    if secret.value is None:
        return {"RAY_AUTH_MODE": "disabled"} if secret.source == "--auth=off" else {}
    if secret.path is None:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret.value.decode("utf-8", "surrogateescape")}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(secret.path)}


def for_workload(ray: Mapping[str, str], run_id: str, gcs_address: str, nodes: int, gpus: float) -> dict[str, str]:
    """Return the environment of the workload; documented in docs/workload.md."""
    return {
        **ray,
        "RAY_ADDRESS": gcs_address,
        "RAY_BOOTSTRAP_RUN_ID": run_id,
        "RAY_BOOTSTRAP_CLUSTER_NODES": str(nodes),
        "RAY_BOOTSTRAP_CLUSTER_GPUS": f"{gpus:g}",
    }
