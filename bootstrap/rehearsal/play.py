"""Start every node's agent, keep the timetable of the faults, pass signals on, and see how all end."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap.files.runtime_dir import PARENT, RESULT, STATE, RuntimeDir, own_folders
from bootstrap.log import Log
from bootstrap.model import Phase
from bootstrap.process import signals
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.rehearsal.faults import Fault, Faults
from bootstrap.rehearsal.nodes import Node
from bootstrap.rehearsal.output import Output

_LOOK_AGAIN_S = 0.2
"""Delay between looks for the start of the workload, if a fault waits for it."""
_LAST_LINES_S = 1.0
"""Limit for the last lines of an agent that has ended: what it left behind may hold its pipe."""
_PATIENCE = 3
"""Signals that are passed on; the next one kills the nodes."""
_HAPPENS = {"kill": "is killed", "stop": "gets SIGTERM", "cut": "is cut off"}


@dataclass(frozen=True)
class Part:
    """A node and what is started on it."""

    node: Node
    argv: Sequence[str]
    env: Mapping[str, str]
    run: str | None = None
    """The run's id, if files of other runs may lie beside its own."""


@dataclass(frozen=True)
class Ending:
    """How one node's agent ended."""

    rank: int
    name: str
    status: int | None
    """As a shell shows it; None if it never started."""
    why: str
    seconds: float
    """From the start of the first node."""


@dataclass
class Play:
    """A rehearsal in progress.

    :param connect: plugs a node's cable in (True) or pulls it; without hosts no fault asks for it.
    """

    parts: Sequence[Part]
    faults: Faults
    log: Log
    output: Output
    connect: Callable[[int, bool], None]
    _agents: dict[int, "subprocess.Popen[Any]"] = field(default_factory=dict)
    _killed: dict[int, str] = field(default_factory=dict)
    """What has killed a node, by rank."""
    _to_come: list[Fault] = field(default_factory=list)
    _signals: int = 0
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _workload: asyncio.Event = field(default_factory=asyncio.Event)
    _begun: float = 0.0

    async def run(self) -> list[Ending]:
        """Return how each node ended, by rank."""
        loop = asyncio.get_running_loop()
        self._begun, self._to_come = loop.time(), self.faults.timetable
        for signum in signals.stopping():
            loop.add_signal_handler(signum, self._on_signal, signum)
        beside = [asyncio.ensure_future(self._cause(fault)) for fault in self._to_come]
        if any(fault.in_workload for fault in self._to_come):
            beside.append(asyncio.ensure_future(self._look_for_workload()))
        try:
            endings = await asyncio.gather(*(self._play(rank) for rank in range(len(self.parts))))
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        for fault in self._to_come:
            self.log.warn(f"{fault.text} has not happened: the run ended before")
        return endings

    def _seconds(self) -> float:
        return asyncio.get_running_loop().time() - self._begun

    async def _play(self, rank: int) -> Ending:
        part, name = self.parts[rank], self.parts[rank].node.name
        for late in self.faults.of(rank, "late"):
            self.log.say(f"{late.text}: {name} starts {late.seconds:g} s after the others")
            with contextlib.suppress(TimedOut):
                await wait_for(late.seconds, self._stopped.wait())
            if why := self._killed.get(rank) or ("the rehearsal was stopped" if self._stopped.is_set() else ""):
                return Ending(rank, name, None, f"never started: {why}", self._seconds())
        pipe = subprocess.PIPE
        agent = part.node.popen(part.argv, env=part.env, cwd=str(Path.cwd()), stdout=pipe, stderr=pipe)
        self._agents[rank] = agent
        streams = ((agent.stdout, sys.stdout), (agent.stderr, sys.stderr))
        copies = [self.output.copy(pipe, name, rank, stream) for pipe, stream in streams if pipe is not None]
        copying = {asyncio.ensure_future(run_in_thread(None, copy.run)) for copy in copies}
        await _ended(agent)
        seconds = self._seconds()
        why = self._killed.get(rank) or self._reason(rank)
        while copying:
            _, copying = await asyncio.wait(copying, timeout=_LAST_LINES_S)
            if self._signals or not any(copy.writing for copy in copies):
                break  # a slow reader gets the rest, unless the user has seen enough
        status = agent.wait()
        return Ending(rank, name, 128 - status if status < 0 else status, why, seconds)

    async def _cause(self, fault: Fault) -> None:
        """Make a fault happen when it is due."""
        if fault.in_workload:
            await self._workload.wait()
        begun = asyncio.get_running_loop().time() if fault.in_workload else self._begun
        await asyncio.sleep(begun + fault.at - asyncio.get_running_loop().time())
        self._to_come.remove(fault)
        name, agent = self.parts[fault.rank].node.name, self._agents.get(fault.rank)
        if fault.rank in self._killed or (agent.poll() is not None if agent else fault.kind == "stop"):
            self.log.warn(f"{fault.text} has not happened: {name} was not running after {self._seconds():.1f} s")
            return
        self.log.say(f"{fault.text}: {name} {_HAPPENS[fault.kind]} after {self._seconds():.1f} s")
        try:
            if fault.kind == "kill":
                self._kill(fault.rank, f"killed by {fault.text}")
            elif agent is not None and fault.kind == "stop":
                agent.send_signal(signal.SIGTERM)
            elif fault.kind == "cut":
                await self._cut(fault, name)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.log.warn(f"{fault.text} has failed: {error}")

    async def _cut(self, fault: Fault, name: str) -> None:
        """Cut a node off for as long as the fault says. :raises RuntimeError: if ``ip`` fails."""
        self.connect(fault.rank, False)
        await asyncio.sleep(fault.seconds)
        if fault.rank not in self._killed:
            self.connect(fault.rank, True)
            self.log.say(f"{fault.text}: {name} is connected again after {self._seconds():.1f} s")

    async def _look_for_workload(self) -> None:
        """Wait until the head's agent says that its workload is running."""
        while not any(state.get("phase") == Phase.RUNNING.value for state in self._files(0, STATE)):
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._workload.set()

    def _kill(self, rank: int, why: str) -> None:
        self._killed.setdefault(rank, why)
        self.parts[rank].node.kill()

    def _on_signal(self, signum: int) -> None:
        """Pass a signal on to every agent, as a launcher does; kill the nodes if it is one too many."""
        self._signals += 1
        self._stopped.set()
        kill = self._signals > _PATIENCE
        self.log.say("killing all nodes" if kill else f"passing {signals.name_of(signum)} on to all nodes")
        for rank, agent in self._agents.items():
            if agent.poll() is None and kill:
                self._kill(rank, f"killed by signal number {self._signals} to this command")
            elif agent.poll() is None:
                agent.send_signal(signum)

    def _reason(self, rank: int) -> str:
        reasons = [str(result.get("reason", "")) for result in self._files(rank, RESULT)]
        return (reasons or ["no reason given: see its last lines"])[0].partition("\n")[0]

    def _files(self, rank: int, name: str) -> Iterator[Mapping[str, Any]]:
        """Yield the state, or the result, of that rank's agent of this run."""
        if rank in self._killed:
            return
        part = self.parts[rank]
        for folder, _ in own_folders(part.node.root / PARENT.relative_to("/")):
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(RuntimeDir(folder).read(name, -1))
                if content.get("rank") in (rank, None) and part.run in (content.get("run_id"), None):
                    yield content


async def _ended(process: "subprocess.Popen[Any]") -> None:
    """Wait until a child has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    fd = os.pidfd_open(process.pid)
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
