"""A node of a rehearsal, and what a launcher puts around it: its variables, files and programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where one node stands among all of a run."""

    rank: int
    names: tuple[str, ...]
    """Host names by rank, as :func:`bootstrap.launchers.environments.names` gives them."""
    addresses: tuple[str, ...]
    """By rank."""
    run: str
    """Names the run, the same on all nodes; a DNS label, since pods are called after it."""
    attempt: int = 0
    shared: str = "/shared"
    """A folder that all nodes see."""
    cpus: int = 1
    """On each node, as the launcher counts them: an agent takes no more."""
    gpus: int = 0
    """On each node."""


@dataclass(frozen=True)
class Surroundings:
    """What a launcher gives one node."""

    env: Mapping[str, str]
    """Its own variables alone; PATH and HOME are not among them."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Absolute path → text, in a folder of the host's own, in ``Place.shared``, where all nodes have the same text, or
    ``/etc/hosts``; SageMaker's alone lies in ``/opt/ml``, which must not become the machine's."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Command → what it prints, whatever its arguments."""
    options: tuple[str, ...] = ()
    """The agent's options that its users have to give."""
