"""``exec``: run a command with what it takes to use the run of this user that is up on this node."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from bootstrap.errors import HeadNotFound, UsageError
from bootstrap.files import runtime_dir
from bootstrap.host import Host
from bootstrap.settings import Settings

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit statuses of a shell for a command that it cannot start (POSIX 2.8.2)."""


def execute(settings: Settings, host: Host, _as_json: bool) -> int:
    """Become the command after ``--``, or this user's shell, with RAY_ADDRESS and Ray's token and certificate set.

    :returns: 126 or 127, if the command cannot be started.
    :raises HeadNotFound: if this user has no run here (or not that of ``--run-id``), or its Ray is not up yet.
    :raises UsageError: if there are several.
    """
    state = _the_run(settings.run_id)
    argv = settings.workload or (host.get("SHELL") or shutil.which("bash") or "/bin/sh",)
    variables = dict(word.partition("=")[::2] for word in shlex.split(state["use"]))
    try:
        _become(argv, {**host.env, **variables})
    except OSError as error:
        print(f"ray-bootstrap: {argv[0]!r} cannot be executed: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


def _become(argv: tuple[str, ...], env: Mapping[str, str]) -> NoReturn:
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would outlive the exec
        signal.signal(signum, signal.SIG_DFL)
    os.execvpe(argv[0], argv, env)  # noqa: S606


def _the_run(run_id: str | None) -> Mapping[str, Any]:
    """Return the state of an agent of the one run of this user that is up here."""
    running = {state.get("run_id"): state for state in runtime_dir.running()}
    up = [state for state in runtime_dir.running() if isinstance(state.get("use"), str)]
    found = {state.get("run_id"): state for state in up if run_id in (None, state.get("run_id"))}
    if len(found) > 1:
        ids = ", ".join(sorted(map(repr, found)))
        raise UsageError([f"this user has {len(found)} runs here: {ids}"], hint="name one: --run-id=ID")
    if found:
        return next(iter(found.values()))
    waiting = [state for state in running.values() if run_id in (None, state.get("run_id"))]
    if waiting:
        what = f"Ray of run {waiting[0].get('run_id')!r} is not up on this node yet: {waiting[0].get('phase')}"
        raise HeadNotFound(what, hint="wait; `ray-bootstrap status` shows how far it is")
    others = f"; here are {', '.join(sorted(map(repr, running)))}" if running else ""
    which = "no run" if run_id is None else f"no run {run_id!r}"
    look = "as the user who started it, on one of its nodes, in its container: ray-bootstrap status"
    raise HeadNotFound(f"this user has {which} on this machine{others}", hint=look)
