"""``exec`` and ``env``: what it takes to use the run of this user that is up on this node, for a command or a shell."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import Any

from bootstrap.errors import BootstrapError, HeadNotFound, UsageError
from bootstrap.files import runtime_dir
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.process.executable import NOT_EXECUTABLE, find_fault
from bootstrap.settings import Settings
from bootstrap.switches import Switches


def execute(settings: Settings, host: Host, _switches: Switches) -> int:
    """Become the command after ``--``, or this user's shell, with RAY_ADDRESS and Ray's token and certificate set.

    :returns: 126 or 127, as a shell does, if the command cannot be started.
    :raises HeadNotFound: if this user has no run here (or not that of ``--run-id``), or its Ray is not up yet.
    :raises UsageError: if there are several.
    """
    variables = dict(word.split("=", 1) for word in shlex.split(_the_run(settings.run_id)["use"]))
    argv = settings.workload or (host.get("SHELL") or shutil.which("bash") or "/bin/sh",)
    env = {**host.env, **variables}
    status, what = find_fault(argv, env) or _become(argv, env)
    print(f"ray-bootstrap: {what}", file=sys.stderr)
    return status


def show(settings: Settings, _host: Host, _switches: Switches) -> int:
    """Print the same variables as a command for a shell: the path of Ray's token, never the token.

    :raises HeadNotFound, UsageError: as :func:`execute`. The printed command fails then, since a shell that evaluates
        it does not see this program's status.
    """
    try:
        print(f"export {_the_run(settings.run_id)['use']}")
    except BootstrapError:
        print("false")
        raise
    return 0


def _become(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[int, str]:
    """Run the command in the place of this process; return the exit status and the reason if that fails."""
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would outlive the exec
        signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606
    except OSError as error:
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: {error.strerror}"


def _the_run(run_id: str | None) -> Mapping[str, Any]:
    """Return the state of an agent of the one run of this user that is up here."""
    states = runtime_dir.running()
    here = [state for state in states if run_id in (None, state.get("run_id"))]
    up = {state.get("run_id"): state for state in here if isinstance(state.get("use"), str)}
    if len(up) > 1:  # what is attached to a Ray may be to that of a run beside it
        up = {name: state for name, state in up.items() if state.get("role") != Role.DRIVER.value} or up
    if len(up) > 1:
        ids = ", ".join(sorted(map(repr, up)))
        raise UsageError([f"this user has {len(up)} runs here: {ids}"], hint="name one: --run-id=ID")
    if up:
        return next(iter(up.values()))
    if here:
        what = f"Ray of run {here[0].get('run_id')!r} is not up on this node yet: {here[0].get('phase')}"
        raise HeadNotFound(what, hint="wait; `ray-bootstrap status` shows how far it is")
    hint = "as the user who started it, on one of its nodes, in its container; `ray-bootstrap -- COMMAND` starts one"
    raise HeadNotFound(runtime_dir.no_run(run_id, states), hint=hint)
