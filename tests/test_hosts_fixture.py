"""The hosts of bootstrap/namespaces/ and tests/hosts.py are what they say: the other tests rest on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import Host, Hosts, wait_for

from bootstrap.namespaces.name_server import answer

MakeHosts = Callable[..., Hosts]
pytestmark = pytest.mark.hosts

ECHO_ONCE = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    connection, _ = server.accept()
    connection.sendall(connection.recv(100))
"""
SAY = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as connection:
    connection.sendall(b"hello")
    print(connection.recv(100).decode())
"""
COUNT_SIGNALS = """
import signal, sys
print(signal.sigwait({signal.SIGTERM, signal.SIGUSR1}).name, flush=True)
sys.exit(9)
"""
BLOCK_FIRST = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1]); print('on')\n"


@pytest.fixture(scope="module")
def pair(make_shared_hosts: MakeHosts) -> Hosts:
    """For tests that leave nothing on them."""
    return make_shared_hosts(2, shm_size="64m")


def python(*words: str) -> list[str]:
    return [sys.executable, "-u", "-c", *words]


def listen(host: Host) -> subprocess.Popen[bytes]:
    server = host.popen(python(ECHO_ONCE, host.ip))
    wait_for(lambda: 7000 in host.sockets(), what="the listening socket")
    return server


def connects(host: Host, ip: str, timeout: float = 10) -> bool:
    return host.run(python(SAY, ip, str(timeout)), check=False).stdout == "hello\n"


def test_hosts_reach_each_other_under_their_own_names_and_addresses(pair: Hosts) -> None:
    here, there = pair
    server = listen(there)
    assert connects(here, there.ip)
    assert server.wait(timeout=10) == 0
    assert there.sockets() == frozenset()
    assert [host.run(["uname", "-n"]).stdout for host in (here, there)] == ["node-0\n", "node-1\n"]
    assert f"inet {here.ip}/24" in here.run(["ip", "addr", "show", "eth0"]).stdout
    assert here.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]
    assert Path(here.netns).exists()
    assert socket.gethostname() != "node-0"


def test_ipv6(make_hosts: MakeHosts) -> None:
    here, there = make_hosts(2, ipv6=True)
    server = there.popen(python(ECHO_ONCE.replace("7000)", "7000), family=socket.AF_INET6"), there.ip6 or ""))
    wait_for(lambda: 7000 in there.sockets(), what="the listening socket")
    assert connects(here, there.ip6 or "")
    assert server.wait(timeout=10) == 0


def test_two_sets_do_not_see_each_other(pair: Hosts, make_hosts: MakeHosts) -> None:
    one, (other,) = pair[0], make_hosts(1)
    assert one.ip != other.ip
    server = listen(other)
    assert not connects(one, other.ip, timeout=0.2)
    server.kill()


def test_default_route(pair: Hosts, make_hosts: MakeHosts) -> None:
    (without,) = make_hosts(1, default_route=False)
    assert [bool(host.run(["ip", "route", "show", "default"]).stdout) for host in (pair[0], without)] == [True, False]


@pytest.mark.parametrize(
    ("hosts_file", "addresses"),
    [("absent", []), ("read-only", []), ("127.0.1.1", ["127.0.1.1"]), ("right", ["its own"])],
)
def test_hosts_file_has_the_own_name(make_hosts: MakeHosts, hosts_file: str, addresses: list[str]) -> None:
    (host,) = make_hosts(1, hosts_file=hosts_file)
    lines = [line.split() for line in host.hosts_text.splitlines()]
    expected = [host.ip if address == "its own" else address for address in addresses]
    assert [words[0] for words in lines if host.name in words[1:]] == expected
    found = host.run(["getent", "ahostsv4", host.name], check=False).stdout.split()
    assert found[:1] == expected


def test_hosts_file_is_written_in_place_only_and_by_its_host_only(pair: Hosts) -> None:
    machine = Path("/etc/hosts").read_text()
    here, there = pair
    before = there.hosts_text
    here.run(["sh", "-c", "echo 192.0.2.1 extra >>/etc/hosts"])
    assert here.hosts_text == f"{before}192.0.2.1 extra\n"
    rename = here.run(["sh", "-c", "cp /etc/hosts /tmp/new; mv -T /tmp/new /etc/hosts"], check=False)
    assert "busy" in rename.stderr
    assert (there.hosts_text, Path("/etc/hosts").read_text()) == (before, machine)


def test_read_only_hosts_file_is_read_only_for_root(make_hosts: MakeHosts) -> None:
    (host,) = make_hosts(1, hosts_file="read-only")
    before = host.hosts_text
    attempt = host.run(["sh", "-c", "echo 192.0.2.1 extra >>/etc/hosts"], check=False)
    assert attempt.returncode
    assert "Read-only file system" in attempt.stderr
    assert host.hosts_text == before


def test_tmp_run_and_shm_are_a_hosts_own_and_shared_is_everybodys(pair: Hosts) -> None:
    here, there = pair
    for folder in ("/tmp", "/run", "/dev/shm", "/shared"):
        here.run(["touch", f"{folder}/rb-fixture-test"])
    seen = there.run(["sh", "-c", "ls /*/rb-fixture-test /dev/shm/*"], check=False).stdout.split()
    assert seen == ["/shared/rb-fixture-test"]
    assert (pair.shared / "rb-fixture-test").exists()
    assert not any(Path(folder, "rb-fixture-test").exists() for folder in ("/tmp", "/run", "/dev/shm", "/shared"))
    assert here.run(["df", "--output=size", "-BM", "/dev/shm"]).stdout.split()[-1] == "64M"


def test_folders_below_tmp_can_be_made_visible(pair: Hosts, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("by all")
    assert [host.read(str(tmp_path / "seen")) for host in pair] == ["by all"] * 2


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -9 $$"], -signal.SIGKILL),
        (["/no/such/program"], 127),
        (["/etc/hosts"], 126),
    ],
)
def test_exit_statuses(pair: Hosts, command: list[str], status: int) -> None:
    host = pair[0]
    assert host.popen(command).wait(timeout=10) == status


def test_exit_statuses_as_pid_1(pair: Hosts) -> None:
    host = pair[0]
    assert host.popen_as_pid1(["sh", "-c", "exit 3"]).wait(timeout=10) == 3
    # The kernel shields a PID 1 from the signals that it sends to itself, even SIGKILL.
    shielded = host.popen_as_pid1(["sh", "-c", "echo $$; kill -9 $$; exit 4"])
    assert (shielded.wait(timeout=10), host.out(shielded)) == (4, "1\n")


@pytest.mark.parametrize("start", [Host.popen, Host.popen_as_pid1])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_command_itself(pair: Hosts, start: Callable[..., object], signum: int) -> None:
    host = pair[0]
    process = start(host, python(BLOCK_FIRST + COUNT_SIGNALS))
    assert isinstance(process, subprocess.Popen)
    wait_for(lambda: host.out(process), what="the command's first line")
    assert {p.pid for p in host.pids()} == {host.init, process.pid}
    process.send_signal(signum)
    assert process.wait(timeout=10) == 9
    assert host.out(process) == f"on\n{signal.Signals(signum).name}\n"


def test_sigterm_is_lost_on_a_pid_1_without_a_handler_and_deadly_otherwise(pair: Hosts) -> None:
    host = pair[0]
    plain, first = host.popen(["sleep", "60"]), host.popen_as_pid1(["sh", "-c", "echo on; exec sleep 60"])
    wait_for(lambda: host.out(first), what="the first line")
    for process in (plain, first):
        process.send_signal(signal.SIGTERM)
    assert plain.wait(timeout=10) == -signal.SIGTERM
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    assert first.wait(timeout=10) == -signal.SIGKILL


def test_leftovers_are_named_and_orphans_are_reaped(make_hosts: MakeHosts) -> None:
    (host,) = make_hosts(1)
    assert host.leftovers() == []
    assert host.popen(["sh", "-c", "sleep 61 & setsid sleep 62 & true & exit"]).wait(timeout=10) == 0
    expected = ["sleep 61", "sleep 62"]  # and not the orphan that ended
    wait_for(lambda: sorted(p.cmdline for p in host.leftovers()) == expected, what="the list of orphans")
    assert {p.ppid for p in host.leftovers()} == {host.init}


def test_killing_a_host_ends_everything_on_it_and_nothing_elsewhere(make_hosts: MakeHosts) -> None:
    here, there = make_hosts(2)
    first = here.popen_as_pid1(["sh", "-c", "setsid sleep 60 & echo on; sleep 60"])
    plain, spared = here.popen(["sh", "-c", "setsid sleep 60 & echo on; sleep 60"]), there.popen(["sleep", "60"])
    wait_for(lambda: here.out(first) and here.out(plain), what="both first lines")
    pids = [p.pid for p in here.pids()]
    assert len(pids) > 4
    here.kill()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert (first.wait(), plain.wait(), spared.poll()) == (-signal.SIGKILL, -signal.SIGKILL, None)
    assert here.leftovers() == []


def test_nothing_outlives_the_context(make_hosts: MakeHosts) -> None:
    with make_hosts(2) as hosts:
        pids = [p.pid for host in hosts for p in host.pids()]
        pids.append(hosts[0].popen_as_pid1(["sleep", "60"]).pid)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_the_hosts_end_when_the_tests_are_killed(tmp_path: Path) -> None:
    program = f"""
import signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from hosts import make_hosts, wait_for
hosts = make_hosts(1, base=Path({str(tmp_path)!r}, "hosts"), dns={{}})
hosts[0].popen(["sleep", "60"], cwd="/")
first = hosts[0].popen_as_pid1(["sh", "-c", "echo on; exec sleep 60"], cwd="/")
wait_for(lambda: hosts[0].out(first))
print("up", flush=True)
signal.pause()
"""
    with subprocess.Popen(python(program), stdout=subprocess.PIPE, env={**os.environ}) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"up\n"
        tests.kill()
    # Whether anything of it is left is what the fixture ``nothing_left`` looks at.


@pytest.mark.parametrize(("cut", "mend"), [(Host.disconnect, Host.reconnect), (Host.drop, Host.undrop)])
def test_a_host_can_be_cut_off_and_mended(
    pair: Hosts, cut: Callable[[Host], None], mend: Callable[[Host], None]
) -> None:
    here, there = pair
    server = listen(there)
    cut(there)
    assert ("NO-CARRIER" in there.run(["ip", "link", "show", "eth0"]).stdout) is (cut is Host.disconnect)
    refused = here.run(python(SAY, there.ip, "0.2"), check=False)
    assert "TimeoutError" in refused.stderr  # silence, not an answer such as "no route to host"
    mend(there)
    assert connects(here, there.ip)
    assert server.wait(timeout=10) == 0


def test_a_name_server_that_refuses_at_once(pair: Hosts) -> None:
    host = pair[0]
    lookup = "import socket, time; t = time.monotonic(); print(socket.gethostbyname_ex.__name__)\n"
    lookup += "try: socket.getaddrinfo('head.example', 1)\nexcept socket.gaierror: print(time.monotonic() - t < 1)"
    assert host.run(python(lookup)).stdout.split()[-1] == "True"


def test_the_name_server_answers_and_learns(make_hosts: MakeHosts) -> None:
    hosts = make_hosts(2, dns={"Job-0.svc": "10.9.8.7", "both.svc": ["10.9.8.6", "fd77::6"]}, default_route=False)
    for host in hosts:
        assert host.run(["getent", "ahostsv4", "job-0.SVC"]).stdout.split()[0] == "10.9.8.7"
        assert host.run(["getent", "ahostsv6", "both.svc"]).stdout.split()[0] == "fd77::6"
        assert host.run(["getent", "ahosts", "late.svc"], check=False).returncode == 2
    hosts.set_names({"late.svc": hosts[0].ip})
    assert hosts[1].run(["getent", "ahostsv4", "late.svc"]).stdout.split()[0] == hosts[0].ip
    assert hosts[1].run(["getent", "ahosts", "job-0.svc"], check=False).returncode == 2


def test_the_name_server_can_be_slow(make_hosts: MakeHosts) -> None:
    (host,) = make_hosts(1, dns={"a.svc": "10.9.8.7"}, dns_delay=0.2)
    timed = "import socket, time; t = time.monotonic(); socket.gethostbyname('a.svc'); print(time.monotonic() - t)"
    assert 0.2 <= float(host.run(python(timed)).stdout) < 5


def test_commands_get_a_clean_environment(pair: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    host = pair[0]
    environment = host.run(["env"], env={"EXTRA": "2"}).stdout.splitlines()
    assert "EXTRA=2" in environment
    assert not any(line.startswith("SLURM_") for line in environment)


def test_wrong_options_are_refused_and_half_a_start_is_taken_down(make_hosts: MakeHosts) -> None:
    with pytest.raises(ValueError, match="hosts_file='wrong'"):
        make_hosts(1, hosts_file="wrong")
    with pytest.raises(RuntimeError, match="node-0 did not come up"):
        make_hosts(2, shm_size="plenty")


def test_answer_of_a_name_without_that_kind_of_address_is_empty_not_an_error() -> None:
    import dnslib

    def ask(name: str, kind: str) -> tuple[str, list[str]]:
        query = dnslib.DNSRecord.question(name, kind).pack()
        reply = dnslib.DNSRecord.parse(answer(query, {"a.b": ["10.0.0.1", "10.0.0.2"]}))
        return dnslib.RCODE[reply.header.rcode], [str(record.rdata) for record in reply.rr]

    assert ask("A.b.", "A") == ("NOERROR", ["10.0.0.1", "10.0.0.2"])
    assert ask("a.b", "AAAA") == ("NOERROR", [])
    assert ask("c.b", "A") == ("NXDOMAIN", [])
