"""The real command on nodes that fall silent: stopped processes, lost workers, a head that is cut off."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]

UNTIL_GO = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; exit 3"]


def test_a_stop_of_all_processes_is_no_loss(site: Site) -> None:
    """As by `scontrol suspend`, a freezer, or a virtual machine that is paused: for longer than the time-out."""
    nodes = site.several(3, "--heartbeat-timeout=2", "--on-node-loss=fail", workload=UNTIL_GO)
    nodes[0].says("up", where="out")
    for node in nodes:
        node.stop()
    time.sleep(4)
    for node in nodes:
        node.go_on()
    time.sleep(1)  # some beats, in which each could blame the others
    (site.folder / "go").touch()
    first, *others = [node.wait() for node in nodes]
    check("all-stopped", there=first, elsewhere=others, workload=3)


FAST = ["--heartbeat-timeout=1", "--isolation-timeout=1"]
CUT_OFF = "seems to be cut off: all 2 workers fell silent, the last one, rank "


def up(site: Site, *options: str, nodes: int = 3) -> tuple[Node, ...]:
    """A cluster whose workload runs until the file `go` is there, and then ends with 3."""
    made = site.several(nodes, *options, workload=UNTIL_GO)
    made[0].says("up", where="out")
    return tuple(made)


def fall_silent(head: Node, *workers: Node) -> None:
    """Stops these workers, and waits until the head has noticed."""
    for worker in workers:
        worker.stop()
    wait_for(lambda: head.err.count("lost: silent for 1 s") == len(workers), 20, "the head to notice")


def ends(*workers: Node) -> list[int]:
    """Lets stopped workers go on, and returns the statuses with which they end."""
    for worker in workers:
        worker.go_on()
    return [worker.wait() for worker in workers]


@pytest.mark.parametrize("workload", [["--", *UNTIL_GO], []], ids=["workload", "no workload"])
def test_a_head_whose_workers_all_fell_silent_ends(site: Site, workload: list[str]) -> None:
    options = ["--nodes=3", "--head-address=127.0.0.1", *FAST, *workload]
    head, *workers = (site.run(f"--rank={rank}", *options) for rank in range(3))
    head.is_in("running")
    fall_silent(head, *workers)
    assert head.wait() == 76, head.err
    assert (
        "fell silent: this node may be cut off; the run ends in 1 s (--isolation-timeout) unless a worker" in head.err
    )
    assert CUT_OFF in head.verdict["reason"]
    assert "127.0.0.1 on lo, up)" in head.verdict["reason"]
    assert "--isolation-timeout=off" in head.verdict["hint"]
    assert ends(*workers) == [76, 76]


def test_the_last_worker_decides_and_the_reason_says_how_many_were_silent(site: Site) -> None:
    head, first, second = up(site, *FAST)
    os.kill(first.agent, signal.SIGKILL)
    head.says("rank 1 (", "lost: closed by the other side")
    fall_silent(head, second)
    assert head.wait() == 76, head.err
    assert "1 of 2 workers fell silent, the last one, rank 2 (" in head.verdict["reason"]
    assert ends(second) == [76]
    assert first.wait() == 137


def test_workers_that_fell_silent_before_the_quorum_count_from_then_on(site: Site) -> None:
    """GCS takes longer to notice, and still counts them."""
    options = [*FAST, "--min-nodes=3", "--last-call=3"]
    head, *workers = (site.rank(rank, 4, *options, workload=UNTIL_GO) for rank in range(3))
    for worker in workers:
        worker.is_in("joined")
    fall_silent(head, *workers)
    assert "cut off" not in head.err
    head.says("quorum reached", "may be cut off")
    assert head.wait() == 76, head.err
    assert ends(*workers) == [76, 76]


def test_a_head_with_one_worker_says_that_a_dead_one_looks_the_same(site: Site) -> None:
    head, worker = up(site, *FAST, nodes=2)
    fall_silent(head, worker)
    check("only-worker-silent", elsewhere=[head.wait()], there=ends(worker)[0])
    assert "seems to be cut off: its only worker fell silent, rank 1 (" in head.verdict["reason"]
    assert "with two nodes a dead worker looks the same" in head.verdict["reason"]


def test_one_silent_worker_of_two_ends_nothing(site: Site) -> None:
    head, first, second = up(site, *FAST)
    fall_silent(head, first)
    time.sleep(2)  # twice the time-out
    (site.folder / "go").touch()
    check("worker-silent", elsewhere=[head.wait(), second.wait()], there=ends(first)[0], workload=3)
    assert "cut off" not in head.err


def test_the_last_worker_that_ends_its_connection_shows_that_packets_arrive(site: Site) -> None:
    head, first, second = up(site, *FAST)
    fall_silent(head, first)
    os.kill(second.agent, signal.SIGKILL)
    head.says("rank 2 (", "lost: closed by the other side")
    time.sleep(2)
    (site.folder / "go").touch()
    assert head.wait() == 3, head.err
    assert "cut off" not in head.err
    assert ends(first) == [76]
    assert second.wait() == 137


@pytest.mark.parametrize("options", [["--isolation-timeout=off"], []], ids=["off", "explicit's default"])
def test_a_head_goes_on_alone_where_that_is_wanted(site: Site, options: list[str]) -> None:
    head, *workers = up(site, "--heartbeat-timeout=1", *options)
    fall_silent(head, *workers)
    time.sleep(2)
    (site.folder / "go").touch()
    check("head-cut-off-alone", there=head.wait(), elsewhere=ends(*workers), workload=3)
    assert "cut off" not in head.err


def test_a_head_that_was_stopped_alone_goes_on_without_its_workers(site: Site) -> None:
    """It sees that they have ended their connections, so it is not cut off."""
    head, *workers = up(site, "--heartbeat-timeout=1", "--isolation-timeout=1")
    head.stop()
    lost = [worker.wait() for worker in workers]
    head.go_on()
    head.says("rank 1 (", "rank 2 (")
    time.sleep(2)  # twice either time-out
    (site.folder / "go").touch()
    check("head-stopped", there=head.wait(), elsewhere=lost, workload=3)


def test_a_worker_that_connects_in_time_lets_the_run_go_on(site: Site) -> None:
    head, *workers = up(site, "--heartbeat-timeout=1", "--isolation-timeout=3")
    fall_silent(head, *workers)
    head.says("may be cut off; the run ends in 3 s")
    instead = site.rank(1, 3, *FAST)
    head.says("a worker is connected again: this node is not cut off, and the run goes on")
    time.sleep(3)
    (site.folder / "go").touch()
    assert (head.wait(), instead.wait()) == (3, 3), head.err
    assert ends(*workers) == [76, 76]


def test_a_head_that_was_stopped_itself_grants_its_workers_the_time_anew(site: Site) -> None:
    head, *workers = up(site, "--heartbeat-timeout=1", "--isolation-timeout=2")
    fall_silent(head, *workers)
    head.says("may be cut off")
    head.stop()
    time.sleep(3)
    head.go_on()
    resumed = time.monotonic()
    assert head.wait() == 76, head.err
    assert time.monotonic() - resumed > 1.5
    assert ends(*workers) == [76, 76]
