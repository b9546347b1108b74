"""Ray on this node: the command line of ``ray start`` (pure), its start, its daemons, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bootstrap.children import Child, Children
from bootstrap.errors import RayStartFailed
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role, join_host_port
from bootstrap.process import Process
from bootstrap.ray_ports import HEAD_ONLY
from bootstrap.settings import Settings

RUN_LABEL, RANK_LABEL = "ray-bootstrap/run", "ray-bootstrap/rank"
"""Node labels by which the quorum knows this run's nodes, and their ranks, in GCS's table."""
DAEMONS = ("gcs_server", "raylet")
"""Names in /proc/PID/stat of the processes whose end is the end of the node."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHM_MINIMUM = 80 * 1024 * 1024
"""Below Ray's own least object store (75 MB, ray_constants.py) the choice is left to Ray."""
_OBJECT_STORE_SHARE, _SHM_SHARE, _OBJECT_STORE_MOST = 0.3, 0.95, 200 * 10**9
"""Ray's own defaults (ray_constants.py), applied to what this node was really granted."""


def run_hash(run_id: str) -> str:
    """16 hex digits for places where a run id, free text, cannot stand."""
    return hashlib.sha256(run_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def temp_dir(settings: Settings, identity: NodeIdentity) -> Path:
    """Ray's folder: the user's, or one of this run's own, short enough for socket paths below it (107 bytes in all)."""
    which = f"x{os.getpid()}" if identity.rank is None else identity.rank  # two ranks may be on one machine
    return Path(settings.temp_dir or f"/tmp/ray-{run_hash(identity.run_id)[:8]}-{which}")  # noqa: S108 (sticky; checked to be ours)


def start_argv(
    settings: Settings,
    identity: NodeIdentity,
    address: NodeAddress,
    resources: Resources,
    folder: Path,
    ports: Mapping[str, int],
    gcs_address: str | None,
    shm_free: int,
) -> list[str]:
    """What follows ``ray start``.

    :param folder: Ray's.
    :param ports: from :func:`bootstrap.ray_ports.choose`.
    :param gcs_address: for a worker, ``host:port`` of the head's GCS; None for the head.
    :param shm_free: bytes free in /dev/shm.
    """
    head = identity.role is Role.HEAD
    labels = {**settings.labels, RUN_LABEL: run_hash(identity.run_id), RANK_LABEL: str(identity.rank)}
    argv = ["--head", f"--port={ports['gcs_port']}"] if head else [f"--address={gcs_address}"]
    argv += [f"--node-ip-address={address.ip}", f"--temp-dir={folder}"]
    argv += [f"--num-cpus={resources.cpus}", f"--num-gpus={resources.num_gpus}"]
    argv += memory_argv(settings, resources, shm_free)
    if resources.custom:
        argv.append(f"--resources={json.dumps(dict(resources.custom), sort_keys=True)}")
    argv.append("--labels=" + ",".join(f"{key}={value}" for key, value in sorted(labels.items())))
    if head:
        argv.append(f"--dashboard-host={settings.dashboard_host}")
    argv += [
        f"--{name.replace('_', '-')}={port}"
        for name, port in ports.items()
        if name != "gcs_port" and (head or name not in HEAD_ONLY)
    ]
    if head:
        argv.append("--disable-usage-stats")
    return [*argv, *settings.ray_start_arg]


def memory_argv(settings: Settings, resources: Resources, shm_free: int) -> Iterator[str]:
    """How much is for the object store, which must fit into /dev/shm or it goes to disk, and how much for the rest."""
    store = settings.object_store_memory
    if store is None and shm_free >= SHM_MINIMUM:
        store = int(min(resources.memory * _OBJECT_STORE_SHARE, shm_free * _SHM_SHARE, _OBJECT_STORE_MOST))
    if store is not None:
        yield f"--object-store-memory={store}"
    if settings.memory is not None:
        yield f"--memory={settings.memory}"
    elif store is not None:
        yield f"--memory={max(resources.memory - store, 1)}"


@dataclass
class RayChild:
    """The process of :mod:`bootstrap.ray_child`, seen from the agent; one question at a time."""

    child: Child
    commands: IO[bytes]
    answers: asyncio.StreamReader
    transport: asyncio.BaseTransport
    output: int
    """A memfd with all that Ray printed; Ray's daemons may hold it too, which disturbs nobody."""
    versions: Mapping[str, str] | None = None

    @classmethod
    async def spawn(cls, children: Children, env: Mapping[str, str]) -> RayChild:
        """Start the child, which begins to import Ray at once."""
        output = os.memfd_create("ray-start")
        reading, writing = os.pipe()
        in_read, in_write = os.pipe()
        # Not -m, which would put the working directory before Ray's own modules: a user's queue.py, say.
        program = "import sys; '' in sys.path and sys.path.remove(''); from bootstrap.ray_child import main; main()"
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
        """The versions of Ray and Python, once Ray is imported. :raises RayStartFailed: if it cannot be."""
        if self.versions is None:
            self.versions = await self._answer()
            if not self.versions.get("ready"):
                hint = "pip install 'ray[default]' into the Python that runs ray-bootstrap"
                raise RayStartFailed(f"Ray cannot be imported: {self.versions.get('error')}", hint=hint)
        return self.versions

    async def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Send one command and wait for its answer."""
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
        """The last lines of what Ray printed."""
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, 64 * 1024, max(0, size - 64 * 1024)).decode(errors="replace")
        return "\n".join(_COLOUR.sub("", text).splitlines()[-lines:])

    async def end(self) -> None:
        """Let it go: it is needed no more (65 MB), and Ray's daemons become the agent's children."""
        self.commands.close()
        self.transport.close()
        await asyncio.wait([self.child.exited], timeout=2)
        if not self.child.exited.done():
            os.kill(self.child.pid, signal.SIGKILL)  # it alone: Ray's daemons are in its process group
        os.close(self.output)


async def start(ray: RayChild, argv: Sequence[str], env: Mapping[str, str], folder: Path, before: float) -> None:
    """Run ``ray start`` and return when this node is registered in GCS.

    :param before: time (epoch) before which logs in ``folder`` are another run's.
    :raises RayStartFailed: with what Ray printed and the last errors in its log files.
    """
    answer = await ray.ask("start", argv=list(argv), env=dict(env))
    if not answer["started"]:
        cause = [
            f"`ray start` failed: {answer['error']}",
            *(line for s in sessions(folder, before) for line in causes(s)),
        ]
        if len(cause) == 1:
            cause.append(ray.printed())
        raise RayStartFailed("\n".join(cause), hint="the cause is above; Ray's logs, in the last line, have the rest")


def sessions(folder: Path, since: float) -> list[Path]:
    """Ray's sessions in its ``--temp-dir`` that were written to since then (epoch)."""
    return [session for session in folder.glob("session_2*") if session.stat().st_mtime >= since]


def causes(session: Path, most: int = 8) -> list[str]:
    """The last error lines out of the log files of Ray's daemons, each with its file's name, for people."""
    found: list[str] = []
    names = ("gcs_server.err", "gcs_server.out", "raylet.err", "raylet.out", "dashboard_agent.log")
    for log in (session / "logs" / name for name in names):
        with contextlib.suppress(OSError):
            lines = log.read_text(errors="replace").splitlines()[-200:]
            telling = [line for line in lines if _tells(line)]
            found += [f"{log.name}: {line.strip()[:300]}" for line in telling[-3:]]
    return found[-most:]


def _tells(line: str) -> bool:
    return any(
        word in line for word in (" C ", " E ", "ERROR", "Error:", "Check failed", "terminated", "already in use")
    )


def daemons(processes: Sequence[Process]) -> list[Process]:
    """Those of ``processes`` whose end is the end of this Ray node."""
    return [p for p in processes if p.name in DAEMONS]


def gcs_address(address: NodeAddress, ports: Mapping[str, int]) -> str:
    """Under which the head's GCS is reached."""
    return join_host_port(address.ip, ports["gcs_port"])


def shm_free() -> int:
    """Bytes free in /dev/shm; 0 where there is none."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108 (Ray's object store lives there)
    except OSError:
        return 0
