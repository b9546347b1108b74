"""Remove what a run leaves on this node.

The agent does so at its end, its supervisor if the agent was killed, and the same user's next run if all were. All
call :func:`remove`, so that every run exercises the path that a crash needs.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from bootstrap import timeouts
from bootstrap.files import claim, ownership, runtime_dir
from bootstrap.files.manifest import Manifest, remove_owned_files
from bootstrap.process import table
from bootstrap.process.bounded import Call, TimedOut
from bootstrap.process.table import Process, descendants, is_own
from bootstrap.raynode.session import Held, daemons, observe, own_sessions, remove_session, remove_sockets, session_of

_MOST_RESULTS = 64
"""Results of runs without logs that stay: many tasks of a job array may fail at once, each with a script that waits."""


def remove(folder: Path, manifest: Manifest, held: Held) -> tuple[Path | None, list[str]]:
    """Remove what ``manifest`` and ``held`` name, and the runtime directory except the result and Ray's logs.

    After a failure the manifest stays, so that the next run can try again.

    :param folder: the runtime directory.
    :returns: where Ray's logs are, if there are any, and what went wrong, a line each.
    """
    if manifest.claim:
        claim.remove_left(Path(manifest.claim))
    runtime_dir.remove_files(folder, runtime_dir.STATE)  # first: the cleaner's lock must not make the agent look alive
    shared = Call(lambda: remove_owned_files(manifest))
    local = Call(lambda: remove_sessions(manifest, held))
    faults: list[str] = []
    where = ", ".join(sorted({str(Path(path).parent) for path in manifest.owned_files}))
    _await(shared, timeouts.SHARED_FOLDER_S, where, faults)
    logs = _await(local, timeouts.REMOVE_SESSION_S, str(folder), faults)
    runtime_dir.remove_files(folder, *runtime_dir.PRIVATE, *([] if faults else [runtime_dir.MANIFEST]))
    with contextlib.suppress(OSError):  # not empty if there are logs or a result
        folder.rmdir()
    return logs, faults


def _await(call: Call[Path | None] | Call[None], seconds: float, where: str, faults: list[str]) -> Path | None:
    try:
        return call.result(seconds)
    except (TimedOut, OSError) as error:
        faults.append(str(error)[:300] or f"{where} timed out after {seconds:g} s")
        return None


def remove_sessions(manifest: Manifest, held: Held) -> Path | None:
    """Remove this run's sockets, and its sessions except their logs; return where the last logs are, if any."""
    remove_sockets(sorted(held.sockets))
    sessions, kept = sorted(own_sessions(manifest, held)), []
    if manifest.closed_dir:
        closed = Path(manifest.closed_dir)
        with contextlib.suppress(OSError):
            kept = _remove_closed(closed, [each for each in sessions if each.is_relative_to(closed)], manifest.gcs)
        # Ray 2.52 puts a worker's session where the head's is.
        sessions = [each for each in sessions if not each.is_relative_to(closed)]
    kept += [session / "logs" for session in sessions if remove_session(session, manifest.gcs)]
    return kept[-1] if kept else None


def _remove_closed(closed: Path, sessions: Sequence[Path], gcs: str) -> list[Path]:
    """Remove the sessions below a closed folder, and the folder if no logs are left; return the folders of logs.

    Through a descriptor: who owns a folder above may have put a link in its place.

    :raises OSError: if it is gone, or no longer closed and this user's.
    """
    with ownership.opened(closed, closed=True) as folder:
        here = Path(f"/proc/self/fd/{folder}")
        kept = [session / "logs" for session in sessions if remove_session(here / session.relative_to(closed), gcs)]
        if not kept:
            shutil.rmtree(here / runtime_dir.RAY, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty if there are logs, or the manifest
        closed.rmdir()
    return kept


def end_survivors(log: Callable[[str], None]) -> Mapping[Path, Held]:
    """End the processes of runs whose agents and supervisors were all killed; return what they held, by run.

    :param log: called with a line for the user for each such run.
    """
    held: dict[Path, Held] = {}
    with runtime_dir.ended() as folders:
        for folder in folders:
            found = _survivors(Manifest.load(folder / runtime_dir.MANIFEST))
            if not found:
                continue
            held[folder] = observe(found)
            known = [(process.pid, process.started) for process in found]
            pause = partial(time.sleep, timeouts.PROCESS_TABLE_LOOK_AGAIN_S)
            killed, left = table.kill(partial(table.in_sessions_of, known), pause)
            names = ", ".join(sorted({process.name for process in found}))
            count = "1 process" if killed == 1 else f"{killed} processes"
            more = f"; {len(left)} could not be killed" if left else ""
            log(f"ended {count} ({names}) of an earlier run whose agent was killed: {folder}{more}")
    return held


def _survivors(manifest: Manifest) -> list[Process]:
    """Return the living processes of a run that has ended."""
    if manifest.pid_scope != table.pid_scope():
        return []
    known = [(pid, started) for pid, started in manifest.processes]
    if manifest.closed_dir and not manifest.session:  # killed during `ray start`, perhaps before its daemons were noted
        sessions = own_sessions(manifest, Held())
        found = [process for process in filter(is_own, daemons(descendants(0))) if session_of(process) in sessions]
        known += [(process.pid, process.started) for process in found]
    return table.in_sessions_of(known)


def remove_ended_runs(keep: int, log: Callable[[str], None], survivors: Mapping[Path, Held] | None = None) -> None:
    """Clean up after agents that were killed with their supervisors, and remove old logs and results.

    :param keep: number of ended runs, the newest, whose logs stay; 0 keeps all.
    :param log: called with a line for the user if logs were removed.
    :param survivors: what the processes of such runs held (:func:`end_survivors`).
    """
    live = set(filter(None, map(session_of, filter(is_own, daemons(descendants(0))))))
    kept: list[Path] = []
    with runtime_dir.ended() as folders:
        for folder in folders:
            manifest = Manifest.load(folder / runtime_dir.MANIFEST)
            if _is_used(folder, manifest, live) or remove(folder, manifest, (survivors or {}).get(folder, Held()))[1]:
                continue  # Ray outlived its agents, or a shared folder does not answer: the next run tries again
            if any((folder / name).exists() for name in (runtime_dir.RAY, runtime_dir.AGENT_LOG, runtime_dir.SETUP)):
                kept.append(folder)
        old = kept[keep:] if keep else []
        for folder in old:
            shutil.rmtree(folder / runtime_dir.RAY, ignore_errors=True)
            runtime_dir.remove_files(folder, *runtime_dir.STAYS)
            with contextlib.suppress(OSError):  # it holds files that are not ours
                folder.rmdir()
    _remove_old_results()
    if old:
        runs = "1 ended run" if len(old) == 1 else f"{len(old)} ended runs"
        newest = f"those of the newest {keep} stay in {runtime_dir.PARENT}/{runtime_dir.PREFIX}*"
        log(f"removed Ray's logs of {runs}; {newest}")


def _remove_old_results() -> None:
    """Remove the results without logs that are too old to be believed, and all but the newest of the others."""
    bare = 0
    for when, folder, _ in runtime_dir.results():
        with contextlib.suppress(OSError):  # another run is faster
            if not runtime_dir.is_bare(folder):
                continue
            bare += 1
            if bare > _MOST_RESULTS or time.time() - when > timeouts.END_KEPT_S:
                runtime_dir.remove_files(folder, runtime_dir.RESULT)
                folder.rmdir()


def _is_used(folder: Path, manifest: Manifest, live: Collection[Path]) -> bool:
    """Return whether one of the ``live`` raylets may be this run's, whose agents have ended."""
    if manifest.session:
        return Path(manifest.session) in live
    return any(session.parent in (folder / runtime_dir.RAY, Path(manifest.ray_dir)) for session in live)
