"""The way out: whatever ended the line becomes a verdict, told to everybody; then nothing of this run is left here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path

from bootstrap import process, ray_node
from bootstrap.errors import INTERNAL_STATUS, BootstrapError, QuorumTimeout, retryable
from bootstrap.host import Host
from bootstrap.model import Role, Verdict
from bootstrap.run import Run, note_session, remove_session

_RAY_GRACE = 0.3
"""Seconds between SIGTERM and SIGKILL for Ray's processes. A raylet that is told to end drains for 3 s and more
(docs/ray.md), of use to nobody once the workload has ended; this is for the exit handlers of Ray's Python workers."""
_TELL = 1.0
"""Seconds for the workers to acknowledge the verdict."""
_TELL_LATE = 10.0
"""Seconds that a head which cannot lead stays to tell the workers why, which would otherwise look for it in vain."""
_REASON_LINES = 12
"""Of the head's reason, on every worker: its own output has all of them."""
_TERMINATION_LOG = Path("/dev/termination-log")


async def end(me: Run) -> int:
    """Make the verdict, deliver it, end all processes, remove what is left, say the last line; returns the status."""
    verdict, error = _verdict(me)
    me.phase("ending", status=verdict.status)
    running = me.children.alive()
    note_session(me.session, running)
    sockets = process.socket_files(running)
    await asyncio.gather(_tell(me, verdict, error), me.children.end_all(0 if me.hurry.is_set() else _RAY_GRACE))
    if me.made_secret is not None and me.made_secret.path is not None:
        me.made_secret.path.unlink(missing_ok=True)
    await asyncio.to_thread(me.meeting.withdraw)
    logs = await asyncio.to_thread(_clear_up, me, sockets)
    me.state.remove()
    _last_words(me, verdict, error, logs)
    return verdict.status


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
    waits = not (error is None or me.reason is not None or me.session.quorum or isinstance(error, QuorumTimeout))
    expected = (me.identity.size or 1) - 1 if waits and me.identity is not None else 0
    with contextlib.suppress(OSError):
        await me.call.deliver(verdict, _TELL_LATE if waits else _TELL, expected)
    me.call.close()


def _clear_up(me: Run, sockets: Sequence[str]) -> Path | None:
    """Remove Ray's session but its logs, which are copied if that was asked for; returns where they are."""
    ray_node.remove_sockets(sockets)
    if (logs := remove_session(me.session)) is None:
        return None
    if me.settings.log_dir is not None and me.identity is not None:
        rank = "unnumbered" if me.log.rank is None else me.log.rank
        copy = Path(me.settings.log_dir) / ray_node.run_hash(me.identity.run_id) / f"rank-{rank}"
        try:
            shutil.copytree(logs, copy, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        except (OSError, shutil.Error) as error:
            me.log.warn(f"Ray's logs could not all be copied to {copy}: {str(error)[:300]}")
        else:
            logs = copy
    return logs if logs.exists() else None


def _last_words(me: Run, verdict: Verdict, error: BootstrapError | None, logs: Path | None) -> None:
    """The last line on standard error and the record: which status, whose it is, why, and where to look."""
    took = me.seconds
    where = f"; Ray's logs: {logs}" if logs else ""
    if error is not None:
        me.log.error(error.message)
        if error.hint:
            me.log.error(f"to mend it: {error.hint}")
    told = me.identity is not None and me.identity.role is Role.WORKER and error is None
    if told and verdict.source != "workload":
        me.log.error("the head says: " + "\n".join(verdict.reason.splitlines()[:_REASON_LINES]))
    whose = "the workload's own" if verdict.source == "workload" else f"ray-bootstrap's {verdict.source!r}"
    said = f" ({'the head says: ' if told else ''}{verdict.reason.splitlines()[0] if verdict.reason else ''})"
    me.log.say(f"status {verdict.status}, {whose}{said if error is None else ''}, after {took:.1f} s{where}")
    record = {
        "status": verdict.status,
        "source": verdict.source,
        "reason": verdict.reason,
        "hint": error.hint if error else "",
        "retryable": retryable(verdict.source),
        "rank": me.log.rank,
        "host": me.host.hostname,
        "run_id": me.identity.run_id if me.identity else None,
        "logs": str(logs) if logs else None,
        "seconds": round(took, 1),
    }
    if fault := write_record(me.settings.status_file, me.host, json.dumps(record)):
        me.log.warn(fault)


def write_record(status_file: str | None, host: Host, text: str) -> str:
    """Write how it ended to ``--status-file``, else to Kubernetes' termination log; returns what went wrong."""
    path = Path(status_file) if status_file else None
    if path is None and host.get("KUBERNETES_SERVICE_HOST") and _TERMINATION_LOG.exists():
        path, text = _TERMINATION_LOG, text[:4000]
    if path is not None:
        try:
            path.write_text(text + "\n")  # in place: the termination log is a bind mount
        except OSError as error:
            return f"--status-file={path}: {error.strerror}"
    return ""
