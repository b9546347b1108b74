"""Everything that can go wrong, as one tree.

::

    BootstrapError            status  name            retry
    ├── UsageError              64    usage           no
    ├── IdentityError           65    identity        no
    ├── HeadNotFound            68    head-not-found  yes
    ├── RayStartFailed          69    ray-start       yes
    ├── HostsError              73    hosts           no
    ├── QuorumTimeout           75    quorum          yes
    ├── RayDied                 76    ray-died        yes
    ├── Refused                 77    refused         no
    ├── PreflightFailed         78    preflight       no
    └── Stopped              128+n    stopped         yes

70 (internal) has no class: it is what :func:`bootstrap.cli.main` makes of an exception that is not here.
The numbers follow sysexits.h where it has a word for the case.

A message is the fact with its numbers; ``hint`` is the command or the variable that mends it.
"""

from __future__ import annotations

from collections.abc import Sequence

INTERNAL_STATUS = 70


class BootstrapError(Exception):
    """A failure of ours, with the status that the agent ends with."""

    status: int = INTERNAL_STATUS
    name: str = "internal"
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BootstrapError):
    """Bad options or variables; carries every fault found, not just the first."""

    status, name = 64, "usage"

    def __init__(self, faults: Sequence[str], *, hint: str = "ray-bootstrap --help lists the options") -> None:
        super().__init__("\n".join(faults), hint=hint)
        self.faults = tuple(faults)


class IdentityError(BootstrapError):
    """Rank or size missing, half-set, out of range, or taken twice."""

    status, name = 65, "identity"


class HeadNotFound(BootstrapError):
    """No head of this run and attempt answered within the time-out."""

    status, name, retryable = 68, "head-not-found", True


class RayStartFailed(BootstrapError):
    """Ray did not start on this node; the message carries the cause out of Ray's logs."""

    status, name, retryable = 69, "ray-start", True


class HostsError(BootstrapError):
    """/etc/hosts could not be put right and ``--hosts=require`` was asked for."""

    status, name = 73, "hosts"


class QuorumTimeout(BootstrapError):
    """Too few nodes or GPUs in time; the message names who is missing."""

    status, name, retryable = 75, "quorum", True


class RayDied(BootstrapError):
    """Ray, or the head, was lost before the verdict."""

    status, name, retryable = 76, "ray-died", True


class Refused(BootstrapError):
    """The head would not have this node: another secret, or versions that cannot work together."""

    status, name = 77, "refused"


class PreflightFailed(BootstrapError):
    """This node is unfit; all findings are listed."""

    status, name = 78, "preflight"


class Stopped(BootstrapError):
    """A signal asked the agent to end."""

    name, retryable = "stopped", True

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
        self.status = 128 + signum


def retryable(name: str) -> bool:
    """Whether trying again may help after the error of this name, which another node has told of."""
    return any(error.retryable for error in BootstrapError.__subclasses__() if error.name == name)


def remote_error(name: str, message: str, *, hint: str) -> BootstrapError:
    """The error of this name that another node has told of, with the same status; internal if there is none."""
    error = BootstrapError(message, hint=hint)
    for kind in BootstrapError.__subclasses__():
        if kind.name == name:
            error.status, error.name, error.retryable = kind.status, kind.name, kind.retryable
    return error
