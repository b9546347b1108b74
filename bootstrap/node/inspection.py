"""This node before Ray is started on it: the first half of the line, shared by ``detect``, ``check`` and ``run``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import parsers
from bootstrap.files import secret
from bootstrap.files.secret import Secret
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node import hosts_file, resources
from bootstrap.node.address import node_address
from bootstrap.raynode import command
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
    def multi_node(self) -> bool:
        """Whether the run has, or may get, more than this node."""
        asked = max(self.identity.size or 1, self.settings.min_nodes or 1)
        return asked > 1 or self.identity.role is Role.WORKER

    @property
    def in_pod(self) -> bool:
        """Whether this is a Kubernetes pod: what to type is another thing there."""
        return self.host.get("KUBERNETES_SERVICE_HOST") is not None

    def environment(self, shared: Secret, outcome: hosts_file.HostsOutcome | None) -> dict[str, str]:
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
        return command.start_argv(
            self.settings,
            self.identity,
            self.address,
            self.resources,
            self.temp_dir,
            ports,
            gcs_address,
            command.shm_free(),
        )


def inspect(settings: Settings, host: Host, identity: NodeIdentity) -> Node:
    """Address, resources and secret; takes NVML's time, and changes nothing.

    :raises BootstrapError: what is wrong with this node.
    """
    towards = identity.head_hints[0] if identity.head_hints else None
    address = node_address(settings, host, parsers.host_port(towards)[0] if towards else None)
    shared = secret.load(settings, host)
    measured = resources.measure(settings, host)
    return Node(settings, host, identity, address, measured, command.temp_dir(settings, identity), shared)
