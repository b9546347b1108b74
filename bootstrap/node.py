"""This node before Ray is started on it: the first half of the line, shared by ``detect``, ``check`` and ``run``."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import __version__, hosts, launchers, network, ray_node, resources, secret, values
from bootstrap.errors import BootstrapError
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.rollcall.wire import Hello
from bootstrap.secret import Secret
from bootstrap.settings import Settings

_NOT_FOR_RAY = ("RAY_ADDRESS", "RAY_JOB_ID")
"""Of an outer cluster (a shell in one, say); Ray would join it, or take us for one of its jobs."""


@dataclass(frozen=True, slots=True)
class Node:
    """All that is known of this node; nothing has been changed yet."""

    settings: Settings
    host: Host
    identity: NodeIdentity
    address: NodeAddress
    resources: Resources
    temp_dir: Path
    """Ray's folder on this node."""
    secret: Secret

    @property
    def several(self) -> bool:
        """Whether the run has, or may get, more than this node."""
        asked = max(self.identity.size or 1, self.settings.min_nodes or 1)
        return asked > 1 or self.identity.role is Role.WORKER

    @property
    def in_pod(self) -> bool:
        """Whether this is a Kubernetes pod: what to type is another thing there."""
        return self.host.get("KUBERNETES_SERVICE_HOST") is not None

    def environment(self, shared: Secret, outcome: hosts.HostsOutcome | None) -> dict[str, str]:
        """For everything that is started here: ours, and what this node's GPUs, name and secret add to it."""
        env = {name: value for name, value in self.host.env.items() if name not in _NOT_FOR_RAY}
        if shared.path is not None:
            env.pop("RAY_AUTH_TOKEN", None)  # Ray would prefer it to the file that was asked for
        env.update(shared.env())
        if outcome is not None:
            env.update(outcome.env)
        if self.resources.gpu_visibility is not None:
            env["CUDA_VISIBLE_DEVICES"] = self.resources.gpu_visibility
        return env

    def start_argv(self, ports: Mapping[str, int], gcs_address: str | None) -> list[str]:
        """What follows ``ray start`` on this node."""
        return ray_node.start_argv(
            self.settings,
            self.identity,
            self.address,
            self.resources,
            self.temp_dir,
            ports,
            gcs_address,
            ray_node.shm_free(),
        )


def identify(settings: Settings, host: Host) -> tuple[NodeIdentity, list[str]]:
    """Who this node is. :raises IdentityError:"""
    return launchers.identify(settings, host, own_addresses=network.own_addresses)


def inspect(settings: Settings, host: Host, identity: NodeIdentity) -> Node:
    """Address, resources and secret; takes NVML's time, and changes nothing.

    :raises BootstrapError: what is wrong with this node.
    """
    towards = identity.head_hints[0] if identity.head_hints else None
    address = network.node_address(settings, host, values.host_port(towards)[0] if towards else None)
    shared = secret.load(settings, host)
    measured = resources.measure(settings, host)
    return Node(settings, host, identity, address, measured, ray_node.temp_dir(settings, identity), shared)


def hello(settings: Settings, host: Host, identity: NodeIdentity, node: Node | None) -> Hello:
    """What this node says of itself in the roll call; without ``node``, as one that is unfit."""
    from importlib import metadata  # noqa: PLC0415 (10 ms that the first child need not wait for)

    try:
        ray_version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        ray_version = "none"
    gpus = node.resources.gpus if node else ()
    return Hello(
        run=identity.run_id,
        attempt=identity.attempt,
        rank=identity.rank,
        size=identity.size,
        host=host.hostname,
        ip=node.address.ip if node else _address(settings, host),
        agent=__version__,
        ray=ray_version,
        python=platform.python_version(),
        cpus=node.resources.cpus if node else 0,
        gpus=node.resources.num_gpus if node else 0,
        gpu_model=gpus[0].name if gpus else "",
        time=time.time(),
    )


def _address(settings: Settings, host: Host) -> str:
    """Where others may reach a node that could not be inspected: to tell them so, the best guess will do."""
    try:
        return network.node_address(settings, host, None).ip
    except BootstrapError:
        return settings.node_ip or host.hostname
