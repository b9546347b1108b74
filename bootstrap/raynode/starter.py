"""The process that starts Ray, seen from the agent, and what it printed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bootstrap import timeouts
from bootstrap.errors import RayStartFailed
from bootstrap.process.children import Child, Children
from bootstrap.raynode.session import causes_since

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Starter:
    """The process of :mod:`bootstrap.raynode.child_main`, seen from the agent; one question at a time."""

    child: Child
    commands: IO[bytes]
    answers: asyncio.StreamReader
    transport: asyncio.BaseTransport
    output: int
    """A memfd with all that Ray printed; Ray's daemons may hold it too, which disturbs nobody."""
    versions: Mapping[str, str] | None = None

    @classmethod
    async def spawn(cls, children: Children, env: Mapping[str, str]) -> Starter:
        """Start the child, which begins to import Ray at once."""
        output = os.memfd_create("ray-start")
        reading, writing = os.pipe()
        in_read, in_write = os.pipe()
        # Not -m, which would put the working directory before Ray's own modules: a user's queue.py, say.
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
        """Return the versions of Ray and Python, once Ray is imported. :raises RayStartFailed: if it cannot be."""
        if self.versions is None:
            self.versions = await self._answer()
            if not self.versions.get("ready"):
                hint = "pip install 'ray[default]' into the Python that runs ray-bootstrap"
                raise RayStartFailed(f"Ray cannot be imported: {self.versions.get('error')}", hint=hint)
        return self.versions

    async def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send one command and return its answer."""
        await self.ready()
        with contextlib.suppress(BrokenPipeError):
            self.commands.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        line = await self.answers.readline()
        if line:
            return dict(json.loads(line))
        status = await self.child.exited
        raise RayStartFailed(f"the process that starts Ray ended with status {status}\n{self.printed()}".rstrip())

    def printed(self, lines: int = 20) -> str:
        """Return the last lines of what Ray printed."""
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, 64 * 1024, max(0, size - 64 * 1024)).decode(errors="replace")
        return "\n".join(_COLOUR.sub("", text).splitlines()[-lines:])

    async def end(self) -> None:
        """End it once it is no longer needed (65 MB); Ray's daemons become the agent's children."""
        self.commands.close()
        self.transport.close()
        await asyncio.wait([self.child.exited], timeout=timeouts.STARTER_END_S)
        if not self.child.exited.done():
            os.kill(self.child.pid, signal.SIGKILL)  # it alone: Ray's daemons are in its process group
        os.close(self.output)


async def start(starter: Starter, argv: Sequence[str], env: Mapping[str, str], ray_dir: Path) -> None:
    """Run ``ray start`` and return when this node is registered in GCS.

    :raises RayStartFailed: with what Ray printed and the last errors in its log files.
    """
    begun = time.time()
    answer = await starter.ask("start", argv=list(argv), env=dict(env))
    if not answer["started"]:
        cause = causes_since(ray_dir, begun) or [starter.printed()]
        what = "\n".join([f"`ray start` failed: {answer['error']}", *cause])
        raise RayStartFailed(what, hint="the cause is above; Ray's logs, in the last line, have the rest")
