"""One host of a set made by :mod:`bootstrap.namespaces.hosts`: its commands, its cable and its faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap.host import this_host
from bootstrap.namespaces.linux import as_outer_user, children_in_pid_namespace, ip, says_something

FIRST_ADDRESS = 10
"""The last number of rank 0's address. slirp4netns takes .2 and .3 of the network for itself, the switch .254."""
MOST = 200


class NamespaceHost:
    """One of the hosts; see :mod:`bootstrap.namespaces.hosts`."""

    def __init__(self, index: int, name: str, base: Path, subnet: int, ipv6: bool) -> None:
        self.index = index
        self.name = name
        number = FIRST_ADDRESS + index
        self.ip = f"10.77.{subnet}.{number}"
        self.ip6 = f"fd77:{subnet:x}::{number:x}" if ipv6 else None
        self.mac = f"02:77:00:00:00:{number:02x}"
        self.port = f"port{index}"
        """The switch's end of this host's cable."""
        self.base = base
        """This host's files that are kept on the machine."""
        self.commands: list[subprocess.Popen[Any]] = []
        self._init: subprocess.Popen[bytes] | None = None
        self._switch_pid = 0
        self._relay: subprocess.Popen[bytes] | None = None
        self._refused: set[int] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.ip}>"

    @property
    def init(self) -> int:
        """The PID (on this side) of the process that holds the host. :raises RuntimeError: once it is killed."""
        if self._init is None:
            raise RuntimeError(f"{self.name} is off")
        return self._init.pid

    @property
    def root(self) -> Path:
        """Its root folder as seen from here; an absolute link in it leads out of it."""
        return Path(f"/proc/{self.init}/root")

    @property
    def entry(self) -> list[str]:
        """The words that start a command here, as the machine's user; it must be born in the PID namespace.

        nsenter enters no PID namespace, so it does not fork: every word execs the next.
        """
        return ["nsenter", "-t", str(self.init), "--mount", "--uts", "--net", "--ipc", "--", *as_outer_user()]

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start ``argv`` here as the machine's user, in a session of its own, and return it: a direct child of ours.

        :param env: its whole environment [default: ours]. A HOME that it cannot write becomes /tmp/home.
        :param options: Popen's. Standard input is empty unless they say otherwise.

        A program that cannot be started shows as status 127 or 126, as with a shell.
        """
        env = dict(this_host().env if env is None else env)
        if not os.access(self.root / env.get("HOME", "absent").lstrip("/"), os.W_OK):
            env["HOME"] = "/tmp/home"  # noqa: S108 (the host's own /tmp)
        with children_in_pid_namespace(self.init):
            return self.start_command([*self.entry, *in_folder(cwd), *argv], env, options)

    def start_command(
        self, argv: Sequence[str], env: Mapping[str, str], options: Mapping[str, Any]
    ) -> subprocess.Popen[Any]:
        """Start a complete command line, which ``kill`` ends."""
        process = subprocess.Popen(argv, env=env, **{"stdin": subprocess.DEVNULL, "start_new_session": True, **options})
        self.commands.append(process)
        return process

    def run(
        self, argv: Sequence[str], *, timeout: float = 60, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` here to its end, at most ``timeout`` seconds, and return its status and output.

        :raises RuntimeError: with ``check``, if its status is not 0.
        """
        process = self.popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            finally:
                process.kill()
        if check and process.returncode:
            raise RuntimeError(f"{self.name}: {list(argv)} ended with {process.returncode}: {err}")
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def disconnect(self) -> None:
        """Pull the cable: eth0 loses its carrier."""
        self._at_switch(f"link set {self.port} down")

    def reconnect(self) -> None:
        """Undo ``disconnect``."""
        self._at_switch(f"link set {self.port} up")

    def drop(self) -> None:
        """Drop every packet to and from this host silently: eth0 keeps its carrier."""
        self._at_switch(f"link set {self._plug} nomaster")

    def undrop(self) -> None:
        """Undo ``drop``."""
        self._at_switch(f"link set {self._plug} master br0")

    def slow(self, seconds: float) -> None:
        """Delay each packet to and from this host by so many seconds from now on; 0 undoes it.

        A process of ours relays them, since not every kernel has netem (sch_netem).
        """
        if self._relay is None and seconds > 0:
            inner = f"slow{self.index}-in"
            self._at_switch(
                f"link add slow{self.index} type veth peer name {inner}",
                f"link set {inner} arp off up",
                f"link set {self.port} nomaster arp off",
            )
            self._relay = self._start_relay(inner)
            self._at_switch(f"link set slow{self.index} master br0 up")
        if self._relay is None or self._relay.stdin is None:
            return
        if seconds > 0:
            self._relay.stdin.write(f"{seconds:.6f}\n".encode())
            self._relay.stdin.flush()
            return
        _end(self._relay)
        self._at_switch(f"link del slow{self.index}", f"link set {self.port} master br0")
        self._relay = None

    def refuse(self, port: int) -> None:
        """Reject connections that come from other hosts to this TCP port, as a firewall does ("No route to host").

        By a routing rule, which needs no packet filter. It has to precede the rule for the local table, which is first
        by default. And only an interface that forwards reports the rejection (``ip_error()`` of Linux).
        """
        if not 1 <= port <= 65535:
            raise ValueError(f"port {port}: 1 to 65535")
        if port in self._refused:
            return
        lines = [f"rule add pref 10 iif eth0 ipproto tcp dport {port} prohibit"]
        if not self._refused:
            lines = ["rule add pref 100 lookup local", "rule del pref 0", *lines]
            forward = ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding"]
            subprocess.run(["nsenter", "-t", str(self.init), "--net", "--", *forward], check=True, timeout=30)
        for family in ("-4", "-6") if self.ip6 else ("-4",):
            ip(self.init, lines, family)
        self._refused.add(port)

    @property
    def _plug(self) -> str:
        """The interface that is in the bridge."""
        return self.port if self._relay is None else f"slow{self.index}"

    def _at_switch(self, *lines: str) -> None:
        ip(self._switch_pid, lines)

    def _start_relay(self, inner: str) -> subprocess.Popen[bytes]:
        relay = [sys.executable, "-IS", str(Path(__file__).with_name("relay.py")), self.port, inner]
        argv = ["nsenter", "-t", str(self._switch_pid), "--net", "--", *relay]
        pipe = subprocess.PIPE
        with (self.base / "relay.err").open("wb") as errors:
            process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True)
        if not says_something(process.stdout, 30):
            _end(process)
            raise RuntimeError(f"{self.name} cannot be slowed: {(self.base / 'relay.err').read_text()}")
        return process

    def kill(self) -> None:
        """Pull the plug: every process of this host gets SIGKILL, and the host is gone for good."""
        relay, self._relay = self._relay, None
        if relay is not None:
            _end(relay)
        init, self._init = self._init, None
        if init is None:
            return
        # The init first: with it the kernel ends all at once, and no process sees another one's end. Its own end
        # waits (zap_pid_ns_processes) until we have reaped our children in its namespace.
        init.kill()
        for process in self.commands:
            process.kill()
        for process in self.commands:
            process.wait(timeout=30)
        _end(init)

    def start(self, switch_pid: int, shm_size: str, read_only: bool, visible: Sequence[str]) -> None:
        """Start the init, which builds the host's root folder and then only reaps; ``connect`` waits for it."""
        self._switch_pid = switch_pid
        script = Path(__file__).with_name("init.sh")
        argv = ["unshare", "--mount", "--uts", "--net", "--ipc", "--", "sh", "-eu", str(script), sys.executable]
        argv += [self.name, str(self.base), shm_size, "ro" if read_only else "rw", *visible]
        pipe = subprocess.PIPE
        with (self.base / "init.err").open("wb") as errors, children_in_pid_namespace(None):
            self._init = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True)

    def connect(
        self, gateway: tuple[str, str], route: str | None, peers: Iterable[NamespaceHost], *, seconds: float
    ) -> None:
        """Wait for the init and lay the cable; the neighbours' hardware addresses are fixed, so ARP never fails.

        :param gateway: the switch's addresses, IPv4 and hardware.
        :param route: through which address the rest of the world is reached; None without a default route.
        :raises RuntimeError: if the init has not come up within so many seconds, with what it said.
        """
        if self._init is None or not says_something(self._init.stdout, seconds):
            raise RuntimeError(f"{self.name} did not come up: {(self.base / 'init.err').read_text() or 'no message'}")
        cable = f"link add {self.port} type veth peer name eth0 address {self.mac} netns {self.init}"
        ip(self._switch_pid, [cable, f"link set {self.port} master br0 up"])
        neighbours = [gateway, *((peer.ip, peer.mac) for peer in peers if peer is not self)]
        lines = ["link set lo up", f"addr add {self.ip}/24 dev eth0", "link set eth0 up"]
        lines += [f"addr add {self.ip6}/64 dev eth0 nodad"] if self.ip6 else []
        lines += [f"neigh replace {ip} lladdr {mac} dev eth0 nud permanent" for ip, mac in neighbours]
        lines += [f"route add default via {route}"] if route else []
        ip(self.init, lines)


def in_folder(path: str | None) -> list[str]:
    """Return the words that run a command in this folder [default: ours]."""
    return ["sh", "-c", 'cd "$0" && exec "$@"', path or str(Path.cwd())]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=30)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
