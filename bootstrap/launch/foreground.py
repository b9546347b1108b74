"""``run`` and ``check --run``: become the supervisor of an agent, and return its exit status."""

import contextlib
import os
import resource
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from bootstrap import cgroup, timeouts
from bootstrap.errors import INTERNAL_STATUS, PreflightFailed, without_tracebacks
from bootstrap.files import result, runtime_dir
from bootstrap.files.manifest import Manifest
from bootstrap.files.result import Result
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.process import table
from bootstrap.process.bounded import TimedOut, run_bounded
from bootstrap.process.supervisor import supervise
from bootstrap.process.table import Process
from bootstrap.settings import Settings
from bootstrap.switches import Switches

if TYPE_CHECKING:
    from bootstrap.run.caller import Caller

_LEAST_ADDRESSES = 256 << 20
"""Bytes; with 40-70 or 190-200 MB a thread dies before its first line, and what waits for it hangs. The preflight has
the limit for Ray."""


def run(settings: Settings, host: Host, _switches: Switches) -> int:
    """Start or join the cluster, run the workload on the head, stop everywhere; return the exit status."""
    check_address_space()
    return supervise_agent(settings, host, runtime_dir.make())


def check_all(settings: Settings, host: Host, _switches: Switches) -> int:
    """Check all nodes of a run, without Ray; return the exit status."""
    check_address_space()
    return supervise_agent(settings, host, runtime_dir.make(), check_only=True)


def check_address_space() -> None:
    """:raises PreflightFailed: if the address space of a process is too small for an agent."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
        what = f"the address space of a process is limited to {limit >> 20} MiB (ulimit -v): too little for this agent"
        raise PreflightFailed(what, hint="`ulimit -v unlimited` before this command")


def supervise_agent(
    settings: Settings, host: Host, runtime: RuntimeDir, *, check_only: bool = False, caller: "Caller | None" = None
) -> int:
    """Run an agent below a supervisor and a standby, write the result if it is killed, and return the exit status.

    :param check_only: whether to check all nodes, without Ray and workload.
    :param caller: what called ``up``, if the agent stays behind it.
    """
    oom_count = cgroup.OomCount(host, cgroup.oom_kills(host))
    first = table.read_process(os.getpid() if caller is None else os.getppid())  # `up` waits for this process

    def agent(above: Sequence[int]) -> int:
        try:
            from bootstrap.run.agent import run_agent  # noqa: PLC0415 (in the child only, to keep the supervisor small)

            return run_agent(settings, host, runtime, above, oom_count, check_only, caller, first)
        except Exception:  # noqa: BLE001 (as in cli.main; this is another process)
            bug = traceback.format_exc().rstrip()
            _say(bug)
            reason = f"internal error: {without_tracebacks(bug)}"
            ended = Result(INTERNAL_STATUS, "internal", reason, "please report this", False, host.hostname)
            _write(settings.result_file, host, ended)
            return INTERNAL_STATUS

    with contextlib.suppress(TimedOut):
        run_bounded(timeouts.SHARED_FOLDER_S, lambda: result.clear(settings.result_file, host))
    return supervise(agent, partial(_on_killed, settings, host, runtime, oom_count))


def _on_killed(
    settings: Settings,
    host: Host,
    runtime: RuntimeDir,
    oom_count: cgroup.OomCount,
    status: int,
    reason: str,
    running: Sequence[Process],
) -> tuple[str, Iterable[Callable[[], object]]]:
    """Clean up after an agent that was killed (:data:`bootstrap.process.supervisor.OnKilled`)."""
    from bootstrap import cleanup  # noqa: PLC0415 (only here, to keep the supervisor small)
    from bootstrap.raynode.session import observe  # noqa: PLC0415

    held = observe(running)
    oom = oom_count.since()
    reason, hint = (f"{reason}; {oom}", cgroup.FIX_OOM) if oom else (reason, "")
    state = runtime_dir.read_state(runtime.path) or {}
    run = (state.get("run_id", settings.run_id), state.get("attempt", settings.attempt))
    ended = Result(status, "killed", reason, hint, True, host.hostname, state.get("rank"), *run)
    runtime.write_private(runtime_dir.RESULT, result.to_bytes(ended))
    manifest = Manifest.load(runtime.path / runtime_dir.MANIFEST)
    write = partial(_write, settings.result_file, host, ended)
    return reason, [write, partial(cleanup.remove, runtime.path, manifest, held)]


def _write(result_file: str | None, host: Host, outcome: Result) -> None:
    if fault := result.write(result_file, host, outcome):
        _say(f"ray-bootstrap: {fault}")


def _say(line: str) -> None:
    """Print ``line`` on standard error; ignore a closed pipe."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
