"""Where is the head? One contract for all back ends, then what is each one's own."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap import net, timeouts
from bootstrap.errors import IdentityError, UsageError
from bootstrap.files import ownership
from bootstrap.files.manifest import Manifest, remove_owned_files
from bootstrap.files.secret import Channel, Secret, generate
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous import BACK_ENDS, Lookup, Rendezvous, make, rollcall_ports
from bootstrap.rendezvous.dns import by_name
from bootstrap.rendezvous.other_heads import keep_fresh
from bootstrap.rendezvous.own_folder import RECORD_MAX
from bootstrap.rendezvous.shared_dir import SharedFolder
from bootstrap.rendezvous.slurm import first
from bootstrap.rendezvous.slurm import hosts as slurm_hosts
from bootstrap.settings import Settings, options

HEAD = "127.0.0.1"
SECRET = "5ec2e7" * 10
"""As a head makes it, in the text of its record."""
SLURM_ENV = {"SLURM_STEP_NODELIST": "127.0.0.[1-3]", "SLURM_JOB_NODELIST": "other[1-9]"}


def identity(rendezvous: str = "file", **changes: Any) -> NodeIdentity:
    known = NodeIdentity("test", Role.WORKER, 1, 2, "run/7 ü", 0, rendezvous, (HEAD,))
    return dataclasses.replace(known, **changes)


def node(tmp_path: Path, rendezvous: str, env: dict[str, str] | None = None, **changes: Any) -> Rendezvous:
    settings = Settings(shared_dir=str(tmp_path))
    return make(settings, identity(rendezvous, **changes), Host(SLURM_ENV if env is None else env, "node"))


def announce(rendezvous: Rendezvous, head: HeadAddress, secret: bytes | None) -> None:
    if rendezvous.record is not None:
        rendezvous.record.announce(head, secret)


def remove(rendezvous: Rendezvous | SharedFolder, head: HeadAddress | None = None, secret: bytes | None = None) -> None:
    """Do what the clean-up does with what the manifest names; without ``head``, on a worker."""
    record = rendezvous if isinstance(rendezvous, SharedFolder) else rendezvous.record
    if record is not None:
        files = {} if head is None else record.owned_files(head, secret)
        remove_owned_files(Manifest(owned_files=files, owned_dirs=record.owned_dirs))


# --- the contract


@pytest.mark.parametrize("name", BACK_ENDS)
@pytest.mark.parametrize("secret", [None, SECRET.encode()])
def test_a_worker_finds_the_head_that_announced(tmp_path: Path, name: str, secret: bytes | None) -> None:
    head, worker = node(tmp_path, name, role=Role.HEAD, rank=0), node(tmp_path, name)
    assert worker.place
    before = worker.lookup()
    assert before.secret is None
    address = HeadAddress(HEAD, rollcall_ports(Settings(), identity())[0])
    for _ in range(2):
        announce(head, address, secret)
        found = worker.lookup()
        assert (address.host, address.port) in [(c.host, c.port) for c in found.candidates]
        assert all(c.source and 0 < c.port < 65536 for c in found.candidates)
        assert list(found.faults) == []
        assert found.secret == (secret if worker.record else None)
    remove(worker)
    assert worker.lookup() == found
    for _ in range(2):
        remove(head, address, secret)
        assert list(tmp_path.iterdir()) == []
    assert worker.lookup() == before
    remove(worker)
    assert list(tmp_path.iterdir()) == []


def test_every_back_end_is_a_choice_of_the_option() -> None:
    (option,) = (option for option in options() if option.name == "rendezvous")
    assert option.metadata["metavar"].split("|") == ["auto", *BACK_ENDS]
    assert all(option.metadata["parse"](name) == name for name in BACK_ENDS)


@pytest.mark.parametrize("name", BACK_ENDS)
def test_only_a_record_makes_files(tmp_path: Path, name: str) -> None:
    rendezvous = node(tmp_path, name)
    assert (rendezvous.record is not None) == (name == "file")
    if rendezvous.record is None:
        return
    files = rendezvous.record.owned_files(HeadAddress(HEAD, 1), SECRET.encode())
    assert all(str(Path(path).parent) in rendezvous.record.owned_dirs for path in files)
    assert SECRET not in repr((files, rendezvous))


def test_a_lookup_never_shows_its_secret() -> None:
    assert SECRET not in repr(Lookup(secret=SECRET.encode()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Lookup().secret = b""  # type: ignore[misc]


@pytest.mark.parametrize("name", BACK_ENDS)
def test_a_run_of_one_node_needs_no_rendezvous(name: str) -> None:
    alone = identity(name, role=Role.HEAD, rank=0, size=1, head_hints=())
    rendezvous = make(Settings(), alone, Host({}, "node"))
    announce(rendezvous, HeadAddress(HEAD, 1), SECRET.encode())
    assert list(rendezvous.lookup().candidates) == []


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("static", IdentityError, "--head-address"),
        ("slurm", IdentityError, "srun"),
        ("dns", IdentityError, "clusterIP: None"),
        ("file", UsageError, "--shared-dir"),
        ("smoke", UsageError, "--help"),
    ],
)
def test_without_any_word_of_the_head_it_says_what_to_give(name: str, error: type[Exception], hint: str) -> None:
    with pytest.raises(error) as caught:
        make(Settings(), identity(name, head_hints=()), Host({}, "node"))
    assert hint in getattr(caught.value, "hint", "")


def test_a_static_head_needs_no_address_of_itself() -> None:
    head = identity("static", role=Role.HEAD, rank=0, head_hints=())
    assert list(make(Settings(), head, Host({}, "node")).lookup().candidates) == []


# --- the roll call's ports


@given(st.text())
def test_the_ports_follow_from_the_run_id(run_id: str) -> None:
    ports = rollcall_ports(Settings(), identity(run_id=run_id))
    assert ports == rollcall_ports(Settings(head_timeout=1.0), identity(run_id=run_id, rank=0))
    assert len(set(ports)) == 4
    assert all(20000 <= port <= 29999 for port in ports)


def test_runs_differ_in_their_ports_and_an_option_decides() -> None:
    assert len({rollcall_ports(Settings(), identity(run_id=f"run-{i}")) for i in range(50)}) == 50
    assert rollcall_ports(Settings(rollcall_port=7000), identity()) == (7000,)


# --- static and dns


@pytest.mark.parametrize(
    ("hint", "host"), [("h", "h"), ("h:6379", "h"), ("fd00::1", "fd00::1"), ("[fd00::1]:6379", "fd00::1")]
)
def test_a_hint_keeps_its_name_and_loses_its_gcs_port(hint: str, host: str) -> None:
    found = make(Settings(rollcall_port=7000), identity("static", head_hints=(hint,)), Host({}, "n")).lookup()
    assert [(c.host, c.port) for c in found.candidates] == [(host, 7000)]


def test_the_likeliest_port_is_tried_on_every_host_first() -> None:
    rendezvous = make(Settings(), identity("static", head_hints=("a", "b")), Host({}, "n"))
    ports = rollcall_ports(Settings(), identity())
    assert [(c.host, c.port) for c in rendezvous.lookup().candidates] == [(h, p) for p in ports for h in ("a", "b")]


def test_dns_asks_anew_and_takes_both_families() -> None:
    answers: list[list[str] | OSError] = [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        ["10.0.0.1", "fd00::1"],
        ["10.0.0.2"],
    ]

    def resolve(name: str) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    dns = by_name(("head.svc",), (7000, 7001), resolve)
    for reason in ("Name or service not known", "Temporary failure in name resolution"):
        found = dns.lookup()
        assert list(found.candidates) == []
        assert list(found.faults) == [f"head.svc does not resolve yet: {reason}"]
    found = dns.lookup()
    assert list(map(str, found.candidates)) == ["10.0.0.1:7000", "[fd00::1]:7000", "10.0.0.1:7001", "[fd00::1]:7001"]
    assert list(found.faults) == []
    assert [c.host for c in dns.lookup().candidates] == ["10.0.0.2", "10.0.0.2"]


def test_a_worker_asks_for_the_heads_name_once_the_service_shows_all_pods() -> None:
    """Or after a while: before, a resolver would remember that there is no such name."""
    names: dict[str, list[str]] = {}
    asked: list[str] = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        if name not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return names[name]

    dns = by_name(("ray-0.ray.ns",), (7000,), resolve, 3, lambda: ["10.0.0.3", "fd00::3"])
    assert dns.lookup().faults == ["ray.ns does not resolve yet: Name or service not known"]
    names["ray.ns"] = ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"]
    assert dns.lookup().faults == ["ray.ns shows 1 of 2 other pods so far"]
    assert "ray-0.ray.ns" not in asked
    names |= {"ray.ns": ["10.0.0.1", "10.0.0.2"], "ray-0.ray.ns": ["10.0.0.1"]}
    assert [head.host for head in dns.lookup().candidates] == ["10.0.0.1"]
    asked.clear()
    dns.lookup()
    assert asked == ["ray-0.ray.ns"]


@pytest.mark.parametrize(("name", "size"), [("ray-0.ray.ns", 2), ("bert-master-0", 2), ("10.0.0.1", 2), ("a.b", None)])
def test_it_asks_at_once_without_a_service_and_in_the_end(
    name: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(timeouts, "PUBLISHED_S", 0.0)
    dns = by_name((name,), (7000,), lambda each: asked.append(each) or ["10.0.0.1"], size=size)  # type: ignore[func-returns-value]
    assert dns.lookup().candidates
    assert asked == [name]


def test_only_a_worker_in_a_pod_waits_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    pod = Host({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "ray-1")
    for role, host in ((Role.WORKER, pod), (Role.HEAD, pod), (Role.WORKER, Host({}, "n"))):
        make(Settings(), identity("dns", role=role, head_hints=("ray-0.ray.ns",)), host).lookup()
    assert asked == ["ray.ns", "ray-0.ray.ns", "ray-0.ray.ns"]


@pytest.mark.parametrize(
    ("names", "what", "fix"),
    [
        (
            {},
            "its Service ray.ns does not either: it is missing",
            "a headless Service ray with publishNotReadyAddresses",
        ),
        (
            {"ray.ns": ("10.0.0.2",)},
            "its Service ray.ns resolves to 10.0.0.2: the head's pod is not",
            "the output of rank 0",
        ),
        ({"ray-0.ray.ns": ("10.0.0.1",)}, "ray-0.ray.ns resolves to 10.0.0.1", ""),
    ],
)
def test_a_missing_service_is_told_from_a_missing_head(
    names: dict[str, tuple[str, ...]], what: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "resolve", lambda name: names.get(name, ()))
    found = by_name(("ray-0.ray.ns",), (7000,), size=2).survey()
    assert what in found.what
    assert fix in found.fix


def test_a_name_that_no_server_can_have_is_an_error_at_once() -> None:
    with pytest.raises(IdentityError, match=r"a{64}"):
        by_name(("a" * 64 + ".svc",), (7000,)).lookup()


# --- slurm's node lists


@pytest.mark.parametrize(
    ("nodelist", "hosts"),
    [
        ("", []),
        ("login1", ["login1"]),
        ("login1,login2", ["login1", "login2"]),
        ("gpu[001-003,007],login1", ["gpu001", "gpu002", "gpu003", "gpu007", "login1"]),
        ("gpu[8-11]", ["gpu8", "gpu9", "gpu10", "gpu11"]),
        ("gpu[08-11]", ["gpu08", "gpu09", "gpu10", "gpu11"]),
        ("gpu[098-101]", ["gpu098", "gpu099", "gpu100", "gpu101"]),
        ("gpu[99-100]", ["gpu99", "gpu100"]),
        ("gpu[3]", ["gpu3"]),
        ("gpu[5,1]", ["gpu5", "gpu1"]),
        ("n[1-2]-ib", ["n1-ib", "n2-ib"]),
        ("n[1-2].site.org,x", ["n1.site.org", "n2.site.org", "x"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("r[1-2]-c[0,3]-n[7-8]b", [f"r{r}-c{c}-n{n}b" for r in (1, 2) for c in (0, 3) for n in (7, 8)]),
        ("[1-3]", ["1", "2", "3"]),
        ("a b\nc", ["a", "b", "c"]),
        ("a, b", ["a", "b"]),
    ],
)
def test_a_node_list_expands_as_slurm_does(nodelist: str, hosts: list[str]) -> None:
    assert list(slurm_hosts(nodelist)) == hosts
    if hosts:
        assert first(nodelist) == hosts[0]


# fmt: off
MALFORMED = [
    "gpu[1-", "gpu[1-3", "gpu1]", "gpu[]", "gpu[3-1]", "gpu[a-b]", "gpu[1-2-3]", "gpu[1,]", "gpu[-1]", "gpu[[1]]",
    "a,,b", ",a", "a,", "gpu[0-99999999]", "gpu[١-٣]", "bgl[000x133]",
]
# fmt: on


@pytest.mark.parametrize("nodelist", MALFORMED)
def test_a_malformed_node_list_is_quoted(nodelist: str) -> None:
    with pytest.raises(ValueError, match="node list") as caught:
        list(slurm_hosts(nodelist))
    assert any(part in str(caught.value) for part in (nodelist, nodelist.partition("[")[2].rstrip("]")))


def test_the_first_of_very_many_hosts_costs_nothing() -> None:
    assert first(",".join(f"r[1-60000]c[1-60000]x{i}" for i in range(1000))) == "r1c1x0"


def test_an_empty_node_list_has_no_first_host() -> None:
    with pytest.raises(ValueError, match="empty"):
        first(" ")


@st.composite
def groups(draw: st.DrawFn) -> tuple[str, list[str]]:
    """One bracket group, and what it stands for."""
    texts, numbers = [], []
    for _ in range(draw(st.integers(1, 3))):
        low, more = draw(st.integers(0, 1200)), draw(st.integers(0, 4))
        width = draw(st.integers(1, 6))
        texts.append(f"{low:0{width}d}" + (f"-{low + more:0{width}d}" if more or draw(st.booleans()) else ""))
        numbers += [str(n).zfill(max(width, len(str(low)))) for n in range(low, low + more + 1)]
    return f"[{','.join(texts)}]", numbers


@st.composite
def names(draw: st.DrawFn) -> tuple[str, list[str]]:
    """One name with up to three groups, and its hosts in order."""
    word = st.text("abcxyz-._09", min_size=1, max_size=5)
    text = draw(word)
    hosts = [text]
    for _ in range(draw(st.integers(0, 3))):
        (group, numbers), tail = draw(groups()), draw(word)
        text += group + tail
        hosts = [host + number + tail for host in hosts for number in numbers[:4]]
        if len(numbers) > 4:
            text = text[: -len(group + tail)] + f"[{','.join(numbers[:4])}]" + tail
    return text, hosts


@given(st.lists(names(), min_size=1, max_size=4))
def test_what_was_compressed_expands_to_itself(parts: list[tuple[str, list[str]]]) -> None:
    nodelist, hosts = ",".join(text for text, _ in parts), [host for _, hosts in parts for host in hosts]
    assert list(slurm_hosts(nodelist)) == hosts
    assert first(nodelist) == hosts[0]


@given(st.text("ab1[]-, ", max_size=20))
def test_any_text_expands_or_is_refused(nodelist: str) -> None:
    try:
        hosts = list(slurm_hosts(nodelist))
    except ValueError:
        return
    assert all(host and not set(host) & set("[], ") for host in hosts)


# --- the shared folder


def folder(tmp_path: Path, run_id: str = "run/7 ü", attempt: int = 0) -> SharedFolder:
    run_hash = identity(run_id=run_id).run_hash
    return SharedFolder(tmp_path, run_id, attempt, run_hash, "node", "--shared-dir", "the fix")


def record(of: SharedFolder) -> Path:
    return of.folder / of.name


def hosts(found: Lookup) -> list[str]:
    return [candidate.host for candidate in found.candidates]


FIRST, SECOND = HeadAddress("10.0.0.1", 7000), HeadAddress("10.0.0.2", 7000)


@pytest.fixture(params=[0, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """From letting others do everything to letting them do nothing."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_record_is_private_and_whole_and_says_whose_it_is(tmp_path: Path, secret: str | None) -> None:
    head = folder(tmp_path)
    head.announce(FIRST, secret.encode() if secret else None)
    assert [path.name for path in head.folder.iterdir()] == [head.name]
    assert hashlib.sha256("run/7 ü".encode()).hexdigest()[:16] in head.name
    assert stat.S_IMODE(record(head).stat().st_mode) == 0o600
    assert stat.S_IMODE(head.folder.stat().st_mode) == 0o700
    content = json.loads(record(head).read_text())
    assert {"host": "10.0.0.1", "port": 7000, "run_id": "run/7 ü", "attempt": 0, "hostname": "node"}.items() <= (
        content.items()
    )
    always = {"host", "port", "run_id", "attempt", "hostname", "time", "nonce"}
    assert set(content) == (always if secret is None else always | {"secret"})
    assert content.get("secret") == secret


def test_the_next_head_removes_what_killed_heads_left_and_no_living_heads_record(tmp_path: Path) -> None:
    killed, living = folder(tmp_path, "killed"), folder(tmp_path, "living")
    for head in (killed, living):
        head.announce(FIRST, SECRET.encode())
    halfway = killed.folder / f".{killed.name}.0123456789abcdef"  # killed before the rename
    halfway.write_text(SECRET)
    theirs = killed.folder / "notes"
    theirs.write_text("not ours")
    before = time.time() - timeouts.RECORD_KEPT_S - 60
    for path in (record(killed), halfway, record(living), theirs):
        os.utime(path, (before, before))
    living.refresh()
    folder(tmp_path).announce(SECOND, None)
    assert {path.name for path in killed.folder.iterdir()} == {folder(tmp_path).name, living.name, "notes"}
    assert living.lookup().secret == SECRET.encode()


def test_a_head_renews_its_record_as_long_as_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "RECORD_REFRESH_S", 0.01)
    head, renewed = folder(tmp_path), []

    class Record:
        """The folder that a file server has lost for a while."""

        def refresh(self) -> None:
            head.refresh()
            renewed.append(None)

    async def live() -> None:
        keep_fresh(Record())  # type: ignore[arg-type]
        while len(renewed) < 2:
            await asyncio.sleep(0.01)
        head.announce(FIRST, None)
        os.utime(record(head), (0, 0))
        while record(head).stat().st_mtime < 1:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(live(), 30))


def test_a_secret_that_is_made_fits_into_the_record(tmp_path: Path) -> None:
    made = generate(Secret(None, "", Channel.RECORD)).value
    folder(tmp_path).announce(FIRST, made)
    assert folder(tmp_path).lookup().secret == made is not None


def test_the_next_head_of_a_run_replaces_the_secret_with_the_address(tmp_path: Path) -> None:
    worker = folder(tmp_path)
    folder(tmp_path).announce(FIRST, SECRET.encode())
    assert (hosts(worker.lookup()), worker.lookup().secret) == (["10.0.0.1"], SECRET.encode())
    folder(tmp_path).announce(SECOND, b"another")
    assert (hosts(worker.lookup()), worker.lookup().secret) == (["10.0.0.2"], b"another")
    folder(tmp_path).announce(SECOND, None)
    assert worker.lookup().secret is None
    assert [path.name for path in worker.folder.iterdir()] == [worker.name]


@pytest.mark.parametrize("other", [("another", 0), ("run/7 ü", 1), ("run/7", 0)])
def test_other_runs_in_the_same_folder_are_not_seen(tmp_path: Path, other: tuple[str, int]) -> None:
    mine, theirs = folder(tmp_path), folder(tmp_path, *other)
    theirs.announce(SECOND, SECRET.encode())
    assert mine.lookup() == Lookup()
    mine.announce(FIRST, None)
    assert hosts(folder(tmp_path).lookup()) == ["10.0.0.1"]
    assert folder(tmp_path).lookup().secret is None
    remove(mine, FIRST)
    assert hosts(theirs.lookup()) == ["10.0.0.2"]


@pytest.mark.parametrize("address", [FIRST, SECOND])
def test_an_old_head_does_not_remove_the_record_of_a_newer_one(tmp_path: Path, address: HeadAddress) -> None:
    old, new = folder(tmp_path), folder(tmp_path)
    old.announce(FIRST, SECRET.encode())
    assert hosts(new.lookup()) == ["10.0.0.1"], "a stale record is a candidate: the roll call judges it"
    new.announce(address, SECRET.encode())
    remove(old, FIRST, SECRET.encode())
    assert hosts(new.lookup()) == [address.host]
    remove(new, address, SECRET.encode())
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_killed_before_it_renames_its_record_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    head = folder(tmp_path)
    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        head.announce(FIRST, SECRET.encode())
    (left,) = head.folder.iterdir()
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert folder(tmp_path).lookup() == Lookup()
    remove(head, FIRST, SECRET.encode())
    assert list(tmp_path.iterdir()) == []


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text(GOOD)
    target.chmod(0o600)
    path.symlink_to(target)


def _written_by(mode: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(altered(secret=SECRET))
        path.chmod(mode)

    return write


GOOD = json.dumps({"host": "10.0.0.1", "port": 7000, "run_id": "run/7 ü", "attempt": 0})


def altered(**changes: object) -> str:
    return json.dumps({**json.loads(GOOD), **changes})


NO_SECRET = "its secret is malformed"
BAD: list[tuple[str, str | Callable[[Path], None], str]] = [
    ("symlink", _link, "symbolic link"),
    ("fifo", _fifo, "not a regular file"),
    ("directory", Path.mkdir, "not a regular file"),
    ("empty", "", "not JSON"),
    ("cut off", GOOD[:-5], "not JSON"),
    ("deep", "[" * 50000, "not JSON"),
    ("no object", "[1]", "not a JSON object"),
    ("too long", GOOD + " " * RECORD_MAX, f"more than {RECORD_MAX}"),
    ("other run of the same hash", altered(run_id="x"), "run_id is 'x'"),
    ("other attempt", altered(attempt=1), "attempt is 1"),
    ("false is not attempt 0", altered(attempt=False), "attempt is False"),
    ("no host", altered(host=""), "host ''"),
    ("host with a line break", altered(host="a\nb"), "host 'a\\nb'"),
    ("host is a list", altered(host=["a"]), "host ['a']"),
    ("port out of range", altered(port=65536), "port 65536"),
    ("port is text", altered(port="7000"), "port '7000'"),
    ("port is true", altered(port=True), "port True"),
    ("secret is empty", altered(secret=""), NO_SECRET),
    ("secret is a number", altered(secret=12345), NO_SECRET),
    ("secret is false", altered(secret=False), NO_SECRET),
    ("secret with a line break", altered(secret=f"{SECRET}\n"), NO_SECRET),
    ("secret beyond ASCII", altered(secret="ü" * 64), NO_SECRET),
    ("a secret that its group may write", _written_by(0o620), "other users can write it (mode 620)"),
    ("a secret that everybody may write", _written_by(0o602), "other users can write it (mode 602)"),
]


@pytest.mark.parametrize(("content", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_what_cannot_be_believed_is_ignored_with_its_reason(
    tmp_path: Path, content: str | Callable[[Path], None], reason: str
) -> None:
    worker = folder(tmp_path)
    assert worker.lookup() == Lookup()
    if isinstance(content, str):
        record(worker).write_text(content)
        record(worker).chmod(0o600)
    else:
        content(record(worker))
    found = worker.lookup()
    assert (list(found.candidates), found.secret) == ([], None)
    (line,) = found.faults
    assert line.startswith(f"{record(worker)}: ")
    assert reason in line
    assert SECRET not in line


@pytest.mark.parametrize(("secret", "modes"), [(None, (0o600, 0o666)), (SECRET, (0o600, 0o644))])
def test_the_good_record_of_these_tests_is_believed(tmp_path: Path, secret: str | None, modes: tuple[int, ...]) -> None:
    worker = folder(tmp_path)
    worker.lookup()
    record(worker).write_text(GOOD if secret is None else altered(secret=secret))
    for mode in modes:
        record(worker).chmod(mode)
        found = worker.lookup()
        assert [str(candidate) for candidate in found.candidates] == ["10.0.0.1:7000"]
        assert found.secret == (secret.encode() if secret else None)


@pytest.mark.requires("root")
def test_another_users_record_is_refused(tmp_path: Path) -> None:
    head, worker = folder(tmp_path), folder(tmp_path)
    head.announce(FIRST, SECRET.encode())
    os.chown(record(head), 12345, -1)
    found = worker.lookup()
    assert (list(found.candidates), found.secret) == ([], None)
    assert "belongs to uid 12345" in found.faults[0]
    assert [path.name for path in head.folder.iterdir()] == [head.name], "finding out who owns files leaves nothing"


def _folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def _link_to_a_folder(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.requires("root")
@pytest.mark.parametrize("take", [_folder_with_a_file, _link_to_a_folder, Path.touch, _fifo])
def test_where_the_name_of_our_folder_is_taken_another_one_serves(tmp_path: Path, take: Callable[[Path], None]) -> None:
    head, worker, other = folder(tmp_path), folder(tmp_path), folder(tmp_path, "another run")
    take(head.folder)
    os.lchown(head.folder, 12345, -1)
    before = sorted(tmp_path.rglob("*"))
    assert list(worker.lookup().faults) == [f"{head.folder} is another user's"]
    for announced in (head, other):
        announced.announce(FIRST, SECRET.encode())
    assert stat.S_IMODE(head.spare.stat().st_mode) == 0o700
    assert (hosts(worker.lookup()), worker.lookup().secret) == (["10.0.0.1"], SECRET.encode())
    second = folder(tmp_path)  # a head that starts after the first one was killed
    second.announce(SECOND, b"another")
    assert (hosts(worker.lookup()), worker.lookup().secret) == (["10.0.0.2"], b"another")
    for announced, address, secret in ((head, FIRST, SECRET), (other, FIRST, SECRET), (second, SECOND, "another")):
        remove(announced, address, secret.encode())
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_free_again_is_not_all_that_the_workers_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, worker = folder(tmp_path), folder(tmp_path)
    head.folder.write_text("")
    head.announce(FIRST, None)
    head.folder.unlink()
    assert hosts(worker.lookup()) == ["10.0.0.1"]
    assert hosts(worker.lookup()) == [], "not at every look: the shared folder may be a large one"
    monkeypatch.setattr(timeouts, "OTHER_FOLDERS_S", 0)
    assert hosts(worker.lookup()) == ["10.0.0.1"]


@pytest.mark.requires("root")
def test_folders_of_other_users_with_names_like_ours_hold_no_record(tmp_path: Path) -> None:
    forged, worker = folder(tmp_path), folder(tmp_path)
    forged.folder.mkdir()
    os.chown(forged.folder, 12345, -1)
    forged.announce(FIRST, SECRET.encode())
    os.chown(forged.spare, 12345, -1)
    (tmp_path / f"{worker.folder.name}.deadbeef").symlink_to(forged.spare)
    (tmp_path / f"{worker.folder.name}.notours").mkdir()
    assert worker.lookup() == Lookup(faults=[f"{worker.folder} is another user's"])


def test_a_link_in_place_of_the_record_is_replaced_and_not_followed(tmp_path: Path) -> None:
    head, target = folder(tmp_path), tmp_path / "target"
    target.write_text("mine")
    head.folder.mkdir()
    record(head).symlink_to(target)
    head.announce(FIRST, SECRET.encode())
    assert target.read_text() == "mine"
    assert stat.S_ISREG(record(head).lstat().st_mode)
    assert folder(tmp_path).lookup().secret == SECRET.encode()


def test_a_shared_folder_that_is_not_there_can_never_succeed(tmp_path: Path) -> None:
    missing = folder(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        missing.lookup()
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        missing.announce(FIRST, SECRET.encode())
    remove(missing, FIRST, SECRET.encode())


def test_a_shared_folder_that_is_gone_for_a_moment_may_come_back(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    worker, head = folder(shared), folder(shared)
    assert worker.lookup() == Lookup()
    shared.rename(tmp_path / "away")
    found = worker.lookup()
    assert list(found.candidates) == []
    assert "No such file" in found.faults[0]
    (tmp_path / "away").rename(shared)
    head.announce(FIRST, None)
    assert worker.lookup() == Lookup([dataclasses.replace(FIRST, source=str(record(head)))])


def test_a_folder_in_place_of_the_record_is_named(tmp_path: Path) -> None:
    head = folder(tmp_path)
    record(head).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"{head.name}: Is a directory"):
        head.announce(FIRST, SECRET.encode())
    assert [path.name for path in head.folder.iterdir()] == [head.name]
    found = head.lookup()
    assert list(found.candidates) == []
    assert "not a regular file" in found.faults[0]


def test_a_full_disk_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder(tmp_path).announce(FIRST, SECRET.encode())
    head = folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UsageError, match="No space left on device"):
            head.announce(SECOND, b"another")
    assert [path.name for path in head.folder.iterdir()] == [head.name]
    assert hosts(head.lookup()) == ["10.0.0.1"]


def test_a_folder_removed_by_another_run_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, real = folder(tmp_path), os.open
    removals = iter([True, True])

    def racing(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == head.folder and next(removals, False):
            head.folder.rmdir()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", racing)
    head.announce(FIRST, SECRET.encode())
    assert hosts(folder(tmp_path).lookup()) == ["10.0.0.1"]
    remove(head, FIRST, SECRET.encode())
    removals = iter([True])
    found = folder(tmp_path).lookup()
    assert list(found.candidates) == []
    assert "No such file" in found.faults[0]


def showing(monkeypatch: pytest.MonkeyPatch, *, mode: int | None = None, uid: int | None = None) -> None:
    """A file system that shows this mode or this owner for all files."""
    real = os.fstat

    def changed(fd: int) -> os.stat_result:
        shown, *fields = real(fd)[:10]
        fields[3] = fields[3] if uid is None else uid
        return os.stat_result([shown if mode is None else stat.S_IFMT(shown) | mode, *fields])

    monkeypatch.setattr(os, "fstat", changed)
    monkeypatch.setattr(ownership, "_shown", {})


@pytest.mark.parametrize("secret", [None, SECRET.encode()])
def test_a_file_system_that_shows_every_file_as_nobodys_is_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: bytes | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    showing(monkeypatch, uid=65534)
    head = folder(tmp_path)
    head.announce(FIRST, secret)
    found = folder(tmp_path).lookup()
    assert (hosts(found), found.secret) == (["10.0.0.1"], secret)
    assert [path.name for path in head.folder.iterdir()] == [head.name]


@pytest.mark.parametrize(("mode", "believed"), [(0o777, False), (0o660, False), (0o755, True), (0o644, True)])
def test_a_file_system_that_keeps_no_modes_holds_no_secret_that_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, believed: bool
) -> None:
    showing(monkeypatch, mode=mode)
    head, worker = folder(tmp_path), folder(tmp_path)
    if believed:
        head.announce(FIRST, SECRET.encode())
    else:
        with pytest.raises(UsageError, match=f"workers would reject the record {record(head)}: other users can write"):
            head.announce(FIRST, SECRET.encode())
    found = worker.lookup()
    assert (hosts(found), found.secret) == ((["10.0.0.1"], SECRET.encode()) if believed else ([], None))
    line = f"{record(head)}: other users can write it (mode {mode:o}), so its secret is not safe"
    assert list(found.faults) == ([] if believed else [line])
    head.announce(FIRST, None)
    assert hosts(worker.lookup()) == ["10.0.0.1"], "without a secret, a record is believed whatever its mode"
