"""How a run ended on this node, as JSON: in ``--result-file``, else in Kubernetes' termination log."""

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.host import Host

_TERMINATION_LOG = Path("/dev/termination-log")
_MAX_BYTES = 4000
"""In the termination log: the kubelet cuts at 4096, in the midst of the JSON."""
_MAX_BYTES_OF_OTHERS = 600
"""Of them, for each text but the reason."""


@dataclass(frozen=True)
class Result:
    """Every field of the JSON object, in its order."""

    status: int
    """The exit status."""
    source: str
    """``workload``, ``killed``, or the name of one of our errors (:mod:`bootstrap.errors`)."""
    reason: str
    hint: str
    """The remedy for an error of ours."""
    retryable: bool
    """Whether trying again may help."""
    host: str
    rank: int | None = None
    run_id: str | None = None
    logs: str | None = None
    """The folder of Ray's logs on this node, or of their copy."""
    seconds: float | None = None
    """From the agent's start to its end."""


def of_error(error: BootstrapError, host: Host) -> Result:
    """Return the result of a run that this error ended before anything was started."""
    return Result(error.status, error.name, error.message, error.hint, error.retryable, host.hostname)


def clear(result_file: str | None, host: Host) -> None:
    """Remove the result of an earlier run, so that a run that is killed does not seem to have ended that way."""
    path = _path(result_file, host)
    # Only a regular file holds an old result; a FIFO, or the symbolic link /dev/stderr, must stay.
    with contextlib.suppress(OSError):
        if path is not None and stat.S_ISREG(path.lstat().st_mode):
            os.truncate(path, 0)  # first, since a mount point such as the termination log cannot be removed
            if path != _TERMINATION_LOG:
                path.unlink()


def write(result_file: str | None, host: Host, result: Result) -> str:
    """Write the result; return what went wrong, or an empty string."""
    path = _path(result_file, host)
    if path is not None:
        content = dataclasses.asdict(result)
        try:
            path.write_text(_fitted(content) if path == _TERMINATION_LOG else json.dumps(content) + "\n")  # in place
        except OSError as error:
            return f"--result-file={path}: {error.strerror}"
    return ""


def _path(result_file: str | None, host: Host) -> Path | None:
    if result_file:
        return Path(result_file)
    return _TERMINATION_LOG if host.get("KUBERNETES_SERVICE_HOST") and _TERMINATION_LOG.exists() else None


def _fitted(content: Mapping[str, object]) -> str:
    """Return JSON of at most ``_MAX_BYTES`` bytes: whole, or with its texts shortened, the reason last."""
    text = json.dumps(content)
    if len(text) >= _MAX_BYTES:
        short = {
            name: _shortened(value, _MAX_BYTES_OF_OTHERS) if isinstance(value, str) and name != "reason" else value
            for name, value in content.items()
        }
        room = _MAX_BYTES - len(json.dumps({**short, "reason": ""})) + len('""') - len("\n")
        text = json.dumps({**short, "reason": _shortened(str(content["reason"]), room)})
    return text + "\n"


def _shortened(text: str, room: int) -> str:
    """Return the start and the end of ``text`` (a traceback's last line says it), as JSON ``room`` bytes at most."""
    short, half = text, len(text) // 2
    while half and len(json.dumps(short)) > room:
        half = half * 9 // 10
        short = f"{text[:half]} [...] {text[len(text) - half :]}"
    return short
