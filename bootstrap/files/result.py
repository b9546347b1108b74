"""How a run ended on this node, as JSON in ``--result-file`` or else in Kubernetes' termination log."""

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.files import ownership
from bootstrap.host import Host

_TERMINATION_LOG = Path("/dev/termination-log")
_MAX_BYTES = 4000
"""Limit in the termination log: the kubelet truncates it at 4096 bytes, in the middle of the JSON."""


@dataclass(frozen=True)
class Result:
    """The fields of the JSON object, in order."""

    status: int
    """The exit status."""
    source: str
    """What set the status: ``workload``, ``check``, ``killed``, or the name of an error (:mod:`bootstrap.errors`)."""
    reason: str
    hint: str
    """The fix, if an error of ray-bootstrap ended the run."""
    retryable: bool
    """Whether a retry may succeed."""
    host: str
    rank: int | None = None
    run_id: str | None = None
    logs: str | None = None
    """The folder of Ray's logs on this node, or of their copy."""
    seconds: float | None = None
    """Time from the agent's start to its end."""


def of_error(error: BootstrapError, host: Host) -> Result:
    """Return the result of a run that this error ended before it started any process."""
    return Result(error.status, error.name, error.message, error.hint, error.retryable, host.hostname)


def clear(result_file: str | None, host: Host) -> None:
    """Remove the result of an earlier run, so that it cannot pass for the result of a run that is killed."""
    path = _path(result_file, host)
    # Only a regular file can hold an old result; a FIFO or the symbolic link /dev/stderr must stay.
    with contextlib.suppress(OSError):
        if path is not None:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return
                file.truncate(0)  # first, since a mount point such as the termination log cannot be unlinked
            if path != _TERMINATION_LOG:
                path.unlink()


def write(result_file: str | None, host: Host, result: Result) -> str:
    """Write the result; return what went wrong, or an empty string on success."""
    path = _path(result_file, host)
    if path is not None:
        content = dataclasses.asdict(result)
        try:
            ownership.check_link(path)
            path.write_text(_fitted(content) if path == _TERMINATION_LOG else json.dumps(content) + "\n")  # in place
        except OSError as error:
            return f"--result-file={path}: {error.strerror}"
    return ""


def _path(result_file: str | None, host: Host) -> Path | None:
    if result_file:
        return Path(result_file)
    return _TERMINATION_LOG if host.get("KUBERNETES_SERVICE_HOST") and _TERMINATION_LOG.exists() else None


def _fitted(content: Mapping[str, object]) -> str:
    """Return JSON of at most ``_MAX_BYTES`` bytes; of texts that would exceed it, the start and the end are kept."""
    short = dict(content)
    while len(text := json.dumps(short)) >= _MAX_BYTES:
        texts = {name: value for name, value in short.items() if isinstance(value, str)}
        name, long = max(texts.items(), key=lambda item: len(item[1]))
        half = len(long) * 9 // 20
        short[name] = f"{long[:half]} [...] {long[len(long) - half :]}"
    return text + "\n"
