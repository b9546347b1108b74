"""Agents for the black-box tests: the real command on this machine, with the fake Ray of tests/fake_ray.

A site is one cluster that may come to be; each of its nodes is one run of the command with its own address (out of
127.0.0.0/8), folders and environment. When a node has ended, :meth:`Node.wait` makes sure **at once** that it has left
nothing: no process that it started, no file in Ray's folder but logs, no state file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from namespaces import wait_for
from survivors import describe, marked

FAKE_RAY = Path(__file__).parent / "fake_ray"
_MARK = "RB_TEST_NODE"
_SECONDS = 20.0
"""For anything that a test waits for."""


def states() -> list[dict[str, Any]]:
    """What the agents of this user say of themselves, those in other containers left out."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    found = []
    for path in Path("/tmp").glob("ray-bootstrap.*/state.json"):
        with contextlib.suppress(OSError):  # its agent has just ended
            found.append({**json.loads(path.read_text()), "folder": str(path.parent)})
    return [state for state in found if state["pid_namespace"] == namespace]


def _lives(folder: str) -> bool:
    """Whether an agent, or its supervisor, still holds its runtime directory, or has removed its state just now."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True  # removed just now
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return not Path(folder, "state.json").exists()


def _first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _is_pid_1(pid: int) -> bool:
    (ids,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    return ids.split()[-1] == "1"


class Node:
    """One run of the command."""

    def __init__(self, folder: Path, argv: Sequence[str], env: Mapping[str, str], **options: Any) -> None:
        self.folder = folder
        self.temp_dir = folder / "ray"
        self.record_file = folder / "record"
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
            self.process = subprocess.Popen(
                argv, env={**env, name: value}, cwd=folder, start_new_session=True, **streams
            )

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text(errors="replace")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    @property
    def starts(self) -> list[dict[str, Any]]:
        """One for each ``ray start``: its ``argv`` and ``env``."""
        if not self.record_file.exists():
            return []
        return [json.loads(line) for line in self.record_file.read_text().splitlines()]

    @property
    def argv(self) -> list[str]:
        """Of the only ``ray start``."""
        (start,) = self.starts
        return list(start["argv"])

    @property
    def verdict(self) -> dict[str, Any]:
        """The record that --result-file names."""
        return dict(json.loads((self.folder / "status.json").read_text()))

    @property
    def standby(self) -> int:
        """The process id of the standby below the supervisor; PID 1 has none, but its agent in that place."""
        return _first_child(self.process.pid)

    @property
    def agent(self) -> int:
        """The process id of the agent."""
        return self.standby if _is_pid_1(self.process.pid) else _first_child(self.standby)

    @property
    def raylet(self) -> int:
        """The process id of this node's fake raylet."""
        return self.daemon("raylet")

    def daemon(self, name: str) -> int:
        """The process id of this node's fake daemon of that name."""
        return next(pid for pid in self._alive() if f"/sockets/{name} " in describe(pid))

    def appears(self, name: str) -> None:
        """Waits until something is in the file of this name in the node's folder."""
        path = self.folder / name
        wait_for(lambda: path.exists() and path.stat().st_size, _SECONDS, name)

    def _alive(self) -> set[int]:
        return marked(self._mark)

    def is_in(self, phase: str) -> None:
        """Waits until it says that it is in this phase, as ``ray-bootstrap status`` shows it."""
        wait_for(lambda: self._phase() == phase, _SECONDS, f"phase {phase!r}")

    def _phase(self) -> str:
        try:
            return str(next(facts["phase"] for facts in states() if facts["pid"] == self.agent))
        except (StopIteration, OSError, IndexError, KeyError):
            return ""

    def says(self, *texts: str, where: str = "err") -> None:
        """Waits until all of these are in its output."""

        def told() -> bool:
            if all(text in getattr(self, where) for text in texts):
                return True
            if self.process.poll() is not None and not all(text in getattr(self, where) for text in texts):
                raise AssertionError(f"it ended without {texts} in its std{where}:\n{self.err}\n{self.out}")
            return False

        try:
            wait_for(told, _SECONDS)
        except TimeoutError:
            raise AssertionError(f"no {texts} in its std{where} within {_SECONDS:g} s:\n{self.err}") from None

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def stop(self) -> None:
        """Stops all of its processes, as `scontrol suspend` or a freezer does."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undoes ``stop``."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, signum: int) -> None:
        for pid in self._alive():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signum)

    def wait(self, timeout: float = _SECONDS, *, within: float = 0, clean: bool = True) -> int:
        """Its exit status as a shell shows it; nothing of it is left then, or ``within`` seconds.

        ``clean=False``: the test made it end with no chance to clear up.
        """
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended within {timeout:g} s:\n{self.err}") from None
        if within:
            wait_for(lambda: not self._alive(), within, "the end of what it started")
        left = [describe(pid) for pid in self._alive()]
        assert left == [], f"{left} left alive:\n{self.err}"
        if clean:
            self._assert_clean()
        return status if status >= 0 else 128 - status

    def _assert_clean(self) -> None:
        files = [path.relative_to(self.temp_dir) for path in self.temp_dir.rglob("*") if not path.is_dir()]
        left = [path for path in files if "logs" not in path.parts and path.name != "session_latest"]
        assert left == []
        ours = [facts for facts in states() if facts.get("run_id") == self.folder.parent.name]
        # While another node's supervisor lives, it may be about to clean up behind its agent.
        assert [facts for facts in ours if not _lives(facts["folder"])] == []

    def close(self) -> None:
        """Kills what a failed test has left."""
        for pid in self._alive():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Site:
    """One cluster that may come to be: a folder, a run id, its nodes."""

    def __init__(self, folder: Path, mark: Mapping[str, str]) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.nodes: list[Node] = []
        self._mark = mark
        self._python_path = str(FAKE_RAY)
        for name in ("cluster", "home", "shared"):
            (folder / name).mkdir()
        self.shared = folder / "shared"

    def shorten(self, **seconds: float) -> None:
        """Gives the nodes that are started from now on other delays, by their names in :mod:`bootstrap.timeouts`."""
        self.patch("from bootstrap import timeouts", *(f"timeouts.{name} = {value}" for name, value in seconds.items()))

    def patch(self, *lines: str) -> None:
        """Has the nodes that are started from now on run these lines of Python first."""
        (self.folder / "sitecustomize.py").write_text("\n".join(lines))
        self._python_path = f"{self.folder}:{FAKE_RAY}"

    def environment(self, folder: Path, extra: Mapping[str, str | None]) -> dict[str, str]:
        """A small clean one, plus ``extra``, where None takes a variable away."""
        number = len(self.nodes) + 1
        env: dict[str, str | None] = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": self._python_path,
            "FAKE_RAY_CLUSTER": str(self.folder / "cluster"),
            "FAKE_RAY_RECORD": str(folder / "record"),
            "RAY_BOOTSTRAP_TEMP_DIR": str(folder / "ray"),
            "RAY_BOOTSTRAP_RESULT_FILE": str(folder / "status.json"),
            "RAY_BOOTSTRAP_NODE_IP": f"127.0.0.{number}",
            "RAY_BOOTSTRAP_HOSTS": "off",  # the machine's own file is nothing to test with
            "RAY_BOOTSTRAP_IGNORE_CHECK": "node-address",
            "RAY_BOOTSTRAP_NUM_CPUS": "1",
            "RAY_BOOTSTRAP_RUN_ID": self.run_id,
            **self._mark,
            **extra,
        }
        return {name: value for name, value in env.items() if value is not None}

    def run(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        before: Sequence[str] = (),
        **options: Any,
    ) -> Node:
        """Starts the command with these arguments; ``before`` is a program that executes it."""
        folder = self.folder / f"{len(self.nodes)}"
        folder.mkdir()
        argv = [*before, sys.executable, "-m", "bootstrap", *args]
        node = Node(folder, argv, self.environment(folder, env or {}), **options)
        self.nodes.append(node)
        return node

    def several(self, count: int, *args: str, workload: Sequence[str] = ("true",), **options: Any) -> list[Node]:
        """That many nodes of one run with a static rendezvous, rank 0 first."""
        return [self.rank(rank, count, *args, workload=workload, **options) for rank in range(count)]

    def rank(self, rank: int, count: int, *args: str, workload: Sequence[str] = ("true",), **options: Any) -> Node:
        """One of several nodes with a static rendezvous."""
        who = [f"--rank={rank}", f"--nodes={count}", "--head-address=127.0.0.1"]
        return self.run(*who, *args, "--", *workload, **options)


@pytest.fixture
def site(nothing_left: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site whose paths are short enough for Ray's sockets."""
    made = Site(Path(tempfile.mkdtemp(prefix="rb-", dir="/tmp")), nothing_left)
    yield made
    for node in made.nodes:
        node.close()
    shutil.rmtree(made.folder)
