"""The agent's side of the process that starts Ray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bootstrap import timeouts
from bootstrap.cgroup import OomCount
from bootstrap.errors import RayStartFailed, with_tracebacks, without_tracebacks
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.process.children import Child, Children
from bootstrap.process.table import zombies
from bootstrap.raynode import endings
from bootstrap.raynode.session import causes_since, daemons

_PRINTED, _SHOWN = 200, 20
"""Lines of Ray's output that are read after a failure, where a traceback is seen whole, and those that are shown."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Starter:
    """A handle to the process of :mod:`bootstrap.raynode.child_main`, which answers one command at a time."""

    child: Child
    commands: IO[bytes]
    answers: asyncio.StreamReader
    transport: asyncio.BaseTransport
    output: int
    """A memfd with everything that Ray printed. Ray's daemons may keep it open, which does no harm."""
    oom: OomCount
    began: float = field(default_factory=time.monotonic)
    """When the import of Ray began."""
    on_imported: Callable[[float], None] = lambda _when: None
    """Called with when it ended, on the monotonic clock, once that is known."""
    versions: Mapping[str, str] | None = None
    _importing: asyncio.Future[Mapping[str, str]] | None = None

    @classmethod
    async def spawn(cls, children: Children, env: Mapping[str, str], oom: OomCount) -> Starter:
        """Start the child, which imports Ray at once, and return its handle."""
        output = os.memfd_create("ray-start")
        reading, writing = os.pipe()
        in_read, in_write = os.pipe()
        # Not -m: it puts the working directory first on sys.path, where a user's queue.py would shadow the stdlib's.
        program = (
            "import sys; '' in sys.path and sys.path.remove(''); from bootstrap.raynode.child_main import main; main()"
        )
        argv = [sys.executable, "-c", program, str(writing)]
        child = children.spawn(argv, env, stdin=in_read, stdout=output, stderr=output, pass_fds=(writing,))
        os.close(writing)
        os.close(in_read)
        loop, answers = asyncio.get_running_loop(), asyncio.StreamReader(limit=64 * 1024 * 1024)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(answers), os.fdopen(reading, "rb", buffering=0)
        )
        return cls(child, os.fdopen(in_write, "wb", buffering=0), answers, transport, output, oom)

    async def ready(self) -> Mapping[str, str]:
        """Return the versions of Ray and Python once Ray is imported. :raises RayStartFailed: if the import fails."""
        if self._importing is None:  # the first caller may give up while another waits
            self._importing = asyncio.ensure_future(self._versions())
            self._importing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._importing)

    async def _versions(self) -> Mapping[str, str]:
        versions = await self._answer()
        if not versions.get("ready"):
            hint = "pip install 'ray[default]' into the Python that runs ray-bootstrap"
            raise RayStartFailed(f"Ray cannot be imported: {versions.get('error')}", hint=hint)
        self.on_imported(versions.pop("at"))
        self.versions = versions
        return versions

    async def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send one command and return its answer. :raises RayStartFailed: if the process ends before it answers."""
        await self.ready()
        with contextlib.suppress(BrokenPipeError):
            self.commands.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        line = await self.answers.readline()
        if line:
            return dict(json.loads(line))
        await self.child.exited
        how = endings.describe({"the process that starts Ray": self.child.wait_status}, self.oom.since())
        what = "\n".join([how, *self.said()])
        raise RayStartFailed(what, hint=endings.remedy(what), details=with_tracebacks(self.printed()))

    def said(self) -> list[str]:
        """Return the last lines that Ray printed, with the line of the error in the place of each traceback."""
        return without_tracebacks(self.printed()).splitlines()[-_SHOWN:]

    def printed(self) -> str:
        """Return the last lines that Ray printed."""
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, 64 * 1024, max(0, size - 64 * 1024)).decode(errors="replace")
        return "\n".join(_COLOUR.sub("", text).splitlines()[-_PRINTED:])

    async def end(self) -> None:
        """End the process to free its 65 MB; Ray's daemons become the agent's children."""
        self.commands.close()
        self.transport.close()
        await asyncio.wait([self.child.exited], timeout=timeouts.STARTER_END_S)
        if not self.child.exited.done():
            os.kill(self.child.pid, signal.SIGKILL)  # not its process group, which Ray's daemons share
        os.close(self.output)


async def start(
    starter: Starter, argv: Sequence[str], env: Mapping[str, str], ray_dir: Path, look: Callable[[], None]
) -> None:
    """Run ``ray start`` and return once this node is registered in GCS.

    :param look: called while it runs, whenever new processes may have appeared.
    :raises RayStartFailed: with how GCS or raylet ended, if one did, and the last errors in Ray's log files, or else
        what Ray printed.
    """
    begun = time.time()
    starting = asyncio.ensure_future(starter.ask("start", argv=list(argv), env=dict(env)))
    ended: dict[str, int | None] = {}
    try:
        while not (starting.done() or ended):
            await asyncio.wait([starting], timeout=timeouts.START_LOOK_AGAIN_S)
            look()
            ended = {daemon.name: daemon.wait_status for daemon in daemons(zombies(starter.child.pid))}
        error = str(starting.result().get("error", "")) if starting.done() else ""
    finally:
        starting.cancel()
    if ended or error:
        cause: list[str] = []
        with contextlib.suppress(TimedOut):
            cause = await run_in_thread(timeouts.READ_LOGS_S, lambda: causes_since(ray_dir, begun))
        raise _failure(starter, ended, error, cause)


def _failure(starter: Starter, ended: Mapping[str, int | None], error: str, cause: Sequence[str]) -> RayStartFailed:
    oom, printed = starter.oom.since() if ended else "", starter.printed()
    how = "; ".join(filter(None, [endings.describe(ended, oom) if ended else "", error]))
    if not cause and (ended or error.startswith("SystemExit")):  # any other error says why
        cause = starter.said()
    what = "\n".join([f"`ray start` failed: {how}", *(line for line in cause if line != error)])
    return RayStartFailed(what, hint=endings.remedy(what), details=with_tracebacks(printed))
