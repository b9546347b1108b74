"""``wait``, ``down`` and ``status --run``: a whole run, watched over its roll call from any shell of its user."""

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.commands.find_run import Search, not_found
from bootstrap.commands.node_table import table
from bootstrap.commands.reports import NOT_READY, NOT_RUNNING
from bootstrap.errors import HeadNotFound, RayDied, Stopped
from bootstrap.files import runtime_dir
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import Phase, Verdict
from bootstrap.process import signals
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall.observer import Observer, Row
from bootstrap.settings import Settings
from bootstrap.switches import Switches

_CLEAR = "\x1b[H\x1b[2J"
"""Puts a terminal's cursor into the first line and clears the screen."""


def wait(settings: Settings, host: Host, switches: Switches) -> int:
    """Wait until the cluster stands and print GCS's address; return the run's status if it ends before that, or 68.

    :raises HeadNotFound: at the time-out, saying how far the run is.
    """
    log = Log(as_json=settings.log_format == "json")
    return _run_interruptibly(host, _wait(Search(settings, host), log, switches.timeout))


def down(settings: Settings, host: Host, switches: Switches) -> int:
    """End the run on all nodes with ``--status`` and return 0 once they have cleaned up, or if it has ended already.

    :raises HeadNotFound: if there is no such run.
    :raises Refused: if an open run may not be ended from this machine.
    :raises RayDied: if the head is lost meanwhile.
    """
    log = Log(as_json=settings.log_format == "json")
    return _run_interruptibly(host, _down(Search(settings, host), log, switches.status))


def status(settings: Settings, host: Host, switches: Switches) -> int:
    """Print what the head knows of each node; with ``--watch``, again and again until the run ends.

    :returns: as :func:`bootstrap.commands.reports.status`.
    """
    return _run_interruptibly(host, _status(Search(settings, host), switches))


def _run_interruptibly(host: Host, command: Coroutine[Any, Any, int]) -> int:
    """Return what the command returns. :raises Stopped: as soon as a signal ends it."""
    loop = asyncio.new_event_loop()  # not asyncio.run(): it would wait at the end for a thread that a resolver blocks
    task, received = loop.create_task(command), list[int]()

    def stop(signum: int) -> None:
        received.append(signum)
        task.cancel()

    for signum in signals.stopping():
        loop.add_signal_handler(signum, stop, signum)
    if os.getpid() == 1:
        signals.restore(host)
    try:
        return loop.run_until_complete(task)
    except asyncio.CancelledError:
        raise Stopped(received[0], f"stopped by {signals.name_of(received[0])}") from None


async def _wait(search: Search, log: Log, timeout: float) -> int:
    with contextlib.suppress(TimedOut):
        return await wait_for(timeout, _until_up_or_ended(search, log))
    with contextlib.suppress(TimedOut, RayDied):
        observer = await wait_for(timeouts.CANDIDATE_S, search.look())
        if observer is not None:
            rows = await wait_for(timeouts.CANDIDATE_S, observer.nodes())
            lines = table([row for row in rows if not row.phase.is_ready], _unseen(observer, rows))
            what = f"run {search.run_id!r} does not stand after {timeout:g} s; its nodes that are not up:"
            raise HeadNotFound("\n".join([what, *lines]), hint="`ray-bootstrap status --run`; a longer --timeout")
    raise not_found(search, f" within {timeout:g} s")


async def _until_up_or_ended(search: Search, log: Log) -> int:
    clock, began = asyncio.get_running_loop().time, time.time()
    patience = clock() + timeouts.END_BELIEVED_S
    while True:
        observer = await search.look()
        ended = search.ended() if observer is None else None
        if observer is not None:
            either: set[asyncio.Future[Any]] = {observer.quorum, observer.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            with contextlib.suppress(RayDied):
                await _until_in_use(observer)
            if not observer.ended.done():
                print(observer.gcs.result())
                return 0
            if observer.ended.exception() is None:
                return _say_ended(log, observer.hello.run, observer.ended.result())
            # The head is lost without a word; its supervisor writes the result, or it comes again.
        # What had ended before may be an earlier run with the same id, so a new one has a moment to show.
        elif ended is not None and (ended.when >= began or (clock() > patience and not search.starting)):
            log.say(str(ended))
            return _say_ended(log, ended.run_id, ended.verdict)
        await asyncio.sleep(timeouts.LOOK_AGAIN_S)


async def _until_in_use(observer: Observer) -> None:
    """Wait until the head's workload starts: with none, or one that needs it, only when the dashboard takes jobs.

    :raises RayDied: if the head is lost meanwhile.
    """
    while not observer.ended.done() and (await observer.nodes())[0].phase is not Phase.RUNNING:
        await asyncio.wait({observer.ended}, timeout=timeouts.LOOK_AGAIN_S)


def _say_ended(log: Log, run_id: str, verdict: Verdict) -> int:
    log.error(f"run {run_id!r} has ended with {_in_words(verdict)}")
    status = verdict.status or HeadNotFound.status
    log.say(f"exit status {status}" + ("" if verdict.status else ", since no cluster stands"))
    return status


def _in_words(verdict: Verdict) -> str:
    whose = "the workload" if verdict.source == "workload" else f"ray-bootstrap: {verdict.source}"
    return f"status {verdict.status} (from {whose}): {verdict.reason}"


async def _down(search: Search, log: Log, status: int) -> int:
    observer = await _find(search)
    if observer is None:
        if (ended := search.ended()) is None:
            raise not_found(search)
        await _until_gone({ended.file.parent})
        log.say(f"{ended} with {_in_words(ended.verdict)}")
        return 0
    observer.down(status, f"{search.host.hostname} ({search.host.get('USER') or f'uid {os.geteuid()}'})")
    verdict = await observer.ended
    log.say(f"run {search.run_id!r} ends with {_in_words(verdict)}")
    await observer.gone
    await _until_gone(search.folders)
    log.say(f"run {search.run_id!r} is gone")
    return 0


async def _find(search: Search) -> Observer | None:
    """Look until the run is found, or nothing on this machine may yet show its roll call."""
    clock = asyncio.get_running_loop().time
    until = clock() + timeouts.CANDIDATE_S
    while (observer := await search.look()) is None and (search.alive or search.starting) and clock() < until:
        await asyncio.sleep(timeouts.LOOK_AGAIN_S)
    return observer


async def _until_gone(folders: Collection[Path]) -> None:
    """Wait until the agents of these runtime directories, and their supervisors, have ended.

    :raises RayDied: if they have not in time.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + timeouts.DOWN_S
    while left := set(folders).intersection(runtime_dir.locked()):
        if clock() > until:
            what = f"the agent of {min(left)} has not ended within {timeouts.DOWN_S:g} s"
            raise RayDied(what, hint="`ray-bootstrap status` shows it; a second signal ends it at once")
        await asyncio.sleep(timeouts.PROCESS_TABLE_LOOK_AGAIN_S)


async def _status(search: Search, switches: Switches) -> int:
    observer = await _find(search)
    if observer is None:
        ended = search.ended()
        missing = not_found(search)
        text = f"{ended} with {_in_words(ended.verdict)}" if ended else f"{missing.message}\nfix: {missing.hint}"
        print(text, file=sys.stderr)
        return NOT_READY if search.alive else NOT_RUNNING
    if switches.watch:
        verdict = await _watch(observer)
        print(f"run {search.run_id!r} has ended with {_in_words(verdict)}", file=sys.stderr)
        return NOT_RUNNING
    rows = await observer.nodes()
    print(_as_json(observer, rows) if switches.as_json else "\n".join(_as_text(observer, rows)))
    return 0 if _is_ready(observer) else NOT_READY


async def _watch(observer: Observer) -> Verdict:
    """Print the table when something has changed, on a terminal every second, until the run ends; return the verdict.

    :raises RayDied: if the connection to the head is lost.
    """
    shown: object = None
    out = sys.__stdout__
    while out is not None and not observer.ended.done():
        rows = await observer.nodes()
        now = [dataclasses.replace(row, seconds=0) for row in rows], _is_ready(observer)
        if out.isatty() or now != shown:
            out.write(_CLEAR * out.isatty() + "\n".join([*_as_text(observer, rows), ""]))
            out.flush()
        shown = now
        await asyncio.wait({observer.ended}, timeout=timeouts.WATCH_S)
    return await observer.ended


def _is_ready(observer: Observer) -> bool:
    return observer.quorum.done() and not observer.ended.done()


def _unseen(observer: Observer, rows: Sequence[Row]) -> list[int]:
    """Return the ranks that the head has never seen; none where the run's size is unknown."""
    seen = {row.rank for row in rows}
    return [rank for rank in range(observer.size or 0) if rank not in seen]


def _as_text(observer: Observer, rows: Sequence[Row]) -> list[str]:
    up, gcs = sum(row.phase.is_ready for row in rows), observer.gcs.result() if observer.gcs.done() else "not up yet"
    stands = "the cluster stands" if _is_ready(observer) else "not ready"
    run = f"run {observer.hello.run!r}, attempt {observer.hello.attempt}"
    first = f"{run}: {up} of {observer.size or '?'} nodes are up, {stands}; GCS {gcs}"
    return [first, *table(rows, _unseen(observer, rows))]


def _as_json(observer: Observer, rows: Sequence[Row]) -> str:
    whole = {
        "run_id": observer.hello.run,
        "attempt": observer.hello.attempt,
        "size": observer.size,
        "ready": _is_ready(observer),
        "gcs": observer.gcs.result() if observer.gcs.done() else None,
        "unseen": _unseen(observer, rows),
        "nodes": [{**dataclasses.asdict(row), "phase": row.phase.value} for row in rows],
    }
    return json.dumps(whole, indent=2)
