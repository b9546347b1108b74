"""The product's hosts made of namespaces, as the tests want them: marked, with a clean environment, and with eyes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from namespaces import Process, namespace, processes, wait_for

from bootstrap.namespaces import hosts
from bootstrap.namespaces.host import NamespaceHost, in_folder
from bootstrap.namespaces.hosts import Hosts
from bootstrap.namespaces.linux import children_in_pid_namespace

__all__ = ["MARK", "Host", "Hosts", "Process", "make_hosts", "transcripts", "wait_for"]

MARK = "RB_TEST_MARK"
"""The variable that marks every process that a test starts; see the fixture ``nothing_left``."""


class Host(NamespaceHost):
    """One of the hosts, whose commands write into files unless a test says otherwise."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self._outputs: dict[int, Path] = {}
        self._containers: list[int] = []
        """Open PID namespaces: a number is not given to another one while it is open."""

    @property
    def netns(self) -> str:
        """The network namespace, as a path for ``nsenter --net=``."""
        return f"/proc/{self.init}/ns/net"

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """The same with ``env`` added to a small, clean environment; the output is in files (``out``, ``err``)."""
        return super().popen(argv, env=_clean_environment(env), cwd=cwd, **options)

    def popen_as_pid1(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Like ``popen``, but ``argv`` is PID 1 of a PID namespace of its own, as a container's entrypoint is.

        Call it in the main thread: the kernel ends the command together with the thread that started it, since it is
        not below the init, whose end would take it along when the tests are killed.
        """
        words = ["setpriv", "--pdeathsig", "KILL", "--", *self.entry, "unshare", "--mount", "--mount-proc", "--"]
        with children_in_pid_namespace(None):
            process = self.start_command([*words, *in_folder(cwd), *argv], _clean_environment(env), options)
        self._containers.append(os.open(f"/proc/{process.pid}/ns/pid", os.O_RDONLY))
        return process

    def start_command(
        self, argv: Sequence[str], env: Mapping[str, str], options: Mapping[str, Any]
    ) -> subprocess.Popen[Any]:
        program = argv[argv.index('cd "$0" && exec "$@"') + 2]
        stem = self.base / f"{len(self.commands):02d}-{Path(program).name}"
        with Path(f"{stem}.out").open("wb") as out, Path(f"{stem}.err").open("wb") as err:
            process = super().start_command(argv, env, {"stdout": out, "stderr": err, **options})
        self._outputs[process.pid] = stem
        return process

    def out(self, process: subprocess.Popen[Any]) -> str:
        """What the command has written to its standard output so far (unless redirected)."""
        return Path(f"{self._outputs[process.pid]}.out").read_text(errors="replace")

    def err(self, process: subprocess.Popen[Any]) -> str:
        """What the command has written to its standard error so far (unless redirected)."""
        return Path(f"{self._outputs[process.pid]}.err").read_text(errors="replace")

    def pids(self) -> list[Process]:
        """Every process of this host, its init and zombies too."""
        if self._init is None:
            return []
        containers = {f"pid:[{os.fstat(fd).st_ino}]" for fd in self._containers}
        return processes({namespace(self.init, "pid"), namespace(self.init, "net"), *containers})

    def leftovers(self) -> list[Process]:
        """What runs here besides the init; a command that ended and only waits for our ``wait()`` does not count."""
        mine = os.getpid()
        return [p for p in self.pids() if p.pid != self.init and not (p.state == "Z" and p.ppid == mine)]

    def sockets(self) -> frozenset[int]:
        """The TCP ports on which something listens here."""
        tables = (Path(f"/proc/{self.init}/net/{name}") for name in ("tcp", "tcp6"))
        rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
        listening = "0A"  # TCP_LISTEN of include/net/tcp_states.h
        return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == listening)

    def read(self, path: str) -> str:
        """The text of a file as this host sees it."""
        return self.run(["cat", path]).stdout

    @property
    def hosts_text(self) -> str:
        """/etc/hosts as this host sees it."""
        return self.read("/etc/hosts")

    def kill(self) -> None:
        super().kill()
        while self._containers:
            os.close(self._containers.pop())


make_hosts = functools.partial(hosts.make_hosts, kind=Host)


def transcripts(of: Hosts) -> Iterator[tuple[str, str]]:
    """(title, last 4 kB) of everything that the hosts' commands wrote, for the report of a failed test."""
    for path in sorted(of.base.glob("*/*.out")) + sorted(of.base.glob("*/*.err")):
        if text := path.read_text(errors="replace")[-4096:]:
            yield f"{path.parent.name}: {path.name}", text


def _clean_environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Nothing that a launcher or a CI system set here, so that a test decides what a host sees."""
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    base = {"PATH": path, "HOME": "/tmp/home", "USER": "root", "LANG": "C.UTF-8"}
    return {**base, **(extra or {}), MARK: os.environ.get(MARK, "hosts")}
