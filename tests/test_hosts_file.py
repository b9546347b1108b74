"""The hosts file: what is planned, and how it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootstrap import timeouts
from bootstrap.errors import HostsError
from bootstrap.host import Host
from bootstrap.model import NodeAddress
from bootstrap.node import hosts_file

IP = "10.0.0.5"
OURS = f"{IP} node1 # ray-bootstrap\n"
DEBIAN = "127.0.0.1\tlocalhost\n127.0.1.1\tnode1\n\n# IPv6\n::1     localhost ip6-localhost\nff02::1 ip6-allnodes\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS),
        ("127.0.0.1 localhost\n", f"127.0.0.1 localhost\n{OURS}"),
        ("127.0.0.1 localhost", f"127.0.0.1 localhost\n{OURS}"),
        (DEBIAN, DEBIAN.replace("127.0.1.1\tnode1\n", "") + OURS),
        ("127.0.0.1 localhost node1\n", f"127.0.0.1 localhost\n{OURS}"),
        ("127.0.1.1\tnode1 other # mine\n", f"127.0.1.1 other # mine\n{OURS}"),
        ("127.0.1.1 a  node1\tb node1\n", f"127.0.1.1 a\tb\n{OURS}"),
        ("10.0.0.9 node1\n", OURS),
        ("10.0.0.9 NODE1 x\n", f"10.0.0.9 x\n{OURS}"),
        (f"10.0.0.9 node1 # ray-bootstrap\n{IP} other\n", f"{IP} other\n{OURS}"),
        (f"{IP} node1\n", None),
        (f"{IP}\tnode1.example.com node1 # all right\n", None),
        (f"{IP} node1\n127.0.1.1 node1\n", f"{IP} node1\n"),
        (f"127.0.1.1 node1\n{IP} node1\n", f"{IP} node1\n"),
        ("::1 localhost node1\n", f"::1 localhost\n{OURS}"),
        (f"::1 node1\n{IP} node1\n", f"{IP} node1\n"),
        (f"2001:db8::5 node1\n{IP} node1\n", None),
        ("2001:db8::5 node1\n", f"2001:db8::5 node1\n{OURS}"),
        ("::ffff:10.0.0.5 node1\n", None),
        ("::ffff:127.0.1.1 node1\n", OURS),
        (f"{IP} node10 node\n", f"{IP} node10 node\n{OURS}"),
        (f"# {IP} node1\n", f"# {IP} node1\n{OURS}"),
        ("127.0.1.1 #node1\n", f"127.0.1.1 #node1\n{OURS}"),
        ("node1 127.0.1.1\n", f"node1 127.0.1.1\n{OURS}"),
        ("  127.0.1.1 node1\n", OURS),
        ("127.0.0.1 localhost\r\n127.0.1.1 node1\r\n", f"127.0.0.1 localhost\r\n{OURS[:-1]}\r\n"),
        ("127.0.0.1 caf\udce9 node1\n", f"127.0.0.1 caf\udce9\n{OURS}"),
    ],
)
def test_plan(before: str, after: str | None) -> None:
    assert hosts_file.plan(before, "node1", IP) == after


@pytest.mark.parametrize(
    ("hostname", "before", "after"),
    [
        ("n.x.com", "", f"{IP} n.x.com n # ray-bootstrap\n"),
        ("n.x.com", f"{IP} n.x.com\n", f"{IP} n.x.com\n{IP} n # ray-bootstrap\n"),
        ("n.x.com", "127.0.1.1 n.x.com n\n", f"{IP} n.x.com n # ray-bootstrap\n"),
        ("n.x.com", f"{IP} n n.x.com\n", None),
        ("Node1", "", f"{IP} Node1 # ray-bootstrap\n"),
        ("localhost", "127.0.0.1 localhost\n", None),
        ("localhost.localdomain", "127.0.0.1 localhost localhost.localdomain\n", None),
        ("10.0.0.7", "", None),
        ("10.x.com", "", f"{IP} 10.x.com # ray-bootstrap\n"),
        ("localhost.x.com", "127.0.0.1 localhost\n", None),
        ("a.b#c", "", None),
        ("", "", None),
        ("two words", "", None),
        ("a#b", "", None),
        ("line\nbreak", "", None),
    ],
)
def test_which_names_are_cared_for(hostname: str, before: str, after: str | None) -> None:
    assert hosts_file.plan(before, hostname, IP) == after


def test_ipv6_node_address() -> None:
    before = "127.0.1.1 node1\n::1 node1\n2001:db8::9 node1\n192.0.2.7 node1\n"
    assert hosts_file.plan(before, "node1", "2001:db8::5") == "192.0.2.7 node1\n2001:db8::5 node1 # ray-bootstrap\n"


def pairs(text: str) -> list[tuple[str, str]]:
    """A second, simpler reading of hosts(5): (name, address) in order."""
    found = []
    for line in text.encode("utf-8", "surrogateescape").split(b"\n"):
        address, *names = [w.decode("utf-8", "surrogateescape") for w in line.split(b"#")[0].split()] or [""]
        found += [(name, address) for name in names]
    return found


blanks = st.sampled_from([" ", "\t", "  "])
names = st.sampled_from(["node1", "NODE1", "node1.example.com", "node10", "localhost", "gw", "ключ", "a_b"])
addresses = st.sampled_from(
    [IP, "10.0.0.9", "127.0.0.1", "127.0.1.1", "::1", "fe00::0", "2001:db8::1", "::ffff:10.0.0.5"]
)
entries = st.builds(
    lambda address, blank, held, comment, end: address + blank + blank.join(held) + comment + end,
    addresses,
    blanks,
    st.lists(names, min_size=1, max_size=4),
    st.sampled_from(["", " # node1", "#x", " "]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
files = st.lists(entries | st.text(max_size=20).map(lambda text: f"#{text}\n"), max_size=8).map("".join) | st.text()


@given(files, st.sampled_from(["node1", "node1.example.com", "gw"]))
@example("127.0.1.1 node1", "node1")
@example("127.0.0.1 localhost\x85node1\n", "node1")
def test_every_plan_names_us_and_leaves_the_others(text: str, hostname: str) -> None:
    after = hosts_file.plan(text, hostname, IP)
    result = text if after is None else after
    ours = {hostname.lower(), hostname.partition(".")[0]}
    assert hosts_file.plan(result, hostname, IP) is None
    assert [p for p in pairs(result) if p[0].lower() not in ours] == [
        p for p in pairs(text) if p[0].lower() not in ours
    ]
    for name in ours:
        ipv4 = [address for held, address in pairs(result) if held.lower() == name and _is_v4(address)]
        assert ipv4
        assert set(ipv4) <= {IP, "::ffff:10.0.0.5"}
    # Comments and blank lines: byte for byte, in their order.
    assert [line for line in result.split("\n") if _silent(line)] == [
        line for line in text.split("\n") if _silent(line)
    ]


def _is_v4(address: str) -> bool:
    return address.replace(".", "").isascii() and (":" not in address or address in ("::1", "::ffff:10.0.0.5"))


def _silent(line: str) -> bool:
    return bool(line.strip(" \t\r")) and not pairs(line)


@given(st.text(), files)
def test_any_hostname(hostname: str, text: str) -> None:
    after = hosts_file.plan(text, hostname, IP)
    if after is not None:
        assert hosts_file.plan(after, hostname, IP) is None
        # One line of ours at most, whatever is in the name.
        assert after.count("\n") <= text.count("\n") + 2


# ensure()


def address(ip: str = IP, interface: str | None = "eth0") -> NodeAddress:
    return NodeAddress(ip=ip, interface=interface, hostname="node1", sources={})


def machine(root: Path, text: str | None = None, **env: str) -> Host:
    path = root / "etc/hosts"
    path.parent.mkdir(exist_ok=True)
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return Host(env=env, hostname="node1", root=root)


def by_file(host: Host, dns: Collection[str] = ()) -> Callable[[str], Collection[str]]:
    """A resolver that reads the host's file first, then asks the DNS."""

    def resolves(name: str) -> Collection[str]:
        return [a for held, a in pairs(host.read("/etc/hosts") or "") if held == name] or list(dns)

    return resolves


def never(name: str) -> Collection[str]:
    raise AssertionError(f"{name} was looked up")


def test_the_file_is_written_in_place(tmp_path: Path) -> None:
    host = machine(tmp_path, DEBIAN + "# caf\udce9\n")
    path = tmp_path / "etc/hosts"
    path.chmod(0o640)
    before = path.stat()
    outcome = hosts_file.ensure("auto", address(), host, by_file(host))
    assert outcome == hosts_file.HostsOutcome(changed=True)
    assert (
        path.read_bytes() == (DEBIAN.replace("127.0.1.1\tnode1\n", "") + "# caf").encode() + b"\xe9\n" + OURS.encode()
    )
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
    assert hosts_file.ensure("require", address(), host, by_file(host)).changed is False


def test_a_shorter_text_leaves_no_tail(tmp_path: Path) -> None:
    host = machine(tmp_path, f"{IP} node1\n127.0.1.1 node1 # {'long ' * 50}\n")
    hosts_file.ensure("auto", address(), host, by_file(host))
    assert (tmp_path / "etc/hosts").read_text() == f"{IP} node1\n"


def test_a_right_file_is_not_opened_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine(tmp_path, f"{IP} node1\n")
    monkeypatch.setattr(hosts_file, "_lock", lambda _: pytest.fail("locked"))
    assert hosts_file.ensure("require", address(), host, by_file(host)) == hosts_file.HostsOutcome(changed=False)


def test_a_name_that_dns_knows_is_not_added(tmp_path: Path) -> None:
    host = machine(tmp_path, "127.0.0.1 localhost\n")
    assert hosts_file.ensure("require", address(), host, by_file(host, [IP])) == hosts_file.HostsOutcome(changed=False)
    assert (tmp_path / "etc/hosts").read_text() == "127.0.0.1 localhost\n"


@pytest.mark.parametrize("dns", [["10.0.0.9"], [IP, "10.0.0.9"], [IP, "127.0.0.1"], [IP, "::1"], []])
def test_a_name_that_dns_has_wrong_is_added(tmp_path: Path, dns: list[str]) -> None:
    host = machine(tmp_path, "127.0.0.1 localhost\n")
    assert hosts_file.ensure("require", address(), host, by_file(host, dns)).changed
    assert (tmp_path / "etc/hosts").read_text() == f"127.0.0.1 localhost\n{OURS}"


def test_off_does_nothing(tmp_path: Path) -> None:
    host = machine(tmp_path, DEBIAN)
    assert hosts_file.ensure("off", address(), host, never) == hosts_file.HostsOutcome(changed=False)
    assert (tmp_path / "etc/hosts").read_text() == DEBIAN


def test_a_node_on_loopback_needs_no_name(tmp_path: Path) -> None:
    host = machine(tmp_path, DEBIAN)
    assert hosts_file.ensure("require", address("127.0.0.1", "lo"), host, never) == hosts_file.HostsOutcome(
        changed=False
    )
    assert (tmp_path / "etc/hosts").read_text() == DEBIAN


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a read-only mount, also for root."""
    real = Path.open

    def refuse(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if "+" in mode or "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return real(self, mode, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.usefixtures("unwritable")
def test_a_read_only_file(tmp_path: Path) -> None:
    path = tmp_path / "etc/hosts"
    path.parent.mkdir()
    path.touch()
    host = Host(env={}, hostname="node1", root=tmp_path)
    outcome = hosts_file.ensure("auto", address(), host, by_file(host, ["127.0.1.1"]))
    assert not outcome.changed
    assert "'node1' resolves to 127.0.1.1, not to the node address 10.0.0.5" in outcome.fault
    assert "Read-only file system" in outcome.fault
    assert f"echo '{IP} node1' >> /etc/hosts" in outcome.remedy


def test_an_address_that_is_on_no_interface_is_not_written(tmp_path: Path) -> None:
    host = machine(tmp_path, DEBIAN)
    outcome = hosts_file.ensure("auto", address(interface=None), host, by_file(host))
    assert not outcome.changed
    assert "stays as it is, as no interface of this machine holds that address" in outcome.fault
    assert "--node-ip=ADDRESS" in outcome.remedy
    assert (tmp_path / "etc/hosts").read_text() == DEBIAN


@pytest.mark.usefixtures("unwritable")
def test_require_is_an_error(tmp_path: Path) -> None:
    host = machine(tmp_path)
    with pytest.raises(HostsError, match=r"resolves to nothing.*cannot be written") as caught:
        hosts_file.ensure("require", address(), host, by_file(host))
    assert caught.value.status == 73
    assert "echo '10.0.0.5 node1'" in caught.value.hint


def test_without_a_file_dns_is_enough(tmp_path: Path) -> None:
    host = machine(tmp_path)
    assert hosts_file.ensure("require", address(), host, by_file(host, [IP])) == hosts_file.HostsOutcome(changed=False)
    assert "'node1' resolves to nothing" in hosts_file.ensure("auto", address(), host, by_file(host)).fault
    assert not (tmp_path / "etc/hosts").exists()


def test_a_resolver_that_does_not_read_the_file(tmp_path: Path) -> None:
    host = machine(tmp_path, "")
    outcome = hosts_file.ensure("auto", address(), host, lambda _: ["127.0.1.1"])
    assert outcome.changed
    assert "nsswitch.conf" in outcome.fault


def test_a_full_disk_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine(tmp_path, DEBIAN)
    real = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        room = len(DEBIAN) - offset
        if data and room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", full)
    (tmp_path / "etc/hosts").write_text(DEBIAN.replace("127.0.1.1\tnode1\n", "# 4567890123456\n"))
    before = (tmp_path / "etc/hosts").read_text()
    outcome = hosts_file.ensure("auto", address(), host, by_file(host))
    assert "No space left on device" in outcome.fault
    assert (tmp_path / "etc/hosts").read_text() == before


def test_two_agents_take_turns(tmp_path: Path) -> None:
    host = machine(tmp_path, DEBIAN)
    path = tmp_path / "etc/hosts"
    started, outcome = threading.Event(), []

    def resolves(name: str) -> Collection[str]:
        return by_file(host)(name)

    def agent() -> None:
        started.set()
        outcome.append(hosts_file.ensure("auto", address(), host, resolves))

    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=agent)
        thread.start()
        started.wait(5)
        # The other agent writes while this one waits for the lock: its line must not be lost.
        other.seek(0, os.SEEK_END)
        other.write("10.0.0.8 written-meanwhile\n")
        other.flush()
        assert "node1 # ray" not in path.read_text()
    thread.join(10)
    assert outcome == [hosts_file.HostsOutcome(changed=True)]
    assert path.read_text() == DEBIAN.replace("127.0.1.1\tnode1\n", "") + f"10.0.0.8 written-meanwhile\n{OURS}"


def test_a_lock_that_is_never_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "HOSTS_FILE_LOCK_S", 0.05)
    host = machine(tmp_path, DEBIAN)
    with (tmp_path / "etc/hosts").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        outcome = hosts_file.ensure("auto", address(), host, by_file(host))
    assert not outcome.changed
    assert "another process holds its lock" in outcome.fault
    assert stat.S_ISREG((tmp_path / "etc/hosts").stat().st_mode)
