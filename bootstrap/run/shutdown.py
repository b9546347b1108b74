"""Shutdown: turn whatever ended the line into a verdict, send it to all nodes, and clean up this node."""

import asyncio
import dataclasses
import re
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bootstrap import cgroup, cleanup, timeouts
from bootstrap.errors import BootstrapError, Down, in_brief, retryable, without_tracebacks
from bootstrap.files import result, runtime_dir
from bootstrap.files.result import Result
from bootstrap.model import Phase, Role, Verdict
from bootstrap.process.bounded import TimedOut, join_abandoned, run_in_thread, wait_for
from bootstrap.raynode import session
from bootstrap.raynode.session import Held, observe
from bootstrap.run.context import Context, Lifecycle

T = TypeVar("T")

CHECK = "check"
"""The source of the verdict on a check of all nodes that found nothing."""
_REASON_LINES = 12
"""Lines of the head's reason that a worker logs, the last one always; the head's own output has all of them."""


async def end_run(run: Context, line: asyncio.Task[Verdict]) -> int:
    """Make the verdict, deliver it, end all processes, clean up, log the result; return the exit status.

    The status is the verdict's: a later failure is only a warning, and does not stop the remaining steps.
    """
    verdict, error = make_verdict(run.lifecycle, line)
    oom_here = [oom] if (oom := run.oom.since()) else []
    verdict = add_oom_kills(run, verdict, error, oom_here)
    run.enter(Phase.ENDING, status=verdict.status)
    forced = run.lifecycle.force_stop.is_set()
    _, held, _ = await asyncio.gather(
        best_effort(run, "sending the verdict", run.lifecycle.tell(verdict, error)),
        best_effort(run, "ending all processes", end_all(run, 0 if forced else timeouts.RAY_GRACE_S)),
        run_in_thread(None, lambda: join_abandoned(0 if forced else timeouts.ABANDONED_CALLS_S)),
    )
    oom_elsewhere = run.lifecycle.oom_elsewhere
    verdict = add_oom_kills(run, verdict, error, oom_elsewhere)
    ended = result.to_bytes(make_result(run, verdict, error, None))
    run.runtime.write_private(runtime_dir.RESULT, ended)  # before the state goes: who looks here finds one or the other
    run.runtime.close()  # `status` no longer shows this node, so no phase can follow
    logs = await copy_logs(run, await remove_files(run, held or Held()))
    log_error(run, verdict, error)
    outcome = make_result(run, verdict, error, logs)
    target = run.settings.result_file
    writing = run_in_thread(timeouts.SHARED_FOLDER_S, lambda: result.write(target, run.host, outcome))
    if fault := await best_effort(run, "writing the result", writing, target or ""):
        run.log.warn(fault)
    # Only now, with the cause logged and nothing left here but the roll call: it may take a minute.
    await best_effort(run, "waiting for late nodes", run.lifecycle.linger())
    await finish_records(run, verdict)
    log_result(run, verdict, error, logs, "; ".join([*oom_here, *oom_elsewhere]))
    return verdict.status


async def finish_records(run: Context, verdict: Verdict) -> None:
    """Write the files of ``--trace`` and ``--metrics-file`` for the last time."""
    if run.trace is not None:
        await best_effort(run, "writing the trace", run.trace.finish(verdict))
    if run.metrics is not None:
        await best_effort(run, "writing the metrics", run.metrics.finish())


def make_verdict(lifecycle: Lifecycle, line: asyncio.Task[Verdict]) -> tuple[Verdict, BootstrapError | None]:
    """Return the verdict on a finished line, with the error if ray-bootstrap's own error ended it."""
    if line.cancelled():
        error = lifecycle.reason or BootstrapError("the run was cancelled for no recorded reason")
        if isinstance(error, Down):
            return Verdict(error.status, error.message, error.name), None
    elif (failure := line.exception()) is None:
        return line.result(), None
    elif isinstance(failure, BootstrapError):
        error = failure
    else:
        text = "".join(traceback.format_exception(type(failure), failure, failure.__traceback__))
        what = f"internal error: {without_tracebacks(text)}"
        error = BootstrapError(what, hint="please report this, with the traceback above", details=text)
    return Verdict(error.status, error.message, error.name), error


def add_oom_kills(run: Context, verdict: Verdict, error: BootstrapError | None, kills: Sequence[str]) -> Verdict:
    """Add ``kills`` to the first line of the reason, and log the fix; the status stays what it is.

    The other nodes and the result get the reason. It may have them already, of a daemon of Ray whose end it is.
    """
    new = [text for text in kills if not _knows(verdict.reason, text)]
    first, *more = verdict.reason.splitlines() or [""]
    reason = "\n".join(["; ".join([first, *new]), *more])
    if error is not None and new:
        error.message, error.hint = reason, "; ".join(filter(None, [error.hint, cgroup.FIX_OOM]))
    elif kills and error is None:
        run.log.warn(f"{'; '.join(kills)}; fix: {cgroup.FIX_OOM}")
    return dataclasses.replace(verdict, reason=reason)


def _knows(reason: str, kills: str) -> bool:
    """Return whether the reason names the OOM killer for the same node; it may have ended more processes since."""
    _, here, node = kills.partition(" (")[0].partition(" in the cgroup of ")
    return re.search(re.escape(here + node) + r"(?![\w.-])", reason) is not None if here else kills in reason


async def end_all(run: Context, grace: float) -> Held:
    """End every process below the agent, with ``grace`` seconds after SIGTERM; return the files that they held."""
    seen = [observe(run.children.alive())]
    left = await run.children.end_all(grace, lambda frozen: seen.append(observe(frozen)))
    if left:
        names = ", ".join(f"{p.name} (pid {p.pid}, state {p.state})" for p in left[:8])
        run.log.warn(f"SIGKILL did not end {names}: owned by another user, or stuck in the kernel")
    return seen[0] | seen[-1]


async def remove_files(run: Context, held: Held) -> Path | None:
    """Remove this run's files from this node; return where Ray's logs are, if any."""

    what, folder, manifest = "removing this run's files", run.runtime.path, run.runtime.manifest
    removing = interruptible(run, None, lambda: cleanup.remove(folder, manifest, held))
    logs, faults = await best_effort(run, what, removing, str(folder)) or (None, [])
    for fault in faults:
        run.log.warn(f"{what}: {fault}")
    return logs


async def copy_logs(run: Context, logs: Path | None) -> Path | None:
    """Copy Ray's logs to ``--log-dir``, if given; return where to look for them."""
    identity = run.lifecycle.identity
    if logs is None or run.settings.log_dir is None or identity is None:
        return logs
    rank = "unnumbered" if run.log.rank is None else run.log.rank
    folder, below = Path(run.settings.log_dir), (identity.run_hash, f"rank-{rank}")
    copying = interruptible(run, timeouts.COPY_LOGS_S, lambda: session.copy_logs(logs, folder, *below))
    return await best_effort(run, "copying Ray's logs", copying, str(folder.joinpath(*below))) or logs


async def best_effort(run: Context, what: str, awaitable: Awaitable[T], where: str = "") -> T | None:
    """Return what ``awaitable`` returns; on an error or a time-out, log a warning and return None.

    :param what: the step, for the warning.
    :param where: the path or place that timed out, for the warning.
    """
    begun = run.seconds
    try:
        return await awaitable
    except TimedOut:
        run.log.warn(f"{what}: {where or 'it'} timed out after {run.seconds - begun:.1f} s")
    except (OSError, BootstrapError) as error:
        run.log.warn(f"{what}: {str(error)[:300]}")
    except Exception:  # noqa: BLE001 (a bug here must not replace the workload's status)
        run.log.warn(f"{what}: internal error, please report it\n{traceback.format_exc()}")
    return None


async def interruptible(run: Context, seconds: float | None, function: Callable[[], T]) -> T:
    """Return what ``function`` returns, run in a thread for ``seconds`` at most; a second signal cuts that short.

    :raises TimedOut: if it takes longer, or than :data:`timeouts.FORCED_S` after a second signal.
    """
    working = asyncio.ensure_future(run_in_thread(seconds, function))
    forced: asyncio.Future[Any] = asyncio.ensure_future(run.lifecycle.force_stop.wait())
    await asyncio.wait({working, forced}, return_when=asyncio.FIRST_COMPLETED)
    forced.cancel()
    return await wait_for(timeouts.FORCED_S, working)


def log_error(run: Context, verdict: Verdict, error: BootstrapError | None) -> None:
    """Log the error that ended the run, if any: this node's own, or the head's."""
    if error is not None:
        if error.details:
            run.log.say(error.details.rstrip())
        run.log.error(f"{error.message}\nfix: {error.hint}" if error.hint else error.message)
    elif _is_from_head(run, error) and verdict.source not in ("workload", CHECK, Down.name):
        run.log.error("the head says: " + in_brief(verdict.reason, _REASON_LINES))


def _is_from_head(run: Context, error: BootstrapError | None) -> bool:
    identity = run.lifecycle.identity
    return identity is not None and identity.role is Role.WORKER and error is None


def log_result(run: Context, verdict: Verdict, error: BootstrapError | None, logs: Path | None, oom: str = "") -> None:
    """Log as the last line the exit status, its source, and where Ray's logs are."""
    took, from_head = run.seconds, _is_from_head(run, error)
    whose = "the workload" if verdict.source == "workload" else f"ray-bootstrap: {verdict.source}"
    first = verdict.reason.splitlines()[0] if verdict.reason else ""
    says = "the head says: " if from_head and verdict.source != Down.name else ""
    reason = f": {says}{first}" if error is None else f": {oom}" if oom else ""
    where = f"; Ray's logs: {logs}" if logs else ""
    run.log.say(f"exit status {verdict.status} (from {whose}){reason}, after {took:.1f} s{where}")


def make_result(run: Context, verdict: Verdict, error: BootstrapError | None, logs: Path | None) -> Result:
    """Return the result, all its fields in order."""
    identity, hint = run.lifecycle.identity, error.hint if error else ""
    run_id, attempt = (identity.run_id, identity.attempt) if identity else (run.settings.run_id, run.settings.attempt)
    ended = (verdict.status, verdict.source, verdict.reason, hint, retryable(verdict.source))
    node = (run.host.hostname, run.log.rank, run_id, attempt)
    return Result(*ended, *node, str(logs) if logs else None, round(run.seconds, 1))
