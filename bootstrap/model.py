"""The data types that the steps of :mod:`bootstrap.run.agent` pass on.

All are frozen. A value that was chosen, not just measured, has its origin in ``sources`` under the name of its field:
``identity.sources["rank"] == "SLURM_NODEID"``.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Sources = Mapping[str, str]


class Role(str, Enum):
    """A node's part in the run; rank 0 is the head."""

    HEAD = "head"
    WORKER = "worker"
    DRIVER = "driver"
    """It runs the workload against a Ray that already runs, and starts none."""


class Phase(str, Enum):
    """A node's progress, as the roll call, the state file and ``status`` show it; docs/design.md has the diagram."""

    PREPARING = "preparing"
    """Identifying, inspecting and checking this node."""
    SEARCHING = "searching"
    """A worker looks for the head."""
    WAITING = "waiting"
    """A worker has joined the roll call and waits for the head's Ray; the head waits for enough nodes."""
    STARTING_RAY = "starting-ray"
    JOINED = "joined"
    """A worker's Ray is in the cluster."""
    WAITING_FOR_DASHBOARD = "waiting-for-dashboard"
    RUNNING = "running"
    """The head runs the workload."""
    LEAVING = "leaving"
    """A worker was stopped alone and Ray drains it, within ``--grace``."""
    ENDING = "ending"
    """The verdict is known; everything is shut down."""
    LEFT = "left"
    """The node sent bye. This phase and the next three appear only in the roll call."""
    LOST = "lost"
    """Its connection broke, or it was silent for ``--heartbeat-timeout``."""
    REFUSED = "refused"
    """The head rejected it."""
    FAILED = "failed"
    """It cannot take part, and has reported why."""

    @property
    def is_ready(self) -> bool:
        """Return whether Ray runs on this node, and stays: it is ready if the head has also reached its quorum."""
        return self in (Phase.JOINED, Phase.WAITING_FOR_DASHBOARD, Phase.RUNNING)

    @property
    def is_loss(self) -> bool:
        """Return whether the head counts a node in this phase as lost."""
        return self in (Phase.LEAVING, Phase.LEFT, Phase.LOST, Phase.REFUSED, Phase.FAILED)


TRACE_FORMAT = "ray-bootstrap 1"
"""What a file of ``--trace`` says of itself; another number if an earlier version could not draw it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a node's time, in seconds on the monotonic clock of the agent that holds it."""

    name: str
    begin: float
    end: float | None = None
    """None for a phase, which ends where the next one begins."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is, according to its launcher and the options."""

    launcher: str
    """Name of a row of the launchers table."""
    role: Role
    rank: int | None
    """0-based; None for a worker whose launcher does not number its nodes: the head then assigns one."""
    size: int | None
    """Number of nodes in the run; None if unknown (the head then waits for ``min_nodes`` alone)."""
    run_id: str
    """The same on all nodes of a run; unique to the run if the launcher provides such an id."""
    attempt: int = 0
    """Number of restarts of the same run id; 0 for the first attempt."""
    rendezvous: str = "static"
    """Name of a rendezvous back end: the launcher's default, or the one that an option names."""
    head_hints: tuple[str, ...] = ()
    """Host names or addresses of the head according to the launcher, best first."""
    sources: Sources = field(default_factory=dict)
    isolation_timeout: float = math.inf
    """Seconds after which a head without workers, the last of which fell silent, ends the run; infinite: never."""
    replaced_nodes: str = "all"
    """Which nodes that are lost before the quorum are replaced: ``all``, ``stopped`` by a signal, or ``none``."""
    hosts: tuple[str, ...] = ()
    """Names or addresses of all nodes by rank, if the launcher gives them."""
    one_process: str = ""
    """How to start one process per node, where no variable tells a second one and a lock has to; else empty."""

    @property
    def run_hash(self) -> str:
        """Return 16 hex digits that stand for the run id where free text is not allowed."""
        return hashlib.sha256(self.run_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device that Ray may schedule on: a whole GPU or a MIG instance."""

    index: int
    """NVML's index of the device; for a MIG instance, of its parent."""
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
    no_gpus: tuple[str, str] = ("", "")
    """Why the driver shows no GPUs although its library is installed, and the remedy; empty texts otherwise."""
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """The address at which the other nodes reach this one."""

    ip: str
    interface: str | None
    """The interface that holds ``ip``; None if no interface here does (NAT, or one in another namespace)."""
    hostname: str
    sources: Sources = field(default_factory=dict)
    besides: tuple[str, ...] = ()
    """The other interfaces of this node that other nodes may reach: no loopback, no bridge."""


@dataclass(frozen=True, slots=True)
class HeadAddress:
    """The roll-call address of an agent that may be this run's head."""

    host: str
    """A name or an address (IPv6 without brackets)."""
    port: int
    """TCP port of the roll call."""
    source: str = ""
    others: tuple[str, ...] = ()
    """Other addresses of the same node, on its other interfaces."""
    instead_of: str = ""
    """The node address, if this is one of the others."""

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
    """Text for people, most often one line: what ended the run."""
    source: str = "workload"
    """``workload``, or the name of one of the agent's errors (see :mod:`bootstrap.errors`)."""
