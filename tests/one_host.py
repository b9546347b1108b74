"""One host of a set made by :mod:`hosts`: its commands, its processes, its cable."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from namespaces import Process, children_in_pid_namespace, ip, line_within, namespace, processes

MARK = "RB_TEST_MARK"
"""The variable that marks every process that a test starts; see the fixture ``nothing_left``."""


class Host:
    """One of the hosts; see the module's text."""

    def __init__(self, index: int, base: Path, subnet: int, ipv6: bool) -> None:
        self.index = index
        self.name = f"node-{index}"
        self.ip = f"10.77.{subnet}.{index + 1}"
        self.ip6 = f"fd77:{subnet:x}::{index + 1:x}" if ipv6 else None
        self.mac = f"02:77:00:00:00:{index + 1:02x}"
        self.port = f"port{index}"
        """The switch's end of this host's cable."""
        self.base = base
        """Where the output of this host's commands is kept (on this side)."""
        self.commands: list[subprocess.Popen[Any]] = []
        self._outputs: dict[int, Path] = {}
        self._containers: list[int] = []
        """Open PID namespaces: a number is not given to another one while it is open."""
        self._init: subprocess.Popen[bytes] | None = None
        self._switch_pid = 0

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.ip}>"

    @property
    def init(self) -> int:
        """The PID (on this side) of the process that holds the host."""
        if self._init is None:
            raise RuntimeError(f"{self.name} is off")
        return self._init.pid

    @property
    def netns(self) -> str:
        """The network namespace, as a path for ``nsenter --net=``."""
        return f"/proc/{self.init}/ns/net"

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Starts ``argv`` here in a session of its own; ``env`` is added to a small, clean environment.

        Its output goes to files (see ``out`` and ``err``) unless ``options``, which are Popen's, say otherwise.
        A program that cannot be started shows as status 127 or 126, as with a shell.
        """
        return self._popen(argv, self.init, [], env=env, cwd=cwd, options=options)

    def popen_as_pid1(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Like ``popen``, but ``argv`` is PID 1 of a PID namespace of its own, as a container's entrypoint is.

        Call it in the main thread: the kernel ends the command together with the thread that started it.
        """
        own_proc = ["unshare", "--mount", "--mount-proc", "--"]
        return self._popen(argv, None, own_proc, env=env, cwd=cwd, options=options)

    def _popen(
        self,
        argv: Sequence[str],
        pid_namespace_of: int | None,
        wrapper: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        cwd: str | None,
        options: dict[str, Any],
    ) -> subprocess.Popen[Any]:
        # No PID namespace for nsenter to enter, so it does not fork: every word of this line execs the next.
        enter = ["nsenter", "-t", str(self.init), "--mount", "--uts", "--net", "--ipc", "--", *wrapper]
        if pid_namespace_of is None:  # not below the init, whose end would take it along when the tests are killed
            enter = ["setpriv", "--pdeathsig", "KILL", "--", *enter]
        change_folder = ["sh", "-c", 'cd "$0" && exec "$@"', cwd or str(Path.cwd())]
        stem = self.base / f"{len(self.commands):02d}-{Path(argv[0]).name}"
        with contextlib.ExitStack() as files:
            for stream, suffix in (("stdout", ".out"), ("stderr", ".err")):
                if stream not in options:
                    options[stream] = files.enter_context(Path(f"{stem}{suffix}").open("wb"))
            options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
            with children_in_pid_namespace(pid_namespace_of):
                process = subprocess.Popen([*enter, *change_folder, *argv], env=_clean_environment(env), **options)
        if pid_namespace_of is None:
            self._containers.append(os.open(f"/proc/{process.pid}/ns/pid", os.O_RDONLY))
        self.commands.append(process)
        self._outputs[process.pid] = stem
        return process

    def run(
        self, argv: Sequence[str], *, timeout: float = 60, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``argv`` here to its end, at most ``timeout`` seconds, and returns its status and output."""
        process = self.popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                process.kill()
        if check and process.returncode:
            raise RuntimeError(f"{self.name}: {list(argv)} ended with {process.returncode}: {err}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def signal(self, process: subprocess.Popen[Any], signum: int) -> None:
        """Sends ``signum`` to the command itself; nothing happens if it has ended."""
        process.send_signal(signum)

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

    def disconnect(self) -> None:
        """Pulls the cable: eth0 loses its carrier."""
        self._at_switch("link", "set", self.port, "down")

    def reconnect(self) -> None:
        """Undoes ``disconnect``."""
        self._at_switch("link", "set", self.port, "up")

    def drop(self) -> None:
        """Loses every packet to and from this host without a word: eth0 and the neighbours' addresses stay."""
        self._at_switch("link", "set", self.port, "nomaster")

    def undrop(self) -> None:
        """Undoes ``drop``."""
        self._at_switch("link", "set", self.port, "master", "br0")

    def _at_switch(self, *words: str) -> None:
        ip(self._switch_pid, [" ".join(words)])

    def kill(self) -> None:
        """Pulls the plug: every process of this host gets SIGKILL, and the host is gone for good."""
        init, self._init = self._init, None
        if init is None:
            return
        # Those started as PID 1 are not below the init. The init's own end waits (zap_pid_ns_processes) until we
        # have reaped our children in its namespace.
        for process in self.commands:
            process.kill()
        init.kill()
        for process in [*self.commands, init]:
            process.wait(timeout=30)
        for pipe in (init.stdin, init.stdout):
            if pipe is not None:
                pipe.close()
        for fd in self._containers:
            os.close(fd)
        self._containers.clear()

    def start(self, switch_pid: int, shm_size: str, read_only: bool, visible: Sequence[str]) -> None:
        """Starts the init, which builds the host's root folder and then only reaps; ``connect`` waits for it."""
        self._switch_pid = switch_pid
        script = Path(__file__).with_name("host_init.sh")
        argv = ["unshare", "--mount", "--uts", "--net", "--ipc", "--", "sh", "-eu", str(script)]
        argv += [self.name, str(self.base), shm_size, "ro" if read_only else "rw", *visible]
        pipe = subprocess.PIPE
        with (self.base / "init.err").open("wb") as errors, children_in_pid_namespace(None):
            self._init = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True)

    def connect(self, gateway: tuple[str, str], peers: Iterable[Host], default_route: bool, timeout: float) -> None:
        """Waits for the init and lays the cable; the neighbours' hardware addresses are fixed, so ARP never fails."""
        if self._init is None or not line_within(self._init.stdout, timeout):
            raise RuntimeError(f"{self.name} did not come up: {(self.base / 'init.err').read_text() or 'no message'}")
        cable = f"link add {self.port} type veth peer name eth0 address {self.mac} netns {self.init}"
        ip(self._switch_pid, [cable, f"link set {self.port} master br0 up"])
        neighbours = [gateway, *((peer.ip, peer.mac) for peer in peers if peer is not self)]
        lines = ["link set lo up", f"addr add {self.ip}/24 dev eth0", "link set eth0 up"]
        lines += [f"addr add {self.ip6}/64 dev eth0 nodad"] if self.ip6 else []
        lines += [f"neigh replace {ip} lladdr {mac} dev eth0 nud permanent" for ip, mac in neighbours]
        lines += [f"route add default via {gateway[0]}"] if default_route else []
        ip(self.init, lines)


def _clean_environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Nothing that a launcher or a CI system set here, so that a test decides what a host sees."""
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    base = {"PATH": path, "HOME": "/tmp/home", "USER": "root", "LANG": "C.UTF-8"}
    return {**base, **(extra or {}), MARK: os.environ.get(MARK, "hosts")}
