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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bootstrap import timeouts
from bootstrap.errors import RayStartFailed
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.process.children import Child, Children
from bootstrap.process.table import Process, ending, zombies
from bootstrap.raynode.session import causes_since, daemons

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
    versions: Mapping[str, str] | None = None

    @classmethod
    async def spawn(cls, children: Children, env: Mapping[str, str]) -> Starter:
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
        return cls(child, os.fdopen(in_write, "wb", buffering=0), answers, transport, output)

    async def ready(self) -> Mapping[str, str]:
        """Return the versions of Ray and Python once Ray is imported. :raises RayStartFailed: if the import fails."""
        if self.versions is None:
            self.versions = await self._answer()
            if not self.versions.get("ready"):
                hint = "pip install 'ray[default]' into the Python that runs ray-bootstrap"
                raise RayStartFailed(f"Ray cannot be imported: {self.versions.get('error')}", hint=hint)
        return self.versions

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
        how = ending(self.child.wait_status)
        raise RayStartFailed(f"the process that starts Ray {how}\n{self.printed()}".rstrip())

    def printed(self, lines: int = 20) -> str:
        """Return the last ``lines`` lines that Ray printed."""
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, 64 * 1024, max(0, size - 64 * 1024)).decode(errors="replace")
        return "\n".join(_COLOUR.sub("", text).splitlines()[-lines:])

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
    ended: list[Process] = []
    try:
        while not (starting.done() or ended):
            await asyncio.wait([starting], timeout=timeouts.START_LOOK_AGAIN_S)
            look()
            ended = daemons(zombies(starter.child.pid))
        faults = [f"{daemon.name} {ending(daemon.wait_status)}" for daemon in ended]
        if starting.done() and "error" in (answer := starting.result()):
            faults.append(answer["error"])
    finally:
        starting.cancel()
    if faults:
        cause: list[str] = []
        with contextlib.suppress(TimedOut):
            cause = await run_in_thread(timeouts.READ_LOGS_S, lambda: causes_since(ray_dir, begun))
        cause = cause or [starter.printed()]
        what = "\n".join([f"`ray start` failed: {'; '.join(faults)}", *cause]).rstrip()
        raise RayStartFailed(what, hint="see the cause above; the last line names Ray's logs")
