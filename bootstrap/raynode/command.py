"""Ray on this node: the command line of ``ray start`` (pure), its start, its daemons, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role, join_host_port
from bootstrap.raynode.ports import HEAD_ONLY
from bootstrap.settings import Settings

RUN_LABEL, RANK_LABEL = "ray-bootstrap/run", "ray-bootstrap/rank"
"""Node labels by which the quorum knows this run's nodes, and their ranks, in GCS's table."""

SHM_MINIMUM = 80 * 1024 * 1024
"""Below Ray's own least object store (75 MB, ray_constants.py) the choice is left to Ray."""
_OBJECT_STORE_SHARE, _SHM_SHARE, _OBJECT_STORE_MOST = 0.3, 0.95, 200 * 10**9
"""Ray's own defaults (ray_constants.py), applied to what this node was really granted."""


def run_hash(run_id: str) -> str:
    """16 hex digits for places where a run id, free text, cannot stand."""
    return hashlib.sha256(run_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def temp_dir(settings: Settings, identity: NodeIdentity) -> Path:
    """Ray's folder: the user's, or one of this run's own, short enough for socket paths below it (107 bytes in all)."""
    which = f"x{os.getpid()}" if identity.rank is None else identity.rank  # two ranks may be on one machine
    return Path(settings.temp_dir or f"/tmp/ray-{run_hash(identity.run_id)[:8]}-{which}")  # noqa: S108 (sticky; checked to be ours)


def start_argv(
    settings: Settings,
    identity: NodeIdentity,
    address: NodeAddress,
    resources: Resources,
    folder: Path,
    ports: Mapping[str, int],
    gcs_address: str | None,
    shm_free: int,
) -> list[str]:
    """What follows ``ray start``.

    :param folder: Ray's.
    :param ports: from :func:`bootstrap.raynode.ports.choose`.
    :param gcs_address: for a worker, ``host:port`` of the head's GCS; None for the head.
    :param shm_free: bytes free in /dev/shm.
    """
    head = identity.role is Role.HEAD
    labels = {**settings.labels, RUN_LABEL: run_hash(identity.run_id), RANK_LABEL: str(identity.rank)}
    argv = ["--head", f"--port={ports['gcs_port']}"] if head else [f"--address={gcs_address}"]
    argv += [f"--node-ip-address={address.ip}", f"--temp-dir={folder}"]
    argv += [f"--num-cpus={resources.cpus}", f"--num-gpus={resources.num_gpus}"]
    argv += memory_argv(settings, resources, shm_free)
    if resources.custom:
        argv.append(f"--resources={json.dumps(dict(resources.custom), sort_keys=True)}")
    argv.append("--labels=" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())))
    if head:
        argv.append(f"--dashboard-host={settings.dashboard_host}")
    argv += [
        f"--{name.replace('_', '-')}={port}"
        for name, port in ports.items()
        if name != "gcs_port" and (head or name not in HEAD_ONLY)
    ]
    if head:
        argv.append("--disable-usage-stats")
    return [*argv, *settings.ray_start_arg]


def memory_argv(settings: Settings, resources: Resources, shm_free: int) -> Iterator[str]:
    """How much is for the object store, which must fit into /dev/shm or it goes to disk, and how much for the rest."""
    store = settings.object_store_memory
    if store is None and shm_free >= SHM_MINIMUM:
        store = int(min(resources.memory * _OBJECT_STORE_SHARE, shm_free * _SHM_SHARE, _OBJECT_STORE_MOST))
    if store is not None:
        yield f"--object-store-memory={store}"
    if settings.memory is not None:
        yield f"--memory={settings.memory}"
    elif store is not None:
        yield f"--memory={max(resources.memory - store, 1)}"


def gcs_address(address: NodeAddress, ports: Mapping[str, int]) -> str:
    """Under which the head's GCS is reached."""
    return join_host_port(address.ip, ports["gcs_port"])


def shm_free() -> int:
    """Bytes free in /dev/shm; 0 where there is none."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 (Ray's object store lives there)
    except OSError:
        return 0
