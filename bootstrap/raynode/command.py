"""The command line of ``ray start`` on this node."""

import json
import shutil
from collections.abc import Iterator, Mapping

from bootstrap.model import NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.raynode.ports import HEAD_ONLY
from bootstrap.settings import Settings, flag

RUN_LABEL, RANK_LABEL = "ray-bootstrap/run", "ray-bootstrap/rank"
"""Node labels by which the quorum finds this run's nodes and their ranks in GCS's node table."""

SHM_MINIMUM = 80 * 1024 * 1024
"""Bytes; with less in /dev/shm Ray chooses the size: its smallest object store is 75 MB (ray_constants.py)."""
_OBJECT_STORE_SHARE, _SHM_SHARE, _OBJECT_STORE_MAX = 0.3, 0.95, 200 * 10**9
"""Ray's defaults (ray_constants.py), applied to the memory that this node may actually use."""


def start_argv(node: Node, ports: Mapping[str, int], gcs_address: str | None) -> list[str]:
    """Return the arguments of ``ray start`` on this node.

    :param ports: from :func:`bootstrap.raynode.ports.choose`.
    :param gcs_address: ``host:port`` of the head's GCS for a worker; None for the head.
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
    """Return the labels that identify this run and this rank in GCS's node table."""
    return {RUN_LABEL: identity.run_hash, RANK_LABEL: str(identity.rank)}


def memory_argv(settings: Settings, resources: Resources, shm_free: int) -> Iterator[str]:
    """Yield the memory options: the object store, which Ray puts on disk if /dev/shm is too small, and the rest.

    :param shm_free: bytes free in /dev/shm.
    """
    store = object_store(settings, resources, shm_free)
    if store is not None:
        yield f"--object-store-memory={store}"
    if settings.memory is not None:
        yield f"--memory={settings.memory}"
    elif store is not None:
        yield f"--memory={max(resources.memory - store, 1)}"


def object_store(settings: Settings, resources: Resources, shm_free: int) -> int | None:
    """Return the bytes of the object store; None if Ray chooses them, since /dev/shm is too small."""
    if settings.object_store_memory is not None or shm_free < SHM_MINIMUM:
        return settings.object_store_memory
    return int(min(resources.memory * _OBJECT_STORE_SHARE, shm_free * _SHM_SHARE, _OBJECT_STORE_MAX))


def shm_free() -> int:
    """Return the bytes free in /dev/shm; 0 if it does not exist."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 (Ray's object store lives there)
    except OSError:
        return 0
