"""N real hosts on one machine, made of Linux namespaces; needs root.

A host has its own address, name, PIDs, root folder (with its own ``/tmp``, ``/run`` and ``/dev/shm``), ``/etc/hosts``,
``/etc/resolv.conf``, and ``/shared``, which all hosts of a set share. The hosts hang on a bridge in a network namespace
of its own; no namespace has a name, so nothing of this machine changes and nothing can stay: each ends with the
process that holds it, and those read a pipe from the tests and end when the tests do, however that happens.

A command on a host is a **direct child** of the tests, although it lives in the host's PID namespace: its ``Popen.pid``
is the command itself, a signal sent to it arrives there, and ``wait()`` gives its own status (-n: killed by signal n).
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dns_server import write_names
from namespaces import Process, ip, line_within, wait_for
from one_host import MARK, Host

__all__ = ["HOSTS_FILES", "MARK", "Host", "Hosts", "Process", "make_hosts", "wait_for"]

HOSTS_FILES = ("absent", "127.0.1.1", "right", "read-only")
_HERE = Path(__file__).parent
_subnets = itertools.count()


class Hosts(Sequence[Host]):
    """The hosts of one set and the switch between them; a context manager that takes everything down."""

    def __init__(self, hosts: Sequence[Host], base: Path, subnet: int) -> None:
        self._hosts = hosts
        self.base = base
        self.shared = base / "shared"
        """What the hosts see as /shared, on this side."""
        self.gateway = f"10.77.{subnet}.254"
        """The switch's own address: the DNS server's, and that of the default route."""
        self._helpers: list[subprocess.Popen[bytes]] = []

    def __getitem__(self, index: Any) -> Any:
        return self._hosts[index]

    def __len__(self) -> int:
        return len(self._hosts)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_names(self, names: Mapping[str, str | Sequence[str]]) -> None:
        """What the DNS server knows from its next query on: name → one or more addresses."""
        write_names(self.base / "names.json", names)

    def transcripts(self) -> Iterator[tuple[str, str]]:
        """(title, last 4 kB) of everything that the hosts' commands wrote, for the report of a failed test."""
        for path in sorted(self.base.glob("*/*.out")) + sorted(self.base.glob("*/*.err")):
            if text := path.read_text(errors="replace")[-4096:]:
                yield f"{path.parent.name}: {path.name}", text

    def close(self) -> None:
        """Ends all hosts and the switch, and thereby their namespaces."""
        for host in self._hosts:
            host.kill()
        for process in self._helpers:
            process.kill()
            process.wait(timeout=30)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def start(self, default_route: bool, shm_size: str, read_only: bool, visible: Sequence[str]) -> None:
        """Starts the switch, then all hosts at once, then connects them."""
        switch = self._help(["unshare", "--net", "--", "sh", "-c", "echo ready; exec cat >/dev/null"])
        mac = "02:77:00:00:00:fe"
        bridge = f"link add br0 address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ip(switch, [bridge, f"addr add {self.gateway}/24 dev br0", "link set br0 up", "link set lo up"])
        for host in self._hosts:
            host.start(switch, shm_size, read_only, _hidden(visible))
        for host in self._hosts:
            host.connect((self.gateway, mac), self._hosts, default_route, timeout=30)

    def serve_names(self, names: Mapping[str, str | Sequence[str]], delay: float, cache: float) -> None:
        """Starts the DNS server at the switch's address."""
        self.set_names(names)
        argv = [sys.executable, str(_HERE / "dns_server.py"), self.gateway, str(self.base / "names.json")]
        argv += [str(delay), str(cache)]
        enter = ["nsenter", "-t", str(self._helpers[0].pid), "--net", "--"]
        self._help([*enter, "setpriv", "--pdeathsig", "KILL", "--", *argv])

    def _help(self, argv: Sequence[str]) -> int:
        with (self.base / f"helper-{len(self._helpers)}.err").open("wb") as errors:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self._helpers.append(process)
        if not line_within(process.stdout, 30):
            raise RuntimeError(f"{argv} did not come up: {Path(errors.name).read_text()}")
        return process.pid


def make_hosts(
    n: int,
    *,
    base: Path,
    hosts_file: str = "absent",
    default_route: bool = True,
    dns: Mapping[str, str | Sequence[str]] | None = None,
    dns_delay: float = 0.0,
    dns_cache: float = 0.0,
    shm_size: str = "1g",
    ipv6: bool = False,
    visible: Iterable[str] = (),
) -> Hosts:
    """``n`` hosts, up and connected, with their files below the new folder ``base``.

    ``hosts_file`` says where /etc/hosts has the host's own name: nowhere (``absent``; ``read-only`` is the same on a
    read-only mount), at ``127.0.1.1``, or at its address (``right``). Without ``dns`` a name server refuses at once;
    with it, one answers for these names (see ``Hosts.set_names``) after ``dns_delay`` seconds, and repeats each answer
    for ``dns_cache`` seconds. ``visible`` are folders that the hosts see although they lie below /tmp or /run.
    """
    if hosts_file not in HOSTS_FILES or not 1 <= n <= 200:
        raise ValueError(f"hosts_file={hosts_file!r}: one of {HOSTS_FILES}; n={n}: 1 to 200")
    subnet = next(_subnets) % 250
    base.mkdir(parents=True)
    hosts = Hosts([Host(i, base / f"node-{i}", subnet, ipv6) for i in range(n)], base, subnet)
    hosts.shared.mkdir()
    hosts.shared.chmod(0o1777)
    for host in hosts:
        _write_files(host, hosts_file, hosts.gateway if dns is not None else "127.0.0.1")
    try:
        hosts.start(default_route, shm_size, hosts_file == "read-only", list(visible))
        if dns is not None:
            hosts.serve_names(dns, dns_delay, dns_cache)
    except BaseException:
        hosts.close()
        raise
    return hosts


def _write_files(host: Host, hosts_file: str, name_server: str) -> None:
    own = {"127.0.1.1": f"127.0.1.1 {host.name}\n", "right": f"{host.ip} {host.name}\n"}.get(hosts_file, "")
    (host.base / "root").mkdir(parents=True)
    (host.base / "hosts").write_text(f"127.0.0.1 localhost\n{own}::1 localhost ip6-localhost ip6-loopback\n")
    (host.base / "resolv.conf").write_text(f"nameserver {name_server}\noptions timeout:1 attempts:2\n")
    # Without nss-myhostname and nss-resolve, which would know the host's own name on many a developer's machine.
    (host.base / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")


def _hidden(paths: Iterable[str]) -> list[str]:
    """Those of the folders that a host would not see, because it has a /tmp and a /run of its own; the outermost."""
    wanted = {form for path in paths if Path(path).is_dir() for form in (path, os.path.realpath(path))}
    hidden = sorted(path for path in wanted if path.startswith(("/tmp/", "/run/")))
    return [path for path in hidden if not any(path.startswith(f"{other}/") for other in hidden)]
