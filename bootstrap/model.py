"""The vocabulary: the facts that the line in :mod:`bootstrap.run.agent` turns one into the next.

Everything here is frozen. A fact that was decided, not just measured, records in ``sources`` where it came from, under
the name of its field: ``identity.sources["rank"] == "SLURM_NODEID"``.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Sources = Mapping[str, str]


class Role(str, Enum):
    """A node's part in the cluster; rank 0 is the head."""

    HEAD = "head"
    WORKER = "worker"


class Phase(str, Enum):
    """How far a node is: in the roll call, in the state file and in ``status``. docs/design.md draws it."""

    PREPARING = "preparing"
    """Finding out who and what this node is, and whether it is fit."""
    SEARCHING = "searching"
    """A worker looks for the head."""
    WAITING = "waiting"
    """A worker is in the roll call and waits for the head's Ray; the head waits for enough nodes."""
    STARTING_RAY = "starting-ray"
    JOINED = "joined"
    """A worker's Ray is in the cluster."""
    WAITING_FOR_DASHBOARD = "waiting-for-dashboard"
    RUNNING = "running"
    """The head runs the workload."""
    LEAVING = "leaving"
    """A worker was stopped: Ray drains, within ``--grace``."""
    ENDING = "ending"
    """The verdict is out; all is taken down."""
    LEFT = "left"
    """In the roll call alone, as are the next three: it said good-bye."""
    LOST = "lost"
    """Its connection broke, or it was silent for ``--heartbeat-timeout``."""
    REFUSED = "refused"
    """The head will not have it."""
    FAILED = "failed"
    """It cannot take part, and has said why."""

    @property
    def is_ready(self) -> bool:
        """Whether ``ray-bootstrap status`` takes this node for ready."""
        return self in (Phase.JOINED, Phase.RUNNING)

    @property
    def is_loss(self) -> bool:
        """Whether the head does without a node in this phase."""
        return self in (Phase.LEAVING, Phase.LEFT, Phase.LOST, Phase.REFUSED, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is, according to its launcher and the options."""

    launcher: str
    """Name of a row of the launchers table."""
    role: Role
    rank: int | None
    """0-based; None for a worker whose launcher does not number its nodes: the head assigns one."""
    size: int | None
    """Number of nodes in the run; None if unknown (the head then waits for ``min_nodes`` alone)."""
    run_id: str
    """The same on all nodes of a run; different for every other run if the launcher provides such an id."""
    attempt: int = 0
    """0-based count of restarts of the same run id."""
    rendezvous: str = "static"
    """Name of a rendezvous back end: the launcher's default, or the one that an option chose."""
    head_hints: tuple[str, ...] = ()
    """Host names or addresses of the head according to the launcher, best first."""
    sources: Sources = field(default_factory=dict)

    @property
    def run_hash(self) -> str:
        """Return 16 hex digits that stand for the run id where free text cannot."""
        return hashlib.sha256(self.run_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that Ray may schedule on: a whole GPU or a MIG instance."""

    index: int
    """NVML's index of the (parent) device."""
    uuid: str
    """``GPU-…`` or ``MIG-…``, as CUDA_VISIBLE_DEVICES takes it."""
    name: str
    """Product name, such as ``NVIDIA A100-SXM4-80GB``."""
    memory: int
    """Bytes."""
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Resources:
    """What this node offers to Ray."""

    cpus: int
    memory: int
    """Bytes that this process and its children may use: the minimum of machine, cgroup and scheduler grant."""
    gpus: tuple[Gpu, ...] = ()
    gpu_visibility: str | None = None
    """CUDA_VISIBLE_DEVICES for every process that the agent starts; None leaves the variable as it is."""
    num_gpus: int = 0
    """The GPU count for ``ray start``; ``len(gpus)`` unless the user overrides it."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """Custom resources: the GPUs' product names, ``full-worker`` and the user's."""
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """The address at which the other nodes reach this one."""

    ip: str
    interface: str | None
    """The interface that holds ``ip``; None if none here does (NAT, or an interface of another namespace)."""
    hostname: str
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeadAddress:
    """Where an agent that may be this run's head listens for the roll call."""

    host: str
    """A name or an address (IPv6 without brackets)."""
    port: int
    """TCP port of the roll call."""
    source: str = ""

    def __str__(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 address."""
        return join_host_port(self.host, self.port)


def join_host_port(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the run ended; the same on every node."""

    status: int
    """Exit status, 0-255."""
    reason: str
    """One line for people: whose status it is and why."""
    source: str = "workload"
    """``workload``, or the name of one of the agent's errors (see :mod:`bootstrap.errors`)."""
