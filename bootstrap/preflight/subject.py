"""What the preflight checks look at, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.secret import Secret
from bootstrap.settings import Settings

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Subject:
    """All that is known of this node before anything is started on it."""

    settings: Settings
    host: Host
    identity: NodeIdentity
    address: NodeAddress
    resources: Resources
    ports: Mapping[str, int]
    """Option name → port, from :func:`bootstrap.ray_node.choose_ports`."""
    temp_dir: Path
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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about this node that is not as it should be."""

    check: str
    """Name of the check that found it."""
    message: str
    """The fact, with its numbers."""
    remedy: str
    """What to type."""
    fatal: bool = True
    """False for a warning: the run may work all the same."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at before a run."""

    name: str
    """For ``--ignore-check``."""
    meaning: str
    """What holds where it finds nothing."""
    run: Callable[[Subject], Iterable[Finding]]
    """Changes nothing that stays. May raise OSError, which becomes a finding."""


def size(amount: int) -> str:
    """Bytes for people: ``64.0 MiB``."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}"
    return f"{amount} bytes"
