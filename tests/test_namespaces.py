"""Hosts of namespaces without root, and the faults that they can be given; the rest is in test_hosts_fixture.py."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, Hosts, wait_for
from unprivileged import NOBODY, as_nobody

from bootstrap.host import Host as Machine
from bootstrap.namespaces import closed

MakeHosts = Callable[..., Hosts]
NAMESPACES = ("linux", "root", "ip", "unshare", "nsenter", "setpriv", "namespaces", "user-namespaces")

FAULT = "from bootstrap.namespaces.enter import fault; print(fault())"
TWO_HOSTS = """
import os, sys
from pathlib import Path
from bootstrap.namespaces.enter import enter
from bootstrap.namespaces.hosts import make_hosts
status = enter()
if status is not None:
    sys.exit(status)
with make_hosts(2, base=Path(sys.argv[1], "hosts"), names=["head", "worker-1"], dns={"a.svc": "10.9.8.7"}) as hosts:
    print(os.getpid(), os.getuid(), *(host.name for host in hosts), flush=True)
    process = hosts[1].popen(["sh", "-c", sys.argv[2]], cwd="/", env={"PATH": os.environ["PATH"], "HOME": "/nowhere"})
    sys.exit(process.wait())
"""
WAIT_FOR_SIGNALS = """
import os, signal, subprocess, sys, time
from bootstrap.namespaces.enter import enter
status = enter()
if status is not None:
    sys.exit(status)
received = []
def say(*words):  # not print(), which a signal may find in the middle of itself
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
for signum in (signal.SIGINT, signal.SIGHUP):
    signal.signal(signum, lambda number, _: (received.append(number), say("got", number)))
sleeping = subprocess.Popen(["sleep", "1000"])
try:
    say("up")
    while True:
        time.sleep(0.05)  # not signal.pause(): one that came just before would be noticed after the next
finally:
    sleeping.kill()
    say("all", *received)
"""


def root(*argv: str, needs: Sequence[Path] = ()) -> list[str]:
    return list(argv)


EITHER_USER = pytest.mark.parametrize("as_user", [root, as_nobody])


def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def started(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Killed on the way out of a failed test, for which it may not end by itself."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that user 65534 may write."""
    os.chown(tmp_path, NOBODY, NOBODY)
    return tmp_path


@pytest.mark.requires(*NAMESPACES)
@EITHER_USER
def test_hosts_can_be_made_by_anybody(as_user: Callable[..., list[str]], folder: Path) -> None:
    command = """
    id -u; uname -n; pwd; echo $HOME; touch $HOME/x /tmp/x /run/x /dev/shm/x /shared/x && echo written
    echo 10.9.8.6 b.svc >>/etc/hosts; getent hosts a.svc b.svc | cut -d' ' -f1; grep CapEff /proc/self/status
    exit 7
    """
    argv = as_user(sys.executable, "-c", TWO_HOSTS, str(folder), command, needs=[folder])
    made = run(["env", "PATH=/usr/bin:/bin", *argv])  # a user's, without /sbin
    uid = 0 if as_user is root else NOBODY
    expected = ["1 0 head worker-1", str(uid), "worker-1", "/", "/tmp/home", "written", "10.9.8.7", "10.9.8.6"]
    assert made.stdout.splitlines()[:-1] == expected, made.stderr
    assert (made.stdout.split()[-1] == "0000000000000000") is (uid == NOBODY)
    assert made.returncode == 7


@pytest.mark.requires(*NAMESPACES)
@EITHER_USER
def test_they_all_end_with_the_process_that_entered(as_user: Callable[..., list[str]], folder: Path) -> None:
    argv = as_user(sys.executable, "-c", TWO_HOSTS, str(folder), "echo on; exec sleep 1000", needs=[folder])
    with started(argv) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["1 0 head worker-1\n", "on\n"]
        process.kill()
        assert process.communicate(timeout=30)[0] == ""  # all that held it have ended
    # The fixture ``nothing_left`` looks for the others.


@pytest.mark.requires(*NAMESPACES)
@EITHER_USER
def test_a_terminals_signals_arrive_once(as_user: Callable[..., list[str]]) -> None:
    ours, theirs = pty.openpty()
    argv = ["setsid", "--ctty", *as_user(sys.executable, "-c", WAIT_FOR_SIGNALS)]
    with started(argv, stdin=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        os.write(ours, b"\x03")
        assert process.stdout.readline() == f"got {signal.SIGINT:d}\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == f"got {signal.SIGHUP:d}\n"
        process.send_signal(signal.SIGTERM)  # without a handler of the child's own
        assert process.stdout.readline() == f"all {signal.SIGINT:d} {signal.SIGHUP:d}\n"
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    os.close(ours)


@pytest.mark.requires(*NAMESPACES)
def test_a_ctrl_c_before_there_is_a_handler_ends_it_without_a_word() -> None:
    wait = "import sys, time\nfrom bootstrap.namespaces.enter import enter\nstatus = enter()\nif status is not None:\n"
    wait += "    sys.exit(status)\nprint('up', flush=True)\ntime.sleep(1000)\n"
    with started(as_nobody(sys.executable, "-c", wait), stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 128 + signal.SIGINT


@pytest.mark.requires(*NAMESPACES)
def test_fault_finds_none_and_names_the_number_that_closes_them() -> None:
    assert run(as_nobody(sys.executable, "-c", FAULT)).stdout == "\n"
    # Root of a namespace that may have no other, and without the capabilities to do without.
    close = 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all -- "$0" -c "$1"'
    argv = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", close, sys.executable, FAULT]
    assert run(as_nobody(*argv)).stdout == (
        "a user namespace: No space left on device: user.max_user_namespaces is 0;"
        " fix: sudo sysctl -w user.max_user_namespaces=10000\n"
    )


@pytest.mark.requires(*NAMESPACES)
def test_fault_knows_a_container_by_its_proc() -> None:
    hide = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/version; exec "$@"', "sh"]
    said = run([*hide, *as_nobody(sys.executable, "-c", FAULT)]).stdout
    assert said.startswith(
        "a /proc of our own: Operation not permitted: as in a container; fix: docker run --security-opt"
    )
    assert "systempaths=unconfined" in said


@pytest.mark.requires(*NAMESPACES)
def test_fault_names_the_package_of_a_missing_command(tmp_path: Path) -> None:
    argv = ["env", f"PATH={tmp_path}", sys.executable, "-c", FAULT]
    assert run(argv).stdout == "not installed: iproute2, util-linux; fix: apt-get install iproute2 util-linux\n"


@pytest.mark.parametrize(
    ("step", "number", "files", "said"),
    [
        (
            closed.USER,
            errno.EPERM,
            {"sys/kernel/unprivileged_userns_clone": "0"},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            closed.IDS,
            errno.EPERM,
            {
                "sys/kernel/apparmor_restrict_unprivileged_userns": "1",
                "self/attr/current": "unprivileged_userns (enforce)\n",
            },
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            closed.USER,
            errno.EPERM,
            {
                "sys/kernel/apparmor_restrict_unprivileged_userns": "1",
                "self/attr/current": "docker-default (enforce)\n",
                "self/status": "NoNewPrivs:\t0\nSeccomp:\t2\n",
            },
            "docker run --security-opt seccomp=unconfined",
        ),
        (closed.PRIVATE, errno.EACCES, {"self/status": "Seccomp:\t0\n"}, "apparmor=unconfined"),
        (closed.USER, errno.EPERM, {"self/status": "Seccomp:\t0\n"}, "fix: run as root"),
        (closed.OWN, errno.ENOSPC, {"sys/user/max_mnt_namespaces": "4"}, "user.max_mnt_namespaces is 4"),
        (closed.USER, errno.EINVAL, {}, "CONFIG_USER_NS"),
    ],
)
def test_who_closed_them_is_told_by_what_the_system_shows(
    tmp_path: Path, step: str, number: int, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = Machine(env={}, hostname="here", root=tmp_path)
    assert said in closed.reason(machine, OSError(number, os.strerror(number), step))


ECHO = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], 7000))
print("on", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(1))
        digest = hashlib.sha256()
        while data := connection.recv(1 << 20):
            digest.update(data)
        connection.sendall(digest.digest())
"""
TALK = """
import hashlib, os, socket, sys, time
size = int(sys.argv[2])
data = os.urandom(1 << 20) * size
with socket.create_connection((sys.argv[1], 7000), timeout=30) as connection:
    begun = time.monotonic()
    connection.sendall(b"x")
    connection.recv(1)
    trip, begun = time.monotonic() - begun, time.monotonic()
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    whole = connection.makefile("rb").read() == hashlib.sha256(data).digest()
print(trip, size / (time.monotonic() - begun), whole)
"""
TRY = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 7000), timeout=10).close()
        print("connected")
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


@pytest.fixture(scope="module")
def pair(make_shared_hosts: MakeHosts) -> Hosts:
    return make_shared_hosts(2, ipv6=True)


def echo(host: Host, address: str) -> subprocess.Popen[bytes]:
    server = host.popen([sys.executable, "-c", ECHO, address])
    wait_for(lambda: 7000 in host.sockets(), what="the listening socket")
    return server


@pytest.mark.hosts
def test_a_slow_host(pair: Hosts) -> None:
    here, there = pair
    server = echo(there, there.ip)

    def talk(mebibytes: int = 0) -> tuple[float, float]:
        words = here.run([sys.executable, "-c", TALK, there.ip, str(mebibytes)]).stdout.split()
        assert words[2] == "True"
        return float(words[0]), float(words[1])

    there.slow(0.25)
    assert 0.5 <= talk()[0] < 5
    there.slow(0.001)
    trip, speed = talk(32)
    assert 0.002 <= trip < 0.25
    assert speed > 20  # MiB/s; without the kernel's segments a tenth of that
    there.drop()
    assert here.run([sys.executable, "-c", TRY.replace("=10", "=0.2"), there.ip]).stdout == "TimeoutError None\n"
    there.undrop()
    there.disconnect()
    there.reconnect()
    there.slow(0.25)
    assert 0.5 <= talk()[0] < 5
    there.slow(0)
    assert talk()[0] < 0.25
    server.kill()


@pytest.mark.hosts
def test_a_host_that_refuses(make_hosts: MakeHosts) -> None:
    here, there = make_hosts(2, ipv6=True)
    assert there.ip6
    there.popen(
        [sys.executable, "-c", ECHO.replace("(sys", "('', 7000), family=socket.AF_INET6, dualstack_ipv6=True) #")]
    )
    wait_for(lambda: 7000 in there.sockets(), what="the listening socket")
    attempt = [sys.executable, "-c", TRY, there.ip, there.ip6]
    for port in (7001, 7002):
        there.refuse(port)
    assert here.run(attempt).stdout == "connected\nconnected\n"
    there.refuse(7000)
    assert here.run(attempt).stdout.split() == [
        "OSError",
        str(errno.EHOSTUNREACH),
        "PermissionError",
        str(errno.EACCES),
    ]
    assert there.run([*attempt, "127.0.0.1"]).stdout == "connected\n" * 3
    with pytest.raises(ValueError, match="port 0"):
        there.refuse(0)


MACHINE = """
set -eu
ip link set lo up
ip addr add 192.0.2.1/32 dev lo
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
mount -t tmpfs -o mode=755 none /dev/net
mknod -m 666 /dev/net/tun c 10 200
echo nameserver 192.0.2.1 >"$1/resolv.conf"
mount --bind "$1/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"""
"""A network with an address that is not loopback's, a name server, and /dev/net/tun as distributions have it."""
EGRESS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from bootstrap.namespaces import name_server
from bootstrap.namespaces.enter import enter
from bootstrap.namespaces.hosts import make_hosts
listener = socket.create_server(("192.0.2.1", 7000))
inner = socket.create_server(("127.0.0.1", 7001))
status = enter()
if status is not None:
    sys.exit(status)
folder = Path(sys.argv[1])
(folder / "names.json").write_text('{"far.example": "192.0.2.1"}')
argv = [sys.executable, name_server.__file__, "192.0.2.1", str(folder / "names.json")]
with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as names:
    names.stdout.readline()
    for number, dns in enumerate((None, {"near.svc": "10.9.8.7"})):
        with make_hosts(2, base=folder / str(number), dns=dns, egress=True) as hosts:
            print(hosts.no_egress)
            for host in hosts:
                say = "import socket; socket.create_connection(('far.example', 7000), 10).sendall(b'hello')"
                with host.popen([sys.executable, "-c", say], cwd="/") as process:
                    listener.settimeout(20)
                    connection, _ = listener.accept()
                    print(connection.recv(100).decode(), process.wait())
            say = "import socket; print(socket.create_connection(('10.77.%d.2', 7001), 5))" % number
            print(hosts[0].run([sys.executable, "-c", say], check=False).returncode)
            print(hosts[0].run(["getent", "hosts", "near.svc"], check=False).stdout.split()[:1])
    names.stdin.close()
"""


@pytest.mark.requires(*NAMESPACES, "slirp4netns")
@EITHER_USER
def test_hosts_reach_what_the_machine_reaches(as_user: Callable[..., list[str]], folder: Path) -> None:
    outside = ["unshare", "--net", "--mount", "--", "sh", "-c", MACHINE, "sh", str(folder)]
    made = run([*outside, *as_user(sys.executable, "-c", EGRESS, str(folder), needs=[folder])])
    reached = ["", "hello 0", "hello 0", "1"]
    assert made.stdout.splitlines() == [*reached, "[]", *reached, "['10.9.8.7']"], made.stderr
    assert made.returncode == 0


@pytest.mark.hosts
def test_without_slirp4netns_it_says_how_to_get_it(make_hosts: MakeHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_hosts(1).no_egress == "it was not asked for"
    monkeypatch.setattr("shutil.which", lambda _: None)
    hosts = make_hosts(1, egress=True)
    assert hosts.no_egress == "slirp4netns is not installed; fix: apt-get install slirp4netns"
    assert hosts[0].read("/etc/resolv.conf").startswith("nameserver 127.0.0.1\n")
