"""The user's commands before Ray (``--setup``): they run on this node, and what they write reaches Ray here."""

import asyncio
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from bootstrap import parsers, timeouts
from bootstrap.errors import SetupFailed
from bootstrap.files import setup as files
from bootstrap.files.runtime_dir import SETUP_ENV
from bootstrap.node.inspection import Node
from bootstrap.raynode import endings
from bootstrap.raynode.environment import DECIDED
from bootstrap.run.context import Context
from bootstrap.settings import PREFIX, variable

T = TypeVar("T")

FILE = PREFIX + "ENV"
"""The variable with the path of the file that the commands write to."""
_RESOURCES, _LABELS = variable("resources"), variable("labels")
_FIX = "mend the command, or what it needs on that node; what it printed is there, after `setup:`"
_PIPE = 64 * 1024
"""Bytes that a pipe holds (pipe(7))."""
_LONGEST_VARIABLE = 128 * 1024
"""Bytes of NAME=value with its end, MAX_ARG_STRLEN (execve(2))."""
_NAMED = 200
"""Characters of a command in messages."""
_LONGEST, _LAST = 8 * 1024, 10
"""Bytes of a line, and the number of a failed command's last lines that the error has."""


async def run_setup(
    run: Context, node: Node, env: Mapping[str, str], report: Callable[[str], None] = lambda _how_far: None
) -> tuple[Node, dict[str, str]]:
    """Run the commands of ``--setup``, unless an earlier attempt of this run has; return what Ray starts with here.

    :param env: the environment of Ray on this node.
    :param report: called with which command runs, if it takes long.
    :returns: the node with the resources and labels that they have written, and the environment with the variables.
    :raises SetupFailed: if a command fails, or writes what is not understood.
    """
    settings, identity = run.settings, node.identity
    if not settings.setup:
        return node, dict(env)
    system = files.system(run.host)
    this = files.Done(identity.run_id, identity.attempt, list(settings.setup), system, "")
    done = files.earlier(this) if settings.setup_again == "no" else None
    if done is not None:
        run.log.say(f"setup: attempt {done.attempt} has run it on this node; --setup-again=yes repeats it")
    else:
        begun = run.seconds
        done = dataclasses.replace(this, written=await _run_all(run, node, env, report))
        run.log.say(f"setup: done after {run.seconds - begun:.1f} s")
    files.save(run.runtime, dataclasses.replace(done, attempt=identity.attempt))
    written = parse(done.written)
    resources = dataclasses.replace(node.resources, custom={**node.resources.custom, **written.resources})
    labels = {**node.settings.labels, **written.labels}
    node = dataclasses.replace(node, resources=resources, settings=dataclasses.replace(node.settings, labels=labels))
    return node, {**env, **written.variables}


@dataclass(frozen=True)
class Written:
    """What the commands have written for Ray on this node."""

    variables: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> Written:
    """Return what the text of the file means.

    :raises ValueError: quoting the line, or the variable that cannot be set there.
    """
    found = parsers.variables(text)
    resources = _option(_RESOURCES, parsers.resources_json, found.pop(_RESOURCES, "{}"))
    labels = _option(_LABELS, parsers.labels, found.pop(_LABELS, ""))
    for name, value in found.items():
        if len(os.fsencode(f"{name}={value}")) >= _LONGEST_VARIABLE:
            raise ValueError(
                f"{name}: {len(value)} characters; Linux takes up to {_LONGEST_VARIABLE} bytes, write a file"
            )
        if name.startswith(PREFIX):
            raise ValueError(f"{name}: of the options only {_RESOURCES} and {_LABELS} can be given there")
        if name in DECIDED:
            raise ValueError(f"{name}: the agent has set it already; set it where ray-bootstrap is started")
    return Written(found, resources, labels)


def _option(name: str, read: Callable[[str], Mapping[str, T]], value: str) -> Mapping[str, T]:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}={parsers.quoted(value)}: {error}") from None


async def _run_all(run: Context, node: Node, env: Mapping[str, str], report: Callable[[str], None]) -> str:
    """Run the commands in order, each with the variables that those before it have written; return all they wrote."""
    path, text, begun = run.runtime.write_private(SETUP_ENV, b""), "", run.seconds
    if path is None:
        what = f"{run.runtime.path / SETUP_ENV} cannot be written: {run.runtime.fault or 'is the disk full?'}"
        raise SetupFailed(what, hint=f"free space in {run.runtime.path.parent}")
    identity = node.identity
    about = {FILE: str(path), variable("run_id"): identity.run_id, variable("rank"): str(identity.rank)}
    about |= {variable("role"): identity.role.value, variable("node_ip"): node.address.ip}
    for number, command in enumerate(run.settings.setup, 1):
        name = _name(command, number, len(run.settings.setup))
        run.log.say(f"setup: {name}")
        await _run_one(run, command, name, {**env, **parse(text).variables, **about}, report)
        try:
            text = run.runtime.read(SETUP_ENV, files.MOST + 1).decode(errors="surrogateescape")
            if len(text) > files.MOST:
                raise ValueError(f"more than {files.MOST} bytes")
            parse(text)
        except (OSError, ValueError) as error:
            what = str(error.strerror if isinstance(error, OSError) else error)
            raise SetupFailed(f"{name} of --setup left ${FILE} unusable: {what}", hint=_FIX) from None
    if run.seconds - begun > timeouts.SLOW_START_S:
        report(f"its setup took {run.seconds - begun:.0f} s")
    return text


def _name(command: str, number: int, count: int) -> str:
    """Return the command as messages name it."""
    first, *more = command.strip().splitlines()
    short = first if len(first) <= _NAMED and not more else f"{first[:_NAMED]} ..."
    return f"`{short}`" + (f" ({number} of {count})" if count > 1 else "")


async def _run_one(
    run: Context, command: str, name: str, env: Mapping[str, str], report: Callable[[str], None]
) -> None:
    """Run a command until its shell ends; what it leaves in the background goes on until the run ends here."""
    output = _Output(lambda line: run.log.say(f"setup: {line}"))
    try:
        child = run.children.spawn(["/bin/sh", "-c", command], env, stdout=output.end, stderr=output.end)
    except OSError as error:
        raise SetupFailed(f"{name}: /bin/sh cannot be executed: {error.strerror}", hint=_FIX) from None
    finally:
        os.close(output.end)
    run.note_processes(run.children.below(child))
    await asyncio.wait([child.exited], timeout=timeouts.SLOW_START_S)
    if not child.exited.done():
        report(f"its setup takes long: {name}")
        await asyncio.wait([child.exited])
    output.flush()
    if child.exited.result():
        # A signal to all processes may have ended it; then the agent gets it, too, and it is the reason.
        await asyncio.sleep(timeouts.DAEMON_OR_SIGNAL_S)
        how = endings.describe({f"{name} of --setup": child.wait_status}, run.oom.since())
        what = "\n".join([how, *output.last])
        raise SetupFailed(what, hint=endings.remedy_of(what) or _FIX)


class _Output:
    """A pipe for what a command prints: passes its lines on, also once its shell has ended, and keeps the last ones."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.last: deque[str] = deque(maxlen=_LAST)
        self._say, self._rest = say, b""
        self._reading, self.end = os.pipe()
        os.set_blocking(self._reading, False)
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def flush(self) -> None:
        """Pass on all that was printed by now, also a last line that does not end."""
        if self._reading >= 0:
            self._read()
        self._pass_on(self._rest)
        self._rest = b""

    def _read(self) -> None:
        try:
            data = os.read(self._reading, _PIPE)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._pass_on(line)
        if len(self._rest) > _LONGEST or not data:
            self._pass_on(self._rest)
            self._rest = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            self._reading = -1

    def _pass_on(self, line: bytes) -> None:
        """Pass on what a terminal would show of a line: a progress bar returns to its beginning."""
        text = line.rstrip().rpartition(b"\r")[2].decode(errors="replace")[:_LONGEST]
        if text:
            self.last.append(text)
            self._say(text)
