"""This node before Ray is started on it: the first half of the line, shared by every command."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from bootstrap import parsers
from bootstrap.files import ownership
from bootstrap.files.runtime_dir import RAY
from bootstrap.files.secret import Secret, load_secret
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node import resources
from bootstrap.node.address import node_address
from bootstrap.node.by_role import settings_of
from bootstrap.settings import Settings


@dataclass(frozen=True, slots=True)
class Node:
    """All that is known of this node."""

    settings: Settings
    """As they count here (:mod:`bootstrap.node.by_role`)."""
    host: Host
    identity: NodeIdentity
    address: NodeAddress
    resources: Resources
    temp_dir: Path
    """Ray's folder on this node, which Ray opens to all users (mode 0777)."""
    secret: Secret
    named: bool = True
    """Whether this node's name leads to its address, or need not."""

    @property
    def closed_dir(self) -> Path | None:
        """The folder of this run alone that keeps other users out of Ray's; None if one above --temp-dir does."""
        asked = self.settings.temp_dir
        return None if asked is not None and Path(asked) == self.temp_dir else self.temp_dir.parent

    @property
    def multi_node(self) -> bool:
        """Whether the run has, or may get, more than this node."""
        asked = max(self.identity.size or 1, self.settings.min_nodes or 1)
        return asked > 1 or self.identity.role is Role.WORKER

    @property
    def in_pod(self) -> bool:
        """Whether this is a Kubernetes pod, where remedies differ."""
        return self.host.get("KUBERNETES_SERVICE_HOST") is not None


def inspect(settings: Settings, host: Host, identity: NodeIdentity, ray_dir: Path) -> Node:
    """Find out address, resources and secret of this node; change nothing. It takes NVML's time: bound it.

    :param ray_dir: Ray's folder unless ``--temp-dir`` names one.
    :raises BootstrapError: what is wrong with this node.
    """
    settings = settings_of(settings, identity.role)
    # A name in a headless Service may not exist yet, and resolvers remember that it does not (rendezvous.dns).
    published = identity.rendezvous == "dns" and host.get("KUBERNETES_SERVICE_HOST") is not None
    towards = identity.head_hints[0] if identity.head_hints and not published else None
    address = node_address(settings, host, parsers.host_port(towards)[0] if towards else None)
    secret = load_secret(settings, host, identity)
    measured = resources.measure(settings, host)
    temp_dir = _closed(Path(settings.temp_dir)) if settings.temp_dir else ray_dir
    return Node(settings, host, identity, address, measured, temp_dir, secret)


def _closed(asked: Path) -> Path:
    """Return ``asked`` if a folder above it keeps other users out, else a path below it with such a folder."""
    return asked if ownership.is_enclosed(asked) else asked / secrets.token_hex(4) / RAY
