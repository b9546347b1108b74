"""Nodes that come when the head has ended: they hear its verdict, over the roll call or from a record it left."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

NO_PROGRAM = ["/no/such/program"]
STAYS = "has not come: this head stays for up to"


def statuses(*nodes: Node) -> list[int]:
    return [node.wait() for node in nodes]


def test_a_head_that_ends_early_stays_until_the_last_node_has_heard(site: Site) -> None:
    head, early = (site.rank(rank, 3, "--late-wait=10m", workload=NO_PROGRAM) for rank in range(2))
    assert early.wait() == 127
    head.says("'/no/such/program' is not found on PATH; rank", "this head stays for up to 600 s")
    assert head.verdict["status"] == 127  # the result is there, and so is the cause
    late = site.rank(2, 3)
    there, elsewhere = head.wait(), late.wait()
    check("no-workload-late", there=there, elsewhere=[elsewhere])
    assert late.verdict["reason"] == head.verdict["reason"]
    assert "all nodes have heard how the run ended" in head.err
    assert "exit status 127" in head.err.splitlines()[-1]
    assert late.starts == []


def test_an_unfit_head_tells_a_late_node_not_to_try_again(site: Site) -> None:
    head = site.rank(0, 2, "--late-wait=10m", "--expect-gpus=8")
    head.says("rank 1 has not come")
    late = site.rank(1, 2)
    check("unfit-late", there=head.wait(), elsewhere=statuses(late))
    assert not late.verdict["retryable"]


@pytest.mark.parametrize("seconds", ["0", "0.3"])
def test_the_wait_for_late_nodes_ends(site: Site, seconds: str) -> None:
    head = site.rank(0, 2, f"--late-wait={seconds}", workload=NO_PROGRAM)
    assert head.wait() == 127
    assert (STAYS in head.err) == ("rank 1 did not come, after " in head.err) == (seconds != "0")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_and_changes_no_status(site: Site, signum: int) -> None:
    head = site.rank(0, 2, "--late-wait=10m", workload=NO_PROGRAM)
    head.says(STAYS)
    head.send(signum)
    assert head.wait() == 127


def test_a_head_that_is_stopped_waits_within_its_grace(site: Site) -> None:
    head = site.rank(0, 2, "--late-wait=10m", "--grace=5m")
    head.is_in("waiting")
    head.send(signal.SIGTERM)
    head.says(f"rank 1 {STAYS} 29")
    late = site.rank(1, 2)
    assert statuses(late, head) == [143, 143]


def test_a_second_signal_ends_the_wait_of_a_stopped_head(site: Site) -> None:
    head = site.rank(0, 2, "--late-wait=10m", "--grace=5m")
    head.is_in("waiting")
    head.send(signal.SIGTERM)
    head.says(STAYS)
    head.send(signal.SIGINT)
    assert head.wait() == 143


def test_a_person_at_the_terminal_does_not_wait(site: Site) -> None:
    head = site.rank(0, 2, "--late-wait=10m", "--grace=5m")
    head.is_in("waiting")
    head.send(signal.SIGINT)
    assert head.wait() == 130
    assert STAYS not in head.err


def test_a_head_that_waits_has_nothing_left_but_its_agent(site: Site) -> None:
    head = site.rank(0, 2, "--late-wait=10m", env={"FAKE_RAY": "refuse"})
    head.says(STAYS)
    assert len(head.starts) == 1
    assert list(head.temp_dir.rglob("sockets/*")) == []
    assert len(head._alive()) == 3  # supervisor, standby, agent
    late = site.rank(1, 2)
    assert statuses(head, late) == [69, 69]


# ------------------------------------------------------------------------------------------ the record of the end


def files(site: Site) -> list[Path]:
    return sorted(path for path in site.shared.rglob("*") if path.is_file())


def test_in_a_shared_folder_a_record_tells_all_late_nodes_and_the_last_one_removes_it(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=3"]
    head = site.run(*shared, "--rank=0", "--expect-gpus=8")
    there = head.wait()
    assert STAYS not in head.err
    (record,) = files(site)
    content = json.loads(record.read_text())
    assert record.stat().st_mode & 0o777 == 0o600
    assert (content["status"], content["source"], content["ranks"]) == (78, "preflight", [[1, 2]])
    assert "secret" not in content
    elsewhere = []
    for rank in (1, 2):
        began = time.monotonic()
        late = site.run(*shared, f"--rank={rank}")
        late.says("error: the head says: ", "8 GPUs are expected")
        elsewhere.append(late.wait())
        assert time.monotonic() - began < 15  # not --head-timeout
        assert (late.verdict["source"], late.verdict["retryable"]) == ("preflight", False)
        assert f"rm {record}" in late.err
    check("unfit-late", there=there, elsewhere=elsewhere)
    assert list(site.shared.rglob("*")) == []


def test_after_a_quorum_timeout_the_record_tells_who_comes_too_late(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=3", "--quorum-timeout=4"]
    head, early = (site.run(*shared, f"--rank={rank}") for rank in range(2))
    assert statuses(head, early) == [75, 75]
    (record,) = files(site)
    assert json.loads(record.read_text())["ranks"] == [[2, 2]]
    late = site.run(*shared, "--rank=2")
    check("missing-rank-late", elsewhere=[late.wait()])
    assert "never seen" in late.err
    assert list(site.shared.rglob("*")) == []


def test_a_rank_that_was_there_and_a_new_head_do_not_believe_the_record(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=3"]
    head = site.run(*shared, "--rank=0", "--quorum-timeout=4")
    early = site.run(*shared, "--rank=1")
    assert statuses(head, early) == [75, 75]
    again = site.run(*shared, "--rank=1", "--head-timeout=3")
    assert again.wait() == 68
    workers = [site.run(*shared, f"--rank={rank}") for rank in (1,)]
    workers[0].is_in("searching")
    new = site.run(*shared, "--rank=0", "--", "true")
    new.says("the roll call is open")
    assert [path.name[:5] for path in files(site)] == ["head-"]
    workers.append(site.run(*shared, "--rank=2"))
    assert statuses(new, *workers) == [0, 0, 0]
    assert list(site.shared.rglob("*")) == []


def test_a_run_that_all_nodes_have_joined_leaves_no_record(site: Site) -> None:
    shared = [f"--shared-dir={site.shared}", "--nodes=2"]
    head = site.run(*shared, "--rank=0", "--", "sh", "-c", "exit 3")
    worker = site.run(*shared, "--rank=1")
    assert statuses(head, worker) == [3, 3]
    assert list(site.shared.rglob("*")) == []


# ------------------------------------------------------------------------------------------ an unusable folder


def test_a_worker_without_the_shared_folder_says_so_where_the_launcher_names_the_head(site: Site) -> None:
    who = ["--rendezvous=file", "--nodes=2", "--head-address=127.0.0.1"]
    head = site.run(*who, f"--shared-dir={site.shared}", "--rank=0", "--quorum-timeout=8")
    head.says("the roll call is open")
    missing = site.folder / "nowhere"
    worker = site.run(*who, f"--shared-dir={missing}", "--rank=1")
    head.says("a node that could not prove that it is this run's says: unfit: ", f"{missing} does not exist")
    there = worker.wait()
    check("worker-no-shared-dir-named", there=there, elsewhere=statuses(head))
    assert str(missing) in head.verdict["reason"]  # among the rejected connections


# ------------------------------------------------------------------------------------------ no head


def test_a_worker_in_vain_says_what_is_in_the_folder_instead(site: Site) -> None:
    site.shorten(FIRST_REPORT_S=1.0)
    shared = [f"--shared-dir={site.shared}", "--nodes=2"]
    worker = site.run(*shared, "--rank=1", "--head-timeout=4")
    worker.says("still looking for the head after ", "has no run's record", "fix: ", "findmnt -T")
    assert worker.wait() == 68
    assert worker.verdict["hint"].startswith("look at the terminal or the log of the command on rank 0; it has not")
    env = {"RAY_BOOTSTRAP_RUN_ID": f"{site.run_id}-other", "FAKE_RAY_CLUSTER": str(site.folder / "home")}
    other = site.run(*shared, "--rank=0", env=env)
    other.says("the roll call is open")
    worker = site.run(*shared, "--rank=1", "--head-timeout=3")
    assert worker.wait() == 68
    assert f"records of other runs, none of {site.run_id!r}: run '{site.run_id}-other', attempt 0" in worker.err
    assert f"--run-id={site.run_id}-other" in worker.verdict["hint"]
    other.send(signal.SIGINT)
    assert other.wait() == 130
    wait_for(lambda: files(site), 5, "the record of the end")
