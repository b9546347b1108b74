"""Probes in whole runs: the real command with the fake Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from namespaces import wait_for

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

UNTIL_TOLD = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.1; done"]


def check(site: Site, rank: int, count: int, *options: str, **env: str | None) -> Node:
    who = [f"--rank={rank}", f"--nodes={count}", "--head-address=127.0.0.1"]
    return site.run("check", "--run", *who, *options, env=env)


def listening(pid: int) -> int:
    """How many sockets of this process listen."""
    inodes = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return sum(row[3] == "0A" and f"socket:[{row[9]}]" in inodes for row in rows)


def test_a_healthy_run_says_nothing_and_stops_listening_once_its_workload_runs(site: Site) -> None:
    nodes = site.several(3, workload=UNTIL_TOLD)
    nodes[0].says("up", where="out")
    for node in nodes[1:]:
        wait_for(lambda node=node: listening(node.agent) == 0, 20, "the end of the probes")
    wait_for(lambda: listening(nodes[0].agent) <= 2, 20, "the roll call alone, on IPv4 and IPv6")
    (site.folder / "go").touch()
    assert [node.wait() for node in nodes] == [0, 0, 0]
    for node in nodes:
        assert not [line for line in node.err.splitlines() if "warning" in line and "reach" in line and "GCS" in line]
        assert "bad pairs" not in node.err
        assert "does not reach" not in node.err


def test_one_node_listens_for_no_probes(site: Site) -> None:
    node = site.run("--rank=0", "--nodes=1", "--head-address=127.0.0.1", "--", *UNTIL_TOLD)
    node.says("up", where="out")
    assert listening(node.agent) == 1, "more than the roll call, on loopback"
    (site.folder / "go").touch()
    assert node.wait() == 0


def test_a_probe_port_that_is_taken_ends_nothing(site: Site) -> None:
    """All nodes have one machine here, and the same port in their options; the preflight check is ignored."""
    env = {"RAY_BOOTSTRAP_IGNORE_CHECK": "node-address ports", "RAY_BOOTSTRAP_PROBE_PORT": "29477"}
    head = site.rank(0, 2, workload=["true"], env=env)
    head.says("the roll call is open")
    worker = site.rank(1, 2, workload=["true"], env=env)
    assert [head.wait(), worker.wait()] == [0, 0]
    assert "--probe-port=29477 cannot be bound (Address already in use)" in worker.err


def test_a_check_of_all_nodes_starts_no_ray(site: Site) -> None:
    nodes = [check(site, rank, 3) for rank in range(3)]
    assert [node.wait() for node in nodes] == [0, 0, 0]
    assert [len(node.starts) for node in nodes] == [0, 0, 0]
    assert "6 of 6 pairs reach each other" in nodes[0].out
    assert [node.out for node in nodes[1:]] == ["", ""]
    for node in nodes:
        last = node.err.splitlines()[-1]
        assert "exit status 0 (from ray-bootstrap: check)" in last
        assert node.verdict["source"] == "check"


def test_a_check_of_one_node(site: Site) -> None:
    node = check(site, 0, 1)
    assert node.wait() == 0
    assert "0 of 0 pairs" not in node.out
    assert "one node: there is nothing to probe" in node.out


def test_a_check_names_the_node_that_is_unfit(site: Site) -> None:
    head, worker = check(site, 0, 2), check(site, 1, 2, "--expect-gpus=8")
    assert [head.wait(), worker.wait()] == [78, 78]
    assert "rank 1 (" in head.err
    assert "8" in head.err


def test_a_check_does_not_forget_a_node_that_is_unfit_as_soon_as_it_is_here(site: Site) -> None:
    """Its welcome and its report are both over when the head goes on, which then overtakes the stop for that report."""
    site.patch(
        "import asyncio",
        "from bootstrap.run import check_all",
        "from bootstrap.run.node_watch import NodeWatch",
        "NodeWatch._stop_unless_settled = lambda *_: None",
        "wait_for = check_all.wait_for",
        "async def slowly(timeout, awaitable):",
        "    await wait_for(timeout, awaitable)",
        "    await asyncio.sleep(1)",
        "check_all.wait_for = slowly",
    )
    head = check(site, 0, 2)
    head.says("the roll call is open")
    worker = check(site, 1, 2, "--expect-gpus=8")
    assert [head.wait(), worker.wait()] == [78, 78]
    assert "rank 1 (" in head.err


def test_the_switch_goes_with_check_alone(site: Site) -> None:
    node = site.run("detect", "--run")
    assert node.wait() == 64
    assert "--run goes with check or status: ray-bootstrap check --run" in node.err


@pytest.mark.parametrize("args", [["--json"], ["--", "true"]])
def test_a_check_of_all_nodes_takes_neither_json_nor_a_workload(site: Site, args: list[str]) -> None:
    node = site.run("check", "--run", *args)
    assert node.wait() == 64
    assert "it prints a table, and runs nothing; leave " in node.err


def test_a_check_says_whom_it_waits_for(site: Site) -> None:
    site.shorten(STILL_LOOKING_S=0.5)
    head = check(site, 0, 2, "--quorum-timeout=60")
    head.says("1 of 2 nodes\n    rank 1: never seen")
    worker = check(site, 1, 2)
    assert [head.wait(), worker.wait()] == [0, 0]


def test_a_check_that_loses_a_node_does_not_pass(site: Site) -> None:
    """The lost one does not answer, so the others' probes are under way when it goes."""
    nodes = [check(site, rank, 3) for rank in range(2)]
    site.patch("from bootstrap.probe import responder", "responder.Responder.begin = lambda *_: None")
    mute = check(site, 2, 3)
    nodes[0].says("all 3 nodes are here")
    os.kill(mute.agent, signal.SIGKILL)
    assert [node.wait() for node in (*nodes, mute)] == [78, 78, 137]
    assert "rank 2 (" in nodes[0].err
    assert "was lost during the check" in nodes[0].err


def test_a_check_that_misses_a_node_shows_the_connections_that_were_rejected(site: Site) -> None:
    nodes = [
        check(site, rank, 2, "--quorum-timeout=3", RAY_BOOTSTRAP_SECRET=f"the secret of rank {rank}")
        for rank in range(2)
    ]
    assert [node.wait() for node in nodes] == [75, 77]
    error = nodes[0].err.rpartition("error: ")[2]
    assert "1 of 2 nodes after 3 s\n    rank 1: never seen\n    rejected:\n" in error
    assert "fix: set the same RAY_BOOTSTRAP_SECRET" in error


def test_a_worker_waits_for_the_check_and_not_for_ray(site: Site) -> None:
    nodes = [check(site, rank, 2) for rank in range(2)]
    assert [node.wait() for node in nodes] == [0, 0]
    assert "waiting until the check of all nodes ends" in nodes[1].err
