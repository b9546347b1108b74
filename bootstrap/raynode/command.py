"""The command line of ``ray start`` on this node."""

import json
import shutil
from collections.abc import Iterator, Mapping

from bootstrap.model import NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.raynode.ports import HEAD_ONLY
from bootstrap.settings import Settings, flag

RUN_LABEL, RANK_LABEL = "ray-bootstrap/run", "ray-bootstrap/rank"
"""Node labels by which the quorum knows this run's nodes, and their ranks, in GCS's table."""

SHM_MINIMUM = 80 * 1024 * 1024
"""Below Ray's own least object store (75 MB, ray_constants.py) the choice is left to Ray."""
_OBJECT_STORE_SHARE, _SHM_SHARE, _OBJECT_STORE_MAX = 0.3, 0.95, 200 * 10**9
"""Ray's own defaults (ray_constants.py), applied to what this node was really granted."""


def start_argv(node: Node, ports: Mapping[str, int], gcs_address: str | None) -> list[str]:
    """Return what follows ``ray start`` on this node.

    :param ports: from :func:`bootstrap.raynode.ports.choose`.
    :param gcs_address: for a worker, ``host:port`` of the head's GCS; None for the head.
    """
    settings, identity, resources = node.settings, node.identity, node.resources
    head = identity.role is Role.HEAD
    labels = {**settings.labels, **run_labels(identity)}
    argv = ["--head", f"--port={ports['gcs_port']}"] if head else [f"--address={gcs_address}"]
    argv += [f"--node-ip-address={node.address.ip}", f"--temp-dir={node.temp_dir}"]
    argv += [f"--num-cpus={resources.cpus}", f"--num-gpus={resources.num_gpus}"]
    argv += memory_argv(settings, resources, shm_free())
    if resources.custom:
        argv.append(f"--resources={json.dumps(dict(resources.custom), sort_keys=True)}")
    argv.append("--labels=" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())))
    if head:
        argv.append(f"--dashboard-host={settings.dashboard_host}")
    argv += [
        f"{flag(name)}={port}" for name, port in ports.items() if name != "gcs_port" and (head or name not in HEAD_ONLY)
    ]
    if head:
        argv.append("--disable-usage-stats")
    return [*argv, *settings.ray_start_arg]


def run_labels(identity: NodeIdentity) -> dict[str, str]:
    """Return the labels by which GCS's table shows whose node this is."""
    return {RUN_LABEL: identity.run_hash, RANK_LABEL: str(identity.rank)}


def memory_argv(settings: Settings, resources: Resources, shm_free: int) -> Iterator[str]:
    """Yield the memory for the object store, which goes to disk if it does not fit into /dev/shm, and for the rest."""
    store = settings.object_store_memory
    if store is None and shm_free >= SHM_MINIMUM:
        store = int(min(resources.memory * _OBJECT_STORE_SHARE, shm_free * _SHM_SHARE, _OBJECT_STORE_MAX))
    if store is not None:
        yield f"--object-store-memory={store}"
    if settings.memory is not None:
        yield f"--memory={settings.memory}"
    elif store is not None:
        yield f"--memory={max(resources.memory - store, 1)}"


def shm_free() -> int:
    """Return the bytes that are free in /dev/shm; 0 where there is none."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 (Ray's object store lives there)
    except OSError:
        return 0
