"""How a run ended on this node: JSON in ``--result-file``, and what the platform reads (Kubernetes, SageMaker)."""

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootstrap.errors import BootstrapError
from bootstrap.files import ownership
from bootstrap.host import Host

_TERMINATION_LOG = Path("/dev/termination-log")
_MAX_BYTES = 4000
"""Limit in the termination log: the kubelet truncates it at 4096 bytes, in the middle of the JSON."""
_FAILURE = "/opt/ml/output/failure"
_MAX_FAILURE = 1024
"""SageMaker's FailureReason is the start of that file, in characters
(https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-output.html)."""


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
    attempt: int | None = None
    logs: str | None = None
    """The folder of Ray's logs on this node, or of their copy."""
    seconds: float | None = None
    """Time from the agent's start to its end."""


def to_bytes(result: Result) -> bytes:
    """Return the whole result as JSON, for the runtime directory."""
    return _json(result).encode()


def of_error(error: BootstrapError, host: Host) -> Result:
    """Return the result of a run that this error ended before it started any process."""
    return Result(error.status, error.name, error.message, error.hint, error.retryable, host.hostname)


def clear(result_file: str | None, host: Host) -> None:
    """Remove the result of an earlier run, so that it cannot pass for the result of a run that is killed."""
    for path, _ in _places(result_file, host):
        # Only a regular file can hold an old result; a FIFO or the symbolic link /dev/stderr must stay.
        with (
            contextlib.suppress(OSError),
            os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "wb") as file,
        ):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                continue
            file.truncate(0)  # first, since a mount point such as the termination log cannot be unlinked
            if path != _TERMINATION_LOG:
                path.unlink()


def write(result_file: str | None, host: Host, result: Result) -> str:
    """Write the result; return what went wrong, or an empty string on success."""
    faults = []
    for path, text_of in _places(result_file, host):
        try:
            ownership.check_link(path)
            if text := text_of(result):
                path.write_text(text)  # in place
        except OSError as error:
            faults.append(f"{'--result-file=' if str(path) == result_file else ''}{path}: {error.strerror}")
    return "; ".join(faults)


def _places(result_file: str | None, host: Host) -> Iterator[tuple[Path, Callable[[Result], str]]]:
    """Yield the files to write, each with what makes its text of a result; nothing is written if that is empty."""
    if result_file:
        yield Path(result_file), _json
    elif host.get("KUBERNETES_SERVICE_HOST") and _TERMINATION_LOG.exists():
        yield _TERMINATION_LOG, _fitted
    failure = host.path(_FAILURE)
    if host.get("TRAINING_JOB_NAME") and failure.parent.is_dir():
        yield failure, _description


def _json(result: Result) -> str:
    return json.dumps(dataclasses.asdict(result)) + "\n"


def _description(result: Result) -> str:
    fix = f"; fix: {result.hint}" if result.hint else ""
    return f"exit status {result.status}: {result.reason}{fix}"[:_MAX_FAILURE] if result.status else ""


def _fitted(result: Result) -> str:
    """Return JSON of at most ``_MAX_BYTES`` bytes; of texts that would exceed it, the start and the end are kept."""
    short: dict[str, object] = dataclasses.asdict(result)
    while len(text := json.dumps(short)) >= _MAX_BYTES:
        texts = {name: value for name, value in short.items() if isinstance(value, str)}
        name, long = max(texts.items(), key=lambda item: len(item[1]))
        half = len(long) * 9 // 20
        short[name] = f"{long[:half]} [...] {long[len(long) - half :]}"
    return text + "\n"
