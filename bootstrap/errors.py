"""The agent's errors, as one tree.

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
    ├── SetupFailed             79    setup           yes
    ├── Stopped              128+n    stopped         yes
    └── Down                 0-255    down            no

70 (internal) has no class: :func:`bootstrap.cli.main` returns it for any other exception.
The numbers follow sysexits.h where it names the case.

A message states what happened, with its numbers; ``hint`` is the command or the variable that fixes it.
"""

from collections.abc import Sequence

INTERNAL_STATUS = 70
_TRACEBACK = "Traceback (most recent call last):"
_LINKS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
"""What Python prints between the tracebacks of a chain."""


class BootstrapError(Exception):
    """A failure of the agent, with the status that it exits with."""

    status: int = INTERNAL_STATUS
    name: str = "internal"
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        """Text for this node's own log only, such as a traceback."""


class UsageError(BootstrapError):
    """Bad options or variables: every fault, not just the first."""

    status, name = 64, "usage"

    def __init__(self, faults: Sequence[str], *, hint: str = "ray-bootstrap --help lists the options") -> None:
        super().__init__("\n".join(faults), hint=hint)
        self.faults = tuple(faults)


class IdentityError(BootstrapError):
    """Rank or size missing, half-set, out of range, or taken twice."""

    status, name = 65, "identity"


class HeadNotFound(BootstrapError):
    """No head of this run and attempt, or no Ray to attach to, answered within ``--head-timeout``."""

    status, name, retryable = 68, "head-not-found", True


class RayStartFailed(BootstrapError):
    """Ray did not start on this node; the message quotes the cause from Ray's logs."""

    status, name, retryable = 69, "ray-start", True


class HostsError(BootstrapError):
    """This node's name does not resolve to its address, and ``--hosts=require`` demands it."""

    status, name = 73, "hosts"


class QuorumTimeout(BootstrapError):
    """Too few nodes or GPUs within ``--quorum-timeout``; the message names the missing ranks."""

    status, name, retryable = 75, "quorum", True


class RayDied(BootstrapError):
    """Ray, or the head, was lost before the verdict; or this head seems to be cut off from its workers."""

    status, name, retryable = 76, "ray-died", True


class Refused(BootstrapError):
    """The head, or the Ray to attach to, refused this node.

    The secrets differ, the versions cannot work together, or only one side has TLS.
    """

    status, name = 77, "refused"


class PreflightFailed(BootstrapError):
    """This node is unfit; the message lists all findings."""

    status, name = 78, "preflight"


class SetupFailed(BootstrapError):
    """A command of ``--setup`` failed on this node; the message quotes it, with how it ended and its last lines."""

    status, name, retryable = 79, "setup", True


class Stopped(BootstrapError):
    """A signal asked the agent to stop."""

    name, retryable = "stopped", True

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
        self.status = 128 + signum


class Down(BootstrapError):
    """``ray-bootstrap down`` ended the run, with the status that it names: a verdict, and no failure."""

    name = "down"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def retryable(name: str) -> bool:
    """Return whether a retry may help after the error of this name, which another node reported."""
    return any(error.retryable for error in BootstrapError.__subclasses__() if error.name == name)


def remote_error(name: str, message: str, *, hint: str) -> BootstrapError:
    """Return the error of this name that another node reported, with its status; internal if no error has that name."""
    error = BootstrapError(message, hint=hint)
    for kind in BootstrapError.__subclasses__():
        if kind.name == name:
            error.status, error.name, error.retryable = kind.status, kind.name, kind.retryable
    return error


def without_tracebacks(text: str) -> str:
    """Return ``text`` with the error line in the place of each traceback, and of a chain the last error line."""
    kept: list[str] = []
    inside, margin, error = False, "", 0
    for line in text.splitlines():
        before, found, _ = line.partition(_TRACEBACK)
        if found:
            inside, margin = True, before  # what a log puts before each line
            continue
        own = line.removeprefix(margin)
        if inside and (not own.strip() or own[0] in " \t|+"):
            continue  # a frame: the line of the error is not indented
        if own.strip() in _LINKS:
            inside = True  # up to the next traceback
            del kept[error:]  # it led to the next error, which is the answer
            continue
        if inside:
            inside, error = False, len(kept)
        kept.append(own if error == len(kept) else line)
    return "\n".join(kept) if kept else text.strip().rpartition("\n")[2].strip(" |+-")


def with_tracebacks(text: str) -> str:
    """Return ``text`` if it holds a traceback, as an error's ``details``; else an empty text."""
    return text if _TRACEBACK in text else ""


def in_brief(reason: str, lines: int) -> str:
    """Return a reason in at most so many lines: the first ones, and the last, which is most often the cause."""
    every = without_tracebacks(reason).splitlines()
    return "\n".join(every if len(every) <= lines else [*every[: lines - 1], every[-1]])
