"""What waiting cannot mend ends the run before its quorum, on all nodes and with one status."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from faults import check

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]

LONG = "--quorum-timeout=300"
UNTIL_TOLD = ["sh", "-c", "while ! test -e ../go; do sleep 0.02; done"]


def slurm_task(site: Site, rank: int, nodes: str, *, secret: str | None = None, more: Sequence[str] = ()) -> Node:
    """One task of an srun step on these nodes, which a shell with three nodes has started."""
    env = {
        "SLURM_JOB_ID": "42",
        "SLURM_STEP_ID": "0",
        "SLURM_NODEID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_NODES": str(len(nodes.split(","))),
        "SLURM_STEP_NODELIST": nodes,
        "RAY_BOOTSTRAP_SECRET": secret or "correct horse battery staple",
    }
    return site.run(LONG, *more, "--", "true", env=env)


def test_two_living_nodes_with_one_rank_end_the_run_on_all(site: Site) -> None:
    head, holder = (site.rank(rank, 3, LONG) for rank in range(2))
    holder.is_in("joined")
    newcomer = site.rank(1, 3)
    check("rank-twice-early", there=newcomer.wait(), elsewhere=[head.wait(), holder.wait()])
    assert "rank 1 is claimed by two nodes: " in head.verdict["reason"]
    assert "(127.0.0.2) has it, " in head.verdict["reason"]
    assert "(127.0.0.3) wants it" in head.verdict["reason"]
    assert "the head has the rank from --rank and the size from --nodes" in head.verdict["hint"]
    assert "rank 1 is claimed by two nodes: " in holder.verdict["reason"]
    assert not head.verdict["retryable"]


def test_a_replacement_meets_the_half_open_connection_of_its_predecessor(site: Site) -> None:
    head = site.rank(0, 3, LONG, "--heartbeat-timeout=3", workload=UNTIL_TOLD)
    first = site.rank(1, 3, "--heartbeat-timeout=3")
    first.is_in("joined")
    first.stop()  # as a machine that is off: nothing answers, and no connection ends
    instead = site.rank(1, 3)
    instead.is_in("joined")
    last = site.rank(2, 3)
    (site.folder / "go").touch()
    check("rank-replaced", there=instead.wait(), elsewhere=[head.wait(), last.wait()], workload=0)
    assert "rank 1 (" in head.err
    assert "lost: silent for 3 s; the run waits for another node with this rank" in head.err
    first.go_on()
    assert first.wait() == 76


@pytest.mark.parametrize(
    ("rank", "size", "told"), [(1, 3, " expects 3 nodes, the head "), (2, None, " has rank 2, but")]
)
def test_a_worker_that_is_misnumbered_ends_the_run(site: Site, rank: int, size: int | None, told: str) -> None:
    head = site.rank(0, 2, LONG)
    nodes = ["--nodes=3"] if size else ["--min-nodes=2"]
    worker = site.run(f"--rank={rank}", *nodes, "--head-address=127.0.0.1", "--", "true")
    check("misnumbered", there=worker.wait(), elsewhere=[head.wait()])
    assert told in worker.err
    assert told in head.verdict["reason"]
    assert "(127.0.0.2)" in head.verdict["reason"]


def test_fewer_nodes_are_enough_for_a_run_that_one_node_does_not_fit(site: Site) -> None:
    head = site.rank(0, 3, "--min-nodes=2", "--last-call=0.5", workload=UNTIL_TOLD)
    misfit = site.rank(2, 4)
    assert misfit.wait() == 65
    worker = site.rank(1, 3)
    (site.folder / "go").touch()
    assert [head.wait(), worker.wait()] == [0, 0]


@pytest.mark.parametrize(("fault", "killed"), [("early-loss-final", "agent"), ("early-daemon-final", "raylet")])
def test_a_node_that_slurm_does_not_replace_ends_the_run(site: Site, fault: str, killed: str) -> None:
    nodes = "127.0.0.1,127.0.0.1,127.0.0.1"
    head, lost = (slurm_task(site, rank, nodes, more=["--late-wait=0"]) for rank in range(2))
    lost.is_in("joined")
    began = time.monotonic()
    os.kill(getattr(lost, killed), signal.SIGKILL)
    check(fault, there=lost.wait(), elsewhere=[head.wait()])
    assert time.monotonic() - began < 15
    assert "rank 1 (" in head.verdict["reason"]
    assert "at 127.0.0.2 was lost before the quorum: " in head.verdict["reason"]
    assert "slurm replaces no node" in head.verdict["hint"]
    if killed == "raylet":
        assert "Ray's raylet on " in head.verdict["reason"]


def test_a_node_that_may_be_replaced_ends_nothing_before_the_time_out(site: Site) -> None:
    head, lost = (site.rank(rank, 3, "--quorum-timeout=6") for rank in range(2))
    lost.is_in("joined")
    os.kill(lost.raylet, signal.SIGKILL)
    head.says("failed: Ray's raylet on ", "; the run waits for another node with this rank")
    check("early-daemon", there=lost.wait(), elsewhere=[head.wait()])


def test_other_secrets_on_all_missing_nodes_that_slurm_names_end_the_run(site: Site) -> None:
    nodes = "127.0.0.1,127.0.0.1,127.0.0.1"  # whence they connect
    head = slurm_task(site, 0, nodes)
    head.says("roll call is open")
    worker = slurm_task(site, 1, nodes)
    worker.is_in("joined")
    wrong = slurm_task(site, 2, nodes, secret="some other secret than that")
    check("secrets-differ-named", there=wrong.wait(), elsewhere=[head.wait(), worker.wait()])
    assert "rank 2 (127.0.0.1): the secret there is not the head's; no other node is missing" in head.verdict["reason"]
    assert "set the same RAY_BOOTSTRAP_SECRET" in head.verdict["hint"]


def test_a_node_whose_welcome_comes_too_late_may_try_again(site: Site) -> None:
    """A head that was stopped in the middle of a handshake reads the hello of a node that has given up since."""
    site.shorten(CANDIDATE_S=1)
    with (site.folder / "sitecustomize.py").open("a") as file:
        file.write(STOPPED_BEFORE_THE_HELLO)
    head, worker = (slurm_task(site, rank, "127.0.0.1,127.0.0.2") for rank in range(2))
    head.appears("stopped")
    worker.is_in("searching")
    time.sleep(2)  # the worker gives up after one
    os.kill(int((head.folder / "stopped").read_text()), signal.SIGCONT)
    assert [head.wait(), worker.wait()] == [0, 0]
    assert "rank 1 (" in head.err
    assert ") lost: " in head.err


STOPPED_BEFORE_THE_HELLO = """
import os, pathlib, signal
from bootstrap.rollcall.handshake import Handshakes

send = Handshakes._send


def stop_once(*arguments):
    send(*arguments)
    if not (stopped := pathlib.Path("stopped")).exists():
        stopped.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)


Handshakes._send = stop_once
"""
