"""The place of a node in a list of hosts, and the lock that makes a process the run's only one on its node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import FAKE_RAY
from cluster import AGENT, Agents, nothing_left
from faults import check

from bootstrap.errors import IdentityError
from bootstrap.files import claim
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import NodeIdentity, Role
from bootstrap.settings import Settings

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

NAMES = {"head-ib": ["10.1.0.1"], "worker-ib": ["10.1.0.2", "fe80::2%ib0"], "here": ["127.0.1.1"]}


def listed(
    tmp_path: Path, text: str, hostname: str = "n2.example", own: Collection[str] = (), **options: Any
) -> NodeIdentity:
    (tmp_path / "hosts").write_text(text)

    def resolve(name: str) -> list[str]:
        if name not in NAMES:
            raise OSError(-2, "Name or service not known")
        return NAMES[name]

    settings = Settings(hostfile="/hosts", **options)
    return identify(settings, Host({}, hostname, tmp_path), own_addresses=lambda: own, resolve=resolve)[0]


@pytest.mark.parametrize(
    ("text", "hostname", "own", "rank", "hosts"),
    [
        ("n1\nn2\nn3\n", "n2", (), 1, ("n1", "n2", "n3")),
        ("n1\nn2\n", "n2.example", (), 1, ("n1", "n2")),  # short in the list
        ("n1.example\nn2.example\n", "n2", (), 1, ("n1.example", "n2.example")),  # full in the list
        ("n1.a\nn1.b\n", "n1.b", (), 1, ("n1.a", "n1.b")),  # the full name decides
        ("N1\nN2.Example.\n", "n2", (), 1, ("N1", "N2.Example")),
        ("n2.mgmt\nn1.mgmt\n", "n2.hsn", (), 0, ("n2.mgmt", "n1.mgmt")),  # two networks' names of one host
        ("10.0.0.1\n10.0.0.2\n", "other", ("10.0.0.2", "127.0.0.1"), 1, ("10.0.0.1", "10.0.0.2")),
        ("fd00:0::1\nfd00::2\n", "other", ("fd00::1",), 0, ("fd00:0::1", "fd00::2")),
        ("head-ib\nworker-ib\n", "other", ("10.1.0.2",), 1, ("head-ib", "worker-ib")),
        ("n9\nhere\n", "other", (), 1, ("n9", "here")),  # Debian's 127.0.1.1
        ("n1 slots=8\nn2 slots=8\n", "n2", (), 1, ("n1", "n2")),  # Open MPI, DeepSpeed
        ("n1:8\nn2:8\n", "n2", (), 1, ("n1", "n2")),  # MPICH
        ("n1 8 all.q@n1 UNDEFINED\nn2 8 all.q@n2 UNDEFINED\n", "n2", (), 1, ("n1", "n2")),  # Grid Engine
        ("n1\nn1\n\n# n3\nn2 # the last\nn2\n", "n2", (), 1, ("n1", "n2")),  # a line for each slot
        ("localhost\n", "n1", (), 0, ("localhost",)),
        ("\ufeffn1\r\nn2\r\n", "n2", (), 1, ("n1", "n2")),  # of Windows
        ("n1\nN1\nn2\n", "n2", (), 1, ("n1", "n2")),
    ],
)
def test_the_rank_is_the_place_in_the_list(
    tmp_path: Path, text: str, hostname: str, own: Collection[str], rank: int, hosts: tuple[str, ...]
) -> None:
    identity = listed(tmp_path, text, hostname, own)
    assert (identity.launcher, identity.rank, identity.size, identity.hosts) == ("hostfile", rank, len(hosts), hosts)
    assert identity.head_hints == hosts[:1]
    assert "/hosts" in identity.sources["rank"]
    assert identity.one_process == ("start one process on each host of --hostfile" if len(hosts) > 1 else "")


@pytest.mark.parametrize(
    ("text", "own", "message", "fix"),
    [
        ("n1\nn3\n", (), "--hostfile=/hosts lists n1, n3, and none is this node (n2.example)", "--rank=N"),
        ("n2.a\nn2.b\n", (), "both n2.a and n2.b are this node (n2.example)", "once"),
        ("n1\n10.0.0.1\n10.0.0.2\n", ("10.0.0.1", "10.0.0.2"), "both 10.0.0.1 and 10.0.0.2 are this node", "once"),
        ("localhost\nn2\n", (), "lists localhost, n2: on each node, loopback is that node itself", "a list with"),
        ("127.0.0.1\nn2\n", (), "loopback", "a list with"),
        ("n2\n10.0.0.2\n", ("10.0.0.2",), "both n2 and 10.0.0.2 are this node", "once"),
        ("gpu[1-2]\nroot@n3\n", (), "lists gpu[1-2], root@n3: expected a host's name or address", "one name or"),
        ("\x1b[31mn1\n", (), "lists '\\x1b[31mn1': expected", "one name or"),
        ("x" * 5000, (), "lists " + "x" * 64 + ", and none is", "--launcher=local"),
        ("# none\n\n", (), "--hostfile=/hosts lists no host", "--hostfile=FILE"),
        ("\n".join(f"m{i}" for i in range(9)), (), "m0, m1, m2, m3, … (9 hosts), and none is", "--rank=N"),
    ],
)
def test_a_list_that_does_not_say_which_host_this_is(
    tmp_path: Path, text: str, own: Collection[str], message: str, fix: str
) -> None:
    with pytest.raises(IdentityError) as caught:
        listed(tmp_path, text, own=own)
    assert message in caught.value.message
    assert fix in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="--hostfile=/none: no such file"):
        identify(Settings(hostfile="/none"), Host({}, "n1", tmp_path))


@pytest.mark.parametrize("path", ["/dev/zero", "/bin/ls", "/tmp"])
def test_what_is_no_list_is_refused_at_once(path: str) -> None:
    with pytest.raises(IdentityError, match=f"--hostfile={path}[: ]"):
        identify(Settings(hostfile=path), Host({}, "n1"), own_addresses=tuple)


def test_another_number_of_nodes_than_the_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="--hostfile=/hosts lists 2 hosts, and --nodes=1"):
        listed(tmp_path, "n1\nn2\n", nodes=1)


def test_a_rank_by_option_needs_no_name_in_the_list(tmp_path: Path) -> None:
    identity = listed(tmp_path, "a\nb\n", rank=1)
    assert (identity.rank, identity.size, identity.head_hints) == (1, 2, ("a",))


def test_in_a_batch_job_its_id_names_the_run(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("n1\nn2\n")
    identity, notes = identify(
        Settings(hostfile="/hosts"), Host({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, "n2", tmp_path)
    )
    assert identity.run_id == "gridengine-7.undefined"
    assert any("not unique" in note for note in notes)


HOLD = """
import sys, time
from pathlib import Path
from bootstrap.files import claim
claim.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder that another process holds."""
    folder = tmp_path / "claim"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield folder
    finally:
        holder.kill()
        holder.wait()


def test_a_lock_that_another_process_holds_is_neither_taken_nor_removed(held: Path) -> None:
    with pytest.raises(BlockingIOError):
        claim.take(held)
    claim.remove_left(held)
    assert held.exists()
    with pytest.raises(BlockingIOError):
        claim.take(held)


def test_a_folder_that_was_removed_is_made_anew(held: Path) -> None:
    held.rmdir()
    claim.take(held)
    claim.remove_left(held)  # as of an earlier run of that name
    assert held.exists()
    claim.release()
    assert not held.exists()


def test_what_a_killed_process_left_can_be_taken_or_removed(tmp_path: Path) -> None:
    for use in (claim.take, claim.remove_left):
        folder = tmp_path / use.__name__
        folder.mkdir()
        use(folder)
    assert (tmp_path / "take").exists()
    claim.release()
    assert not (tmp_path / "remove_left").exists()


@pytest.mark.parametrize("what", ["a file", "a link", "no folder above"])
def test_without_a_folder_of_its_own_there_is_no_lock(tmp_path: Path, what: str) -> None:
    path = tmp_path / "claim"
    if what == "a file":
        path.write_text("")
    elif what == "a link":
        path.symlink_to(tmp_path)
    else:
        path = tmp_path / "none" / "claim"
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        claim.take(path)
    assert not isinstance(caught.value, BlockingIOError)
    claim.remove_left(path)
    assert path.is_symlink() == (what == "a link")


def claim_of(run_id: str) -> Path:
    return claim.path(NodeIdentity("", Role.HEAD, 0, 1, run_id).run_hash, 0, socket.gethostname())


def pair(site: Site) -> str:
    """A list of this host and of one that does not come."""
    (site.folder / "hosts").write_text(f"{socket.gethostname()}\nother.invalid\n")
    return "--hostfile=../hosts"


def test_a_second_process_on_the_node_is_refused_and_the_first_goes_on(site: Site) -> None:
    args = [pair(site), "--", "true"]
    first = site.run(*args)
    first.is_in("waiting")
    second = site.run(*args)
    assert second.wait() == 65
    assert f"on {socket.gethostname()}: expected one on each node" in second.err
    assert "fix: start one process on each host of --hostfile" in second.err
    assert second.starts == []
    assert claim_of(site.run_id).exists()
    third = site.run(*args, env={"RAY_BOOTSTRAP_RUN_ID": "another"})
    third.is_in("waiting")
    for node in (first, third):
        node.send(signal.SIGTERM)
        assert node.wait() == 143
    assert not claim_of(site.run_id).exists()
    assert not claim_of("another").exists()


def test_the_only_node_needs_no_lock(site: Site) -> None:
    (site.folder / "hosts").write_text(f"{socket.gethostname()}\n")
    first, second = (site.run("--hostfile=../hosts", "--", "sleep", "600") for _ in range(2))
    for node in (first, second):
        node.is_in("running")
    for node in (first, second):
        node.send(signal.SIGTERM)
        assert node.wait() == 143


def test_an_agent_that_is_killed_leaves_no_claim(site: Site) -> None:
    node = site.run(pair(site), "--", "true")
    node.is_in("waiting")
    assert claim_of(site.run_id).exists()
    os.kill(node.agent, signal.SIGKILL)
    assert node.wait() == 137
    assert not claim_of(site.run_id).exists()


@pytest.mark.hosts
@pytest.mark.timeout(60)
def test_the_same_command_on_each_host_of_a_list(make_hosts: Any) -> None:
    """As a loop with ssh starts it, here with the worker first, and twice on its host."""
    hosts = make_hosts(2)
    (hosts.shared / "hosts").write_text("".join(f"{host.ip} slots=8\n" for host in hosts))
    (hosts.shared / "cluster").mkdir()
    fake = {"PYTHONPATH": str(FAKE_RAY), "FAKE_RAY_CLUSTER": "/shared/cluster", "FAKE_RAY_RECORD": "/tmp/home-record"}
    options = ["--hostfile=/shared/hosts", "--run-id=ssh", "--num-cpus=1"]
    argv = [*AGENT, *options, "--", "sh", "-c", "exit 3"]
    agents = Agents([hosts[1], hosts[1]], [hosts[1].popen(argv, env=fake)])
    agents.says(0, "is worker, rank 1 of 2, of run 'ssh' (launcher hostfile; rank: ")
    agents.processes.append(hosts[1].popen(argv, env=fake))
    (second,) = agents.wait([1])
    assert "is on node-1: expected one on each node" in agents.err(1)
    assert "fix: start one process on each host of --hostfile" in agents.err(1)
    head = Agents([hosts[0]], [hosts[0].popen(argv, env=fake)])
    check("node-twice", there=second, elsewhere=[*head.wait(), *agents.wait([0])], workload=3)
    nothing_left(hosts, shared=False)  # where the list lies
