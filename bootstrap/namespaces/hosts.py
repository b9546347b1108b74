"""N hosts on one machine, made of Linux namespaces; needs root, if only that of :mod:`bootstrap.namespaces.enter`.

A host has its own address, name, PIDs, root folder (with its own ``/tmp``, ``/run`` and ``/dev/shm``), ``/etc/hosts``,
``/etc/resolv.conf``, and ``/shared``, which all hosts of a set share. The hosts hang on a bridge in a network namespace
of its own. No namespace has a name, so nothing on this machine changes and nothing can stay: each ends with the
process that holds it, which reads a pipe from us and so ends when we do, however that happens.

A command on a host is a **direct child** of ours, although it lives in the host's PID namespace: its ``Popen.pid`` is
the command itself, a signal sent to it arrives there, and ``wait()`` gives its own status (-n: killed by signal n).
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bootstrap.namespaces.host import MOST, NamespaceHost
from bootstrap.namespaces.linux import ip, says_something
from bootstrap.namespaces.name_server import Names, write_names

HOSTS_FILES = ("absent", "127.0.1.1", "right", "read-only")
_SWITCH_MAC = "02:77:00:00:00:fe"
_subnets = itertools.count()


class Hosts(Sequence[NamespaceHost]):
    """The hosts of one set and the switch between them; a context manager that takes everything down."""

    def __init__(self, hosts: Sequence[NamespaceHost], base: Path, subnet: int) -> None:
        self._hosts = hosts
        self._network = f"10.77.{subnet}"
        self.base = base
        self.shared = base / "shared"
        """What the hosts see as /shared, on this side."""
        self.gateway = f"{self._network}.254"
        """The switch's own address: the name server's, and that of the default route without egress."""
        self.no_egress = "it was not asked for"
        """Why the hosts reach only each other; empty if they reach what the machine reaches."""
        self._helpers: list[subprocess.Popen[bytes]] = []

    def __getitem__(self, index: Any) -> Any:
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_names(self, names: Names) -> None:
        """Replace what the name server knows, from its next query on: name → one or more addresses."""
        write_names(self.base / "names.json", names)

    def close(self) -> None:
        """End all hosts and the switch, and thereby their namespaces."""
        for host in self._hosts:
            host.kill()
        for process in self._helpers:
            process.kill()
            process.wait(timeout=30)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    @property
    def _switch(self) -> int:
        return self._helpers[0].pid

    def start_switch(self, egress: bool) -> None:
        """Start the bridge that the cables end in, and the way out of it."""
        self._help(["unshare", "--net", "--", "sh", "-c", "echo ready; exec cat >/dev/null"])
        bridge = f"link add br0 address {_SWITCH_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ip(self._switch, [bridge, f"addr add {self.gateway}/24 dev br0", "link set br0 up", "link set lo up"])
        if egress:
            self.no_egress = self._open_egress()

    def start_hosts(
        self, hosts_file: str, named: bool, default_route: bool, shm_size: str, visible: Sequence[str]
    ) -> None:
        """Start all hosts at once, then connect them. ``named``: there will be a name server."""
        name_server = self.gateway if named else "127.0.0.1" if self.no_egress else f"{self._network}.3"
        for host in self._hosts:
            _write_files(host, hosts_file, name_server)
            host.start(self._switch, shm_size, hosts_file == "read-only", _hidden(visible))
        route = self.gateway if self.no_egress else f"{self._network}.2"
        for host in self._hosts:
            host.connect((self.gateway, _SWITCH_MAC), route if default_route else None, self._hosts, seconds=30)

    def serve_names(self, names: Names, delay: float, cache: float) -> None:
        """Start the name server at the switch's address."""
        self.set_names(names)
        server = str(Path(__file__).with_name("name_server.py"))
        argv = [sys.executable, server, self.gateway, str(self.base / "names.json"), str(delay), str(cache)]
        argv += [] if self.no_egress else [f"{self._network}.3"]
        self._help(["nsenter", "-t", str(self._switch), "--net", "--", *argv])

    def _open_egress(self) -> str:
        """Connect slirp4netns to the bridge; return why that failed, or "".

        It reopens the hosts' connections as a process of this machine's user. It is .2 and .3 (names) of the network:
        slirp4netns(1), DESCRIPTION.
        """
        if shutil.which("slirp4netns") is None:
            return "slirp4netns is not installed; fix: apt-get install slirp4netns"
        argv = ["slirp4netns", "--exit-fd=0", "--ready-fd=3", f"--cidr={self._network}.0/24", "--disable-host-loopback"]
        argv += ["--netns-type=path", f"/proc/{self._switch}/ns/net", "tap0"]
        try:
            self._help(["sh", "-c", 'exec "$@" 3>&1 >&2', "sh", *argv])
        except RuntimeError as error:
            said = str(error).partition(" did not come up: ")[2]
            fix = "" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "; fix: sudo chmod 666 /dev/net/tun"
            return f"slirp4netns did not come up: {said}{fix}"
        ip(self._switch, ["link set tap0 master br0 up"])
        return ""

    def _help(self, argv: Sequence[str]) -> None:
        with (self.base / f"helper-{len(self._helpers)}.err").open("wb") as errors:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self._helpers.append(process)
        if not says_something(process.stdout, 30):
            said = " ".join(Path(errors.name).read_text(errors="replace").splitlines())
            raise RuntimeError(f"{' '.join(argv)} did not come up: {said or 'no message'}")


def make_hosts(
    n: int,
    *,
    base: Path,
    hosts_file: str = "absent",
    default_route: bool = True,
    dns: Names | None = None,
    dns_delay: float = 0.0,
    dns_cache: float = 0.0,
    shm_size: str = "1g",
    ipv6: bool = False,
    visible: Iterable[str] = (),
    names: Sequence[str] | None = None,
    egress: bool = False,
    kind: type[NamespaceHost] = NamespaceHost,
) -> Hosts:
    """Return ``n`` hosts, up and connected, with their files below the new folder ``base``.

    ``hosts_file`` says where /etc/hosts has the host's own name: nowhere (``absent``; ``read-only`` is the same on a
    read-only mount), at ``127.0.1.1``, or at its address (``right``). ``dns`` is what a name server answers (see
    ``Hosts.set_names``), after ``dns_delay`` seconds, each answer repeated for ``dns_cache`` seconds; without it there
    is the machine's with egress, or else one that refuses at once. ``visible`` are folders that the hosts see although
    they lie below /tmp or /run. ``names`` are the host names by rank [default: node-0 …]. With ``egress`` the hosts
    reach what the machine reaches, unless ``Hosts.no_egress`` says why not.

    :raises RuntimeError: if one did not come up; nothing is left.
    :raises ValueError: for a number, a list of names or a ``hosts_file`` that cannot be.
    """
    hosts = _lay_out(n, base, hosts_file, ipv6, names, kind)
    try:
        hosts.start_switch(egress)
        hosts.start_hosts(hosts_file, dns is not None, default_route, shm_size, list(visible))
        if dns is not None:
            hosts.serve_names(dns, dns_delay, dns_cache)
    except BaseException:
        hosts.close()
        raise
    return hosts


def _lay_out(
    n: int, base: Path, hosts_file: str, ipv6: bool, names: Sequence[str] | None, kind: type[NamespaceHost]
) -> Hosts:
    names = [f"node-{index}" for index in range(n)] if names is None else names
    if hosts_file not in HOSTS_FILES or not 1 <= n <= MOST or len(names) != n:
        raise ValueError(f"hosts_file={hosts_file!r}: one of {HOSTS_FILES}; n={n}: 1 to {MOST}; {len(names)} names")
    subnet = next(_subnets) % 250
    base.mkdir(parents=True)
    hosts = Hosts([kind(i, names[i], base / f"node-{i}", subnet, ipv6) for i in range(n)], base, subnet)
    hosts.shared.mkdir()
    hosts.shared.chmod(0o1777)
    return hosts


def _write_files(host: NamespaceHost, hosts_file: str, name_server: str) -> None:
    own = {"127.0.1.1": f"127.0.1.1 {host.name}\n", "right": f"{host.ip} {host.name}\n"}.get(hosts_file, "")
    (host.base / "root").mkdir(parents=True)
    (host.base / "hosts").write_text(f"127.0.0.1 localhost\n{own}::1 localhost ip6-localhost ip6-loopback\n")
    (host.base / "resolv.conf").write_text(f"nameserver {name_server}\noptions timeout:1 attempts:2\n")
    # Without nss-myhostname and nss-resolve, which would know the host's own name on many a developer's machine.
    (host.base / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")


def _hidden(paths: Iterable[str]) -> list[str]:
    """Return those of the folders that a host would not see, because /tmp and /run are its own; the outermost."""
    wanted = {form for path in paths if Path(path).is_dir() for form in (path, os.path.realpath(path))}
    hidden = sorted(path for path in wanted if path.startswith(("/tmp/", "/run/")))  # noqa: S108 (only compared)
    return [path for path in hidden if not any(path.startswith(f"{other}/") for other in hidden)]
