"""The way out: whatever ended the line becomes a verdict, told to everybody; then nothing of this run is left here."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bootstrap.errors import INTERNAL_STATUS, BootstrapError, QuorumTimeout, retryable
from bootstrap.files import manifest, result, runtime_dir
from bootstrap.model import Role, Verdict
from bootstrap.process.bounded import run_in_thread, threads_end, wait_for
from bootstrap.raynode import command
from bootstrap.raynode.session import remove_sockets
from bootstrap.run.context import Run, end_all, remove_session

T = TypeVar("T")

_RAY_GRACE = 0.3
"""Seconds between SIGTERM and SIGKILL for Ray's processes. A raylet that is told to end drains for 3 s and more
(docs/ray.md), of use to nobody once the workload has ended; this is for the exit handlers of Ray's Python workers."""
_TELL = 1.0
"""Seconds for the workers to acknowledge the verdict."""
_TELL_LATE = 10.0
"""Seconds that a head which cannot lead stays to tell the workers why, which would otherwise look for it in vain."""
_REASON_LINES = 12
"""Of the head's reason, on every worker: its own output has all of them."""
_FOLDER = 5.0
"""Seconds for a folder to answer: one on a network hangs for ever when its server is gone."""
_WRITING = 2.0
"""Seconds for a thread that was given up, and may be writing what is to be removed."""
_COPY, _HURRY = 60.0, 1.0
"""Seconds to remove Ray's session and to copy its logs; from a second signal on."""


async def end(me: Run) -> int:
    """Make the verdict, deliver it, end all processes, remove what is left, say the last line; returns the status.

    The verdict's, whatever else goes wrong from here on: it is a warning, and the rest is done.
    """
    verdict, error = _verdict(me)
    me.phase("ending", status=verdict.status)
    _, sockets, _ = await asyncio.gather(
        best_effort(me, "telling the other nodes", _tell(me, verdict, error)),
        best_effort(me, "ending what was started", end_all(me, 0 if me.force_stop.is_set() else _RAY_GRACE)),
        threads_end(0 if me.force_stop.is_set() else _WRITING),
    )
    shared = me.settings.shared_dir or str(runtime_dir.folder())
    await best_effort(me, "removing this run's files", run_in_thread(_FOLDER, lambda: _remove_run_files(me)), shared)
    logs = await _clean_up(me, sockets or ())
    me.state.remove()
    _log_result(me, verdict, error, logs)
    entry = _record(me, verdict, error, logs)
    writing = run_in_thread(_FOLDER, lambda: result.write(me.settings.result_file, me.host, entry))
    if fault := await best_effort(me, "writing how it ended", writing, me.settings.result_file or ""):
        me.log.warn(fault)
    return verdict.status


async def best_effort(me: Run, what: str, awaitable: Awaitable[T], folder: str = "") -> T | None:
    """What ``awaitable`` returns; None, with a warning, if it goes wrong or ``folder`` hangs."""
    begun = me.seconds
    try:
        return await awaitable
    except asyncio.TimeoutError:
        me.log.warn(f"{what}: {folder or 'it'} timed out after {me.seconds - begun:.1f} s")
    except (OSError, BootstrapError) as error:
        me.log.warn(f"{what}: {str(error)[:300]}")
    except Exception:  # noqa: BLE001 (a bug here must not take the place of the workload's status)
        me.log.warn(f"{what}: a bug, please report it\n{traceback.format_exc()}")
    return None


async def interruptible(me: Run, function: Callable[[], T]) -> T:
    """What ``function`` returns, run in a thread that has its time; not after a second signal."""
    working = asyncio.ensure_future(run_in_thread(_COPY, function))
    force_stop = asyncio.ensure_future(me.force_stop.wait())
    either: set[asyncio.Future[Any]] = {working, force_stop}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    force_stop.cancel()
    return await wait_for(_HURRY, working)


def _verdict(me: Run) -> tuple[Verdict, BootstrapError | None]:
    """What ended the line, as a verdict; with the error of ours, if it was one."""
    line = me.line
    if line is None or line.cancelled():
        error = me.reason or BootstrapError("the line was cancelled, and nobody said why")
    elif (failure := line.exception()) is None:
        return line.result(), None
    elif isinstance(failure, BootstrapError):
        error = failure
    else:
        text = "".join(traceback.format_exception(type(failure), failure, failure.__traceback__))
        hint = "please report this, with the lines above"
        return Verdict(INTERNAL_STATUS, text, "internal"), BootstrapError(text, hint=hint)
    return Verdict(error.status, error.message, error.name), error


async def _tell(me: Run, verdict: Verdict, error: BootstrapError | None) -> None:
    """Let the other agents know: the head all workers, a worker the head."""
    if me.membership is not None:
        await me.membership.leave(error.message if error else "verdict received")
    if me.call is None:
        return
    # Not for a quorum that did not come: who is missing then had all its time.
    waits = not (me.reason is not None or me.session.quorum or isinstance(error, QuorumTimeout))
    known = me.identity.size if me.identity is not None else None
    expected = max(known or 1, me.settings.min_nodes or 1) - 1 if waits else 0
    with contextlib.suppress(OSError):
        await me.call.deliver(verdict, _TELL_LATE if waits else _TELL, expected)
    me.call.close()


def _remove_run_files(me: Run) -> None:
    """Remove the secret that was made for this run, and where its head was."""
    try:
        manifest.remove_owned_files(me.generated_secret)
    finally:
        me.meeting.withdraw()


async def _clean_up(me: Run, sockets: Sequence[str]) -> Path | None:
    """Remove Ray's session but its logs, which are copied if that was asked for; returns where they are."""

    def remove() -> Path | None:
        remove_sockets(sockets)
        return remove_session(me.session)

    logs = await best_effort(me, "removing what Ray left", interruptible(me, remove), str(me.session.folder))
    if logs is None or me.settings.log_dir is None or me.identity is None:
        return logs
    rank = "unnumbered" if me.log.rank is None else me.log.rank
    copy = Path(me.settings.log_dir) / command.run_hash(me.identity.run_id) / f"rank-{rank}"
    copying = interruptible(me, lambda: shutil.copytree(logs, copy, symlinks=True, dirs_exist_ok=True))
    return await best_effort(me, "not all of Ray's logs are copied", copying, str(copy)) or logs


def _log_result(me: Run, verdict: Verdict, error: BootstrapError | None, logs: Path | None) -> None:
    """The last line on standard error: which status, whose it is, why, and where to look."""
    took = me.seconds
    where = f"; Ray's logs: {logs}" if logs else ""
    if error is not None:
        me.log.error(error.message)
        if error.hint:
            me.log.error(f"fix: {error.hint}")
    told = me.identity is not None and me.identity.role is Role.WORKER and error is None
    if told and verdict.source != "workload":
        me.log.error("the head says: " + "\n".join(verdict.reason.splitlines()[:_REASON_LINES]))
    whose = "the workload" if verdict.source == "workload" else f"ray-bootstrap: {verdict.source}"
    first = verdict.reason.splitlines()[0] if verdict.reason else ""
    said = "" if error is not None else f": {'the head says: ' if told else ''}{first}"
    me.log.say(f"exit status {verdict.status} (from {whose}){said}, after {took:.1f} s{where}")


def _record(me: Run, verdict: Verdict, error: BootstrapError | None, logs: Path | None) -> Mapping[str, object]:
    return {
        "status": verdict.status,
        "source": verdict.source,
        "reason": verdict.reason,
        "hint": error.hint if error else "",
        "retryable": retryable(verdict.source),
        "rank": me.log.rank,
        "host": me.host.hostname,
        "run_id": me.identity.run_id if me.identity else None,
        "logs": str(logs) if logs else None,
        "seconds": round(me.seconds, 1),
    }
