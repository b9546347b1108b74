"""The real command on several nodes: who finds whom, who is missing, and one verdict for all."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check

from bootstrap.files.secret import derive_token

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]

STAY = ["sh", "-c", "echo up; exec sleep 600"]
UNTIL_TOLD = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; echo $RAY_BOOTSTRAP_CLUSTER_NODES"]


def statuses(*nodes: Node) -> list[int]:
    return [node.wait() for node in nodes]


@pytest.mark.parametrize(("workload", "status"), [(["true"], 0), (["sh", "-c", "exit 3"], 3)])
def test_all_nodes_end_with_the_workloads_status(site: Site, workload: list[str], status: int) -> None:
    nodes = site.several(3, workload=workload)
    assert statuses(*nodes) == [status] * 3
    assert [node.verdict["source"] for node in nodes] == ["workload"] * 3
    assert [node.verdict["rank"] for node in nodes] == [0, 1, 2]
    assert "quorum reached: 3 nodes" in nodes[0].err
    assert "the head says: the workload " in nodes[2].err.splitlines()[-1]


def test_a_workload_that_is_not_there_is_told_before_ray_starts(site: Site) -> None:
    nodes = site.several(3, workload=["/no/such/program"])
    first, *others = statuses(*nodes)
    check("no-workload", there=first, elsewhere=others)
    assert [node.verdict["source"] for node in nodes] == ["workload"] * 3
    assert [node.starts for node in nodes] == [[], [], []]


def test_how_ray_is_started_on_a_worker(site: Site) -> None:
    for_head = ["--gcs-port=6394", "--dashboard-port=8394"]
    head = site.rank(0, 2, *for_head)
    worker = site.rank(1, 2, *for_head, "--object-manager-port=8076", "--node-manager-port=8077")
    assert statuses(head, worker) == [0, 0]
    assert {"--head", "--port=6394", "--dashboard-port=8394"} <= set(head.argv)
    assert worker.argv[0] == "--address=127.0.0.1:6394"
    assert {"--node-ip-address=127.0.0.2", "--object-manager-port=8076", "--node-manager-port=8077"} <= set(worker.argv)
    assert [word for word in worker.argv if word.startswith(("--port", "--dashboard-port", "--dashboard-host"))] == []
    (labels,) = [word for word in worker.argv if word.startswith("--labels=")]
    assert "ray-bootstrap/rank=1" in labels


def test_a_worker_starts_ray_only_when_the_heads_is_up(site: Site) -> None:
    head = site.rank(0, 2, env={"FAKE_RAY": "gate"})
    worker = site.rank(1, 2)
    worker.says("leads this run; waiting until its Ray is up")
    assert worker.starts == []
    (head.folder / "record.go").touch()
    assert statuses(head, worker) == [0, 0]
    assert len(worker.starts) == 1


def test_a_worker_that_comes_first_finds_the_head_later(site: Site) -> None:
    worker = site.rank(1, 2)
    worker.is_in("searching")
    assert statuses(site.rank(0, 2), worker) == [0, 0]


def test_a_shared_folder_carries_the_address_and_a_secret(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=2"]
    head, worker = (site.run(*shared, f"--rank={rank}", "--", *UNTIL_TOLD) for rank in range(2))
    head.says("up", where="out")
    (record,) = (path for path in site.shared.rglob("*") if path.is_file())
    assert record.stat().st_mode & 0o777 == 0o600
    secret = json.loads(record.read_text())["secret"]
    tokens = []
    for node in (head, worker):
        (start,) = node.starts
        tokens.append(Path(start["env"]["RAY_AUTH_TOKEN_PATH"]))
        assert start["env"]["RAY_AUTH_MODE"] == "token"
        token = derive_token(secret.encode(), site.run_id)
        assert (tokens[-1].read_text(), tokens[-1].stat().st_mode & 0o777) == (token, 0o600)
        assert secret not in json.dumps(start) + node.err
    assert tokens[0] != tokens[1]  # each reads its own, and not over the network
    (site.folder / "go").touch()
    assert statuses(head, worker) == [0, 0]
    assert list(site.shared.rglob("*")) == []
    assert not any(path.exists() for path in tokens)


def test_a_killed_head_leaves_nothing_in_the_shared_folder(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=2"]
    head, worker = (site.run(*shared, f"--rank={rank}", "--", *UNTIL_TOLD) for rank in range(2))
    head.says("up", where="out")
    os.kill(head.agent, signal.SIGKILL)
    assert statuses(head, worker) == [137, 76]
    assert list(site.shared.rglob("*")) == []


def test_two_runs_share_a_folder(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=2"]
    env = {"RAY_BOOTSTRAP_RUN_ID": f"{site.run_id}-other", "FAKE_RAY_CLUSTER": str(site.folder / "home")}
    mine = [site.run(*shared, f"--rank={rank}", "--", "sh", "-c", "exit 3") for rank in range(2)]
    others = [site.run(*shared, f"--rank={rank}", "--", "sh", "-c", "exit 4", env=env) for rank in range(2)]
    assert statuses(*mine, *others) == [3, 3, 4, 4]
    assert list(site.shared.rglob("*")) == []


def test_the_head_is_never_there(site: Site) -> None:
    worker = site.rank(1, 2, "--head-timeout=0.5")
    check("no-head", elsewhere=statuses(worker))
    assert f"no head of run {site.run_id!r}, attempt 0, found within 0.5 s" in worker.err
    assert (worker.starts, worker.verdict["retryable"]) == ([], True)


def test_nodes_that_never_come_are_named(site: Site) -> None:
    head, worker = (site.rank(rank, 4, "--quorum-timeout=4", env={"FAKE_RAY": ""}) for rank in range(2))
    assert statuses(head, worker) == [75, 75]
    assert "2 of 4 nodes after 4 s; joined: rank 0, 1" in head.err
    assert "rank 2: never seen" in head.err
    assert "rank 3: never seen" in head.err
    assert "rank 2: never seen" in worker.verdict["reason"]
    assert "the missing ranks never reached this head" in head.verdict["hint"]


def test_a_node_that_is_stuck_is_named_with_its_phase(site: Site) -> None:
    head = site.rank(0, 2, "--quorum-timeout=4")
    worker = site.rank(1, 2, env={"FAKE_RAY": "hang"})
    check("stuck-worker", there=worker.wait(), elsewhere=[head.wait()])
    assert ") failed: `ray start` timed out after " in head.err


def test_the_least_number_of_nodes_and_the_last_call(site: Site) -> None:
    head, worker = (site.rank(rank, 3, "--min-nodes=2", "--last-call=0.5", workload=UNTIL_TOLD) for rank in range(2))
    head.says("up", where="out")
    assert "quorum reached: 2 nodes" in head.err
    late = site.rank(2, 3)
    late.is_in("joined")
    (site.folder / "go").touch()
    assert statuses(head, worker, late) == [0, 0, 0]
    assert head.out == "up\n2\n"


def test_without_a_size_the_least_number_counts(site: Site) -> None:
    args = ["--min-nodes=2", "--last-call=0.3", "--head-address=127.0.0.1"]
    nodes = [site.run(*args, f"--role={role}", "--", "true") for role in ("head", "worker")]
    assert statuses(*nodes) == [0, 0]
    assert nodes[1].verdict["rank"] == 1


def test_a_worker_that_comes_after_the_end(site: Site) -> None:
    assert statuses(*site.several(2)) == [0, 0]
    late = site.rank(1, 2, "--head-timeout=0.3")
    assert statuses(late) == [68]


def test_a_rank_that_is_taken(site: Site) -> None:
    head, worker = site.several(2, workload=UNTIL_TOLD)
    head.says("up", where="out")
    double = site.rank(1, 2)
    there = double.wait()
    assert "rank 1 is claimed by two nodes" in double.err
    assert "(127.0.0.2) has it" in double.err
    assert "(127.0.0.3) wants it" in double.err
    (site.folder / "go").touch()
    check("rank-twice", there=there, elsewhere=statuses(head, worker), workload=0)


def test_a_second_head(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=2", "--rank=0"]
    first = site.run(*shared, "--", *STAY)
    first.says("the roll call is open")
    second = site.run(*shared, "--", *STAY)
    assert statuses(second) == [65]
    assert f"rank 0 of run {site.run_id!r} is claimed by two nodes" in second.err
    assert len(list(site.shared.rglob("head-*"))) == 1
    first.send(signal.SIGTERM)
    assert statuses(first) == [143]


def test_another_version_of_ray(site: Site) -> None:
    installed = site.folder / "old" / "ray-2.52.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.52.0\n")
    head = site.rank(0, 2)
    paths = f"{installed.parent}:{site.environment(site.folder, {})['PYTHONPATH']}"
    worker = site.rank(1, 2, env={"PYTHONPATH": paths})
    check("versions-differ", there=worker.wait(), elsewhere=[head.wait()])
    assert "Ray 2.52.0 on " in worker.err
    assert "Ray 2.52.0 on " in head.verdict["reason"]
    assert worker.starts == []


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("one", "two", "its secret is not the head's; this node's is from RAY_BOOTSTRAP_SECRET"),
        ("one", None, "the head has a secret, this node has no secret"),
        (None, "two", "the head has no secret, this node has a secret"),
    ],
)
def test_another_secret(site: Site, first: str | None, second: str | None, told: str) -> None:
    head = site.rank(0, 2, "--quorum-timeout=4", env={"RAY_BOOTSTRAP_SECRET": first})
    worker = site.rank(1, 2, env={"RAY_BOOTSTRAP_SECRET": second})
    check("secrets-differ", there=worker.wait(), elsewhere=[head.wait()])
    assert told in worker.err
    fix = "fix: set the same RAY_BOOTSTRAP_SECRET, --secret-file or RAY_AUTH_TOKEN on every node"
    assert head.err.count(fix) == 2  # where it turned the node away, and at the end
    assert "openssl" in worker.err or "RAY_AUTH_TOKEN" in worker.err
    assert worker.starts == []


OPEN = "this run is open: the nodes share no secret; anyone who reaches the head's ports can run code as you; fix: run"


def test_a_run_that_anybody_can_join_says_so_in_one_line_on_each_node(site: Site) -> None:
    nodes = site.several(2)
    assert statuses(*nodes) == [0, 0]
    assert [node.err.count(OPEN) for node in nodes] == [1, 1]
    alone = site.run("--", "true")
    assert statuses(alone) == [0]
    off = site.several(2, "--auth=off")
    assert statuses(*off) == [0, 0]
    assert all(OPEN not in node.err for node in (*off, alone))


HOME_IS_NETWORKED = ("from bootstrap.files import mounts", "mounts.is_networked = lambda kind: True")


def test_a_home_that_the_nodes_share_carries_the_secret(site: Site) -> None:
    site.patch(*HOME_IS_NETWORKED)
    env = {"RAY_BOOTSTRAP_IGNORE_CHECK": "node-address temp-dir-disk"}
    head, worker = (site.rank(rank, 2, workload=UNTIL_TOLD, env=env) for rank in range(2))
    head.says("up", where="out")
    (record,) = (path for path in (site.folder / "home").rglob("*") if path.is_file())
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.parent.stat().st_mode & 0o777 == 0o700
    token = derive_token(json.loads(record.read_text())["secret"].encode(), site.run_id)
    assert [Path(node.starts[0]["env"]["RAY_AUTH_TOKEN_PATH"]).read_text() for node in (head, worker)] == [token] * 2
    (site.folder / "go").touch()
    assert statuses(head, worker) == [0, 0]
    assert list((site.folder / "home").rglob("*")) == []
    assert OPEN not in head.err + worker.err


@pytest.mark.requires("root", "unshare")
def test_a_home_that_jobs_may_only_read_carries_nothing_and_stops_no_run(site: Site) -> None:
    """As on the compute nodes of some sites."""
    site.patch(*HOME_IS_NETWORKED)
    env = {"RAY_BOOTSTRAP_IGNORE_CHECK": "node-address temp-dir-disk"}
    read_only = 'mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && exec "$@"'
    before = ["unshare", "--mount", "sh", "-c", read_only, "sh"]
    nodes = site.several(2, env=env, before=before)
    assert statuses(*nodes) == [0, 0]
    assert [node.err.count(OPEN) for node in nodes] == [1, 1]


@pytest.mark.requires("root", "unshare")
def test_a_home_without_space_for_the_record_is_named_with_the_remedy(site: Site) -> None:
    site.patch(*HOME_IS_NETWORKED)
    env = {"RAY_BOOTSTRAP_IGNORE_CHECK": "node-address temp-dir-disk"}
    full = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o nr_inodes=1 full "$HOME" && exec "$@"', "sh"]
    head = site.rank(0, 2, env=env, before=full)
    assert statuses(head) == [64]
    home = site.folder / "home"
    assert f"HOME={home}: {home}/ray-bootstrap-{os.geteuid()}: No space left on device" in head.err
    assert 'fix: free space there; or run "openssl rand -hex 32" once' in head.err
    assert head.starts == []


@pytest.mark.parametrize(
    ("head_shares", "complaint"),
    [
        (True, "the head has a secret, this node has none yet: it was to come from the head's record in"),
        (False, "the head has no secret, this node has none yet: it was to come from"),
    ],
)
def test_a_node_with_another_home_is_not_let_in_and_lets_no_one_talk_it_into_an_open_run(
    site: Site, head_shares: bool, complaint: str
) -> None:
    short = ("from bootstrap import timeouts", "timeouts.RECORD_LATE_S = 0.5")
    env = {"RAY_BOOTSTRAP_IGNORE_CHECK": "node-address temp-dir-disk"}
    other = site.folder / "other-home"
    other.mkdir()
    if head_shares:
        site.patch(*HOME_IS_NETWORKED, *short)
    head = site.rank(0, 2, "--quorum-timeout=4s", env=env)
    head.says("roll call is open")
    site.patch(*HOME_IS_NETWORKED, *short)
    worker = site.rank(1, 2, env={**env, "HOME": str(other)})
    assert statuses(worker, head) == [77, 75]
    assert complaint in worker.err
    assert worker.starts == []


def test_required_authentication_without_a_secret(site: Site) -> None:
    head = site.rank(0, 2, "--auth=required")
    assert statuses(head) == [64]
    assert "--auth=required, but the nodes share no secret" in head.err
    assert "this run is open" not in head.err
    assert head.starts == []


@pytest.mark.parametrize(
    ("fault", "words", "rank", "cause"),
    [
        ("ray-start", "refuse", 0, "Check failed: the port is already in use"),
        ("ray-start", "refuse", 1, "Check failed: the port is already in use"),
        ("starter", "dies", 0, "the process that starts Ray was killed by SIGKILL"),
        ("starter", "dies", 1, "the process that starts Ray was killed by SIGKILL"),
        ("daemon-during-start", "gcs-ends", 0, "gcs_server exited with status 4"),
        ("daemon-during-start", "raylet-ends", 1, "raylet exited with status 4"),
    ],
)
def test_a_ray_that_does_not_start_is_told_on_all_nodes(
    site: Site, fault: str, words: str, rank: int, cause: str
) -> None:
    if words == "raylet-ends":  # then Ray's folder is this run's alone; in the user's a worker cannot tell its session
        site.folder.chmod(0o755)
    nodes = [site.rank(r, 2, env={"FAKE_RAY": words if r == rank else ""}) for r in range(2)]
    check(fault, there=nodes[rank].wait(), elsewhere=[nodes[1 - rank].wait()])
    assert [cause in node.err for node in nodes] == [True, True]
    assert [cause in node.verdict["reason"] for node in nodes] == [True, True]


def test_a_time_out_tells_who_was_turned_away(site: Site) -> None:
    head = site.rank(0, 2, "--quorum-timeout=2")
    head.says("the roll call is open at")
    port = head.err.partition("the roll call is open at 127.0.0.1:")[2].split()[0]
    with socket.create_connection(("127.0.0.1", int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stranger.recv(1)
    assert head.wait() == 75
    assert "rejected:" in head.err
    assert "127.0.0.1: it does not speak the roll call's protocol" in head.err


@pytest.mark.parametrize("rank", [0, 1])
def test_an_unfit_node_is_told_on_all_nodes(site: Site, rank: int) -> None:
    temp_dir = site.folder / "file"
    temp_dir.write_text("")
    unfit = {"RAY_BOOTSTRAP_TEMP_DIR": str(temp_dir)}
    nodes = [site.rank(r, 2, env=unfit if r == rank else {}) for r in range(2)]
    check("unfit", there=nodes[rank].wait(), elsewhere=[nodes[1 - rank].wait()])
    assert [f"{temp_dir} is not a folder" in node.err for node in nodes] == [True, True]
    assert nodes[1].starts == []


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("limit", "finding"),
    [("-n 1024", "the hard limit of open files is 1024"), ("-v 500000", "a process is limited to 488.3 MiB")],
)
def test_a_limit_with_which_ray_does_not_start_is_known_on_all_nodes(
    site: Site, limit: str, finding: str, rank: int
) -> None:
    before = ["bash", "-c", f'ulimit {limit} && exec "$@"', "bash"]
    nodes = [site.rank(r, 2, before=before if r == rank else ()) for r in range(2)]
    check("limit", there=nodes[rank].wait(), elsewhere=[nodes[1 - rank].wait()])
    assert [finding in node.err for node in nodes] == [True, True]


@pytest.mark.parametrize(
    ("head", "worker"),
    [
        (["--rank=0", "--nodes=2"], ["--rank=1", "--nodes=2"]),
        (["--role=head", "--min-nodes=2"], ["--role=worker", "--min-nodes=2"]),
    ],
)
def test_an_unfit_head_is_found_all_the_same(site: Site, head: list[str], worker: list[str]) -> None:
    """By its record too, whose address is then a guess; and if nobody has said how many nodes there are."""
    (site.folder / "file").write_text("")
    shared = [f"--shared-dir={site.shared}", "--head-timeout=30"]
    unfit = {"RAY_BOOTSTRAP_TEMP_DIR": str(site.folder / "file"), "RAY_BOOTSTRAP_NODE_IP": None}
    nodes = [site.run(*head, *shared, "--", "true", env=unfit), site.run(*worker, *shared, "--", "true")]
    assert statuses(*nodes) == [78, 78], nodes[1].err
    assert "is not a folder" in nodes[1].err


def test_an_unfit_head_without_a_roll_call_waits_for_nobody(site: Site) -> None:
    (site.folder / "file").write_text("")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = f"--rollcall-port={taken.getsockname()[1]}"
        begun = time.monotonic()
        node = site.rank(0, 2, port, "--ignore-check=ports", f"--temp-dir={site.folder / 'file'}")
        assert node.wait() == 78, node.err
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("rank", [0, 1])
def test_a_shared_folder_that_is_not_mounted_makes_a_node_unfit(site: Site, rank: int) -> None:
    missing = site.folder / "missing"
    node = site.run(f"--shared-dir={missing}", f"--rank={rank}", "--nodes=2", "--", "true")
    assert node.wait() == 78, node.err
    assert f"shared-dir: --shared-dir={missing} does not exist\n" in node.err
    assert (node.starts, missing.exists()) == ([], False)
    ignored = ["--ignore-check=shared-dir", "--ignore-check=node-address"]
    node = site.run(f"--shared-dir={missing}", f"--rank={rank}", "--nodes=2", *ignored, "--", "true")
    assert node.wait() == 64, node.err
    assert f"--shared-dir={missing}: {missing}: no such folder" in node.err


@pytest.mark.parametrize(("fault", "rank"), [("head-no-shared-dir", 0), ("worker-no-shared-dir", 1)])
def test_a_shared_folder_that_one_node_does_not_see(site: Site, fault: str, rank: int) -> None:
    folders = [site.folder / "missing" if r == rank else site.shared for r in range(2)]
    options = ["--nodes=2", "--head-timeout=2", "--quorum-timeout=2"]
    nodes = [site.run(f"--rank={r}", f"--shared-dir={folders[r]}", *options, "--", "true") for r in range(2)]
    check(fault, there=nodes[rank].wait(), elsewhere=[nodes[1 - rank].wait()])
    left = [path.name for path in site.shared.rglob("*") if path.is_file()]
    assert all(name.startswith("end-") for name in left), "for a worker that comes after all"
    assert len(left) == rank


def test_a_shared_folder_that_hangs_before_ray_starts_makes_every_node_unfit(site: Site) -> None:
    hangs = "folders._canary = lambda *_: time.sleep(600)"
    short = ("from bootstrap import timeouts", "timeouts.PREPARE_S = 1")
    site.patch("import time", "from bootstrap.preflight import folders", hangs, *short)
    nodes = [site.run(f"--rank={rank}", "--nodes=2", f"--shared-dir={site.shared}", "--", "true") for rank in range(2)]
    first, *others = statuses(*nodes)
    check("shared-dir-hangs", there=first, elsewhere=others)
    assert all("the inspection of this node timed out after 1 s" in node.err for node in nodes)


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_daemon_of_the_head_that_ends_by_itself(site: Site, name: str) -> None:
    nodes = site.several(3, workload=STAY)
    nodes[0].says("up", where="out")
    os.kill(nodes[0].daemon(name), signal.SIGTERM)
    first, *others = statuses(*nodes)
    check("head-daemon", there=first, elsewhere=others)
    assert f"Ray's {name} on " in nodes[2].verdict["reason"]


@pytest.mark.parametrize(("fault", "on_node_loss"), [("worker-daemon", "warn"), ("worker-daemon-fail", "fail")])
def test_a_daemon_of_a_worker_that_ends_by_itself(site: Site, fault: str, on_node_loss: str) -> None:
    site.shorten(STOPPED_FIRST_S=1)
    nodes = site.several(3, f"--on-node-loss={on_node_loss}", workload=UNTIL_TOLD)
    nodes[0].says("up", where="out")
    nodes[1].is_in("joined")
    os.kill(nodes[1].raylet, signal.SIGKILL)
    nodes[0].says("rank 1 (", "Ray's raylet on ")
    if on_node_loss == "warn":
        (site.folder / "go").touch()
    head, there, other = statuses(*nodes)
    check(fault, there=there, elsewhere=[head, other], workload=0)
    if on_node_loss == "fail":
        assert ") was lost during the workload: Ray's raylet on " in nodes[0].verdict["reason"]


def test_a_worker_lost_before_the_quorum_may_be_replaced(site: Site) -> None:
    head, worker = (site.rank(rank, 3, workload=UNTIL_TOLD) for rank in range(2))
    worker.is_in("joined")
    os.kill(worker.raylet, signal.SIGKILL)
    assert statuses(worker) == [76]
    instead, last = (site.rank(rank, 3) for rank in (1, 2))
    (site.folder / "go").touch()
    assert statuses(head, instead, last) == [0, 0, 0]
    assert head.out == "up\n3\n"


def test_nodes_of_another_run_in_the_same_table_do_not_count(site: Site) -> None:
    alien = {"pid": os.getpid(), "ip": "127.0.0.9", "resources": {"CPU": 1.0}}
    for number, labels in enumerate([{}, {"ray-bootstrap/run": "0" * 16, "ray-bootstrap/rank": "1"}]):
        path = Path(site.folder) / "cluster" / f"node-alien{number}.json"
        path.write_text(json.dumps({**alien, "labels": labels}))
    head = site.rank(0, 2, "--quorum-timeout=1")
    assert statuses(head) == [75]
    assert "1 of 2 nodes after 1 s" in head.err
