"""``--trace``: what the file says of nodes that come up, end, are lost, or say nothing of themselves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from namespaces import wait_for
from trace_event_format import Trace

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

UNTIL_GO = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; exit 3"]
HEAD = ["starting", "preparing", "starting-ray", "waiting", "running", "ending"]
WORKER = ["starting", "preparing", "searching", "waiting", "starting-ray", "joined", "ending"]


def written(site: Site) -> Trace:
    return Trace(site.folder / "trace")


def option(site: Site) -> str:
    return f"--trace={site.folder / 'trace'}"


def appears(path: Path) -> None:
    wait_for(path.exists, 20, path.name)


def test_the_phases_of_two_nodes_from_their_first_moment_to_their_last(site: Site) -> None:
    head, worker = site.several(2, option(site), workload=["sh", "-c", "exit 3"])
    assert (head.wait(), worker.wait()) == (3, 3)
    trace = written(site)
    assert (trace.names(0), trace.names(1)) == (HEAD, WORKER)
    assert (trace.names(0, 1), trace.names(1, 1)) == (
        ["import ray", "GCS", "raylet", "verdict"],
        ["import ray", "raylet"],
    )
    assert trace.args == {(0, "running"): {"status": 3}}
    host = os.uname().nodename
    assert trace.nodes == {0: f"rank 0 ({host}), head", 1: f"rank 1 ({host})"}
    about, clocks = trace.about, trace.about["clocks"]
    assert {**about, "clocks": {}, "version": ""} == {
        "format": "ray-bootstrap 1",
        "version": "",
        "run": site.run_id,
        "attempt": 0,
        "launcher": "explicit",
        "nodes": 2,
        "status": 3,
        "source": "workload",
        "reason": "the workload ended with status 3",
        "clocks": {},
    }
    assert list(clocks) == ["1"]
    assert abs(clocks["1"]["offset_s"]) <= clocks["1"]["uncertainty_s"] + 0.01
    assert "when each node was in which phase: " in head.err
    assert "when each node" not in worker.err

    def at(rank: int, name: str) -> tuple[float, float]:
        span = trace.span(rank, name)
        return span["ts"], span["ts"] + span["dur"]

    slack = 1e6 * clocks["1"]["uncertainty_s"] + 20_000  # and the kernel's ticks
    assert at(0, "import ray")[1] <= at(0, "GCS")[0] + slack
    assert at(0, "GCS")[1] == at(0, "raylet")[0]
    assert at(0, "starting-ray")[1] <= at(1, "starting-ray")[0] + slack  # the release
    (quorum,) = trace.marks
    assert at(1, "joined")[0] <= quorum["ts"] + slack
    assert quorum["ts"] <= at(0, "running")[0]
    assert at(0, "running")[1] <= at(1, "ending")[0] + slack
    assert at(1, "ending")[1] <= at(0, "ending")[1]
    assert (site.folder / "trace").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert [path.name for path in site.folder.iterdir() if path.name.startswith(".")] == []


def _umask() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))
    return int(line.split()[1], 8)


@pytest.mark.requires("faketime")
def test_a_clock_that_is_off_moves_nothing(site: Site) -> None:
    """The worker's is 90 s ahead of the head's."""
    head = site.rank(0, 2, option(site))
    shifted = ["faketime", "--exclude-monotonic", "-f", "+90s"]
    worker = site.rank(1, 2, option(site), before=shifted)
    assert (head.wait(), worker.wait()) == (0, 0)
    trace = written(site)
    assert trace.names(1) == WORKER
    assert trace.about["clocks"]["1"]["offset_s"] == pytest.approx(90, abs=1)
    (quorum,) = trace.marks
    assert trace.span(0, "starting")["ts"] < trace.span(1, "joined")["ts"] < quorum["ts"] + 1e5


def test_a_worker_that_is_lost(site: Site) -> None:
    head, worker = site.several(2, option(site), workload=UNTIL_GO)
    head.says("up", where="out")
    worker.is_in("joined")
    os.kill(worker.agent, signal.SIGKILL)
    assert worker.wait() == 137
    head.says("lost: closed by the other side")
    (site.folder / "go").touch()
    assert head.wait() == 3
    trace = written(site)
    assert trace.names(1) == WORKER[:-1]
    assert trace.args == {(0, "running"): {"status": 3}, (1, "joined"): {"lost": "closed by the other side"}}
    joined, running = trace.span(1, "joined"), trace.span(0, "running")
    assert joined["ts"] + joined["dur"] < running["ts"] + running["dur"]


def test_a_worker_that_hangs_at_the_end_holds_the_head_up_for_a_bounded_time(site: Site) -> None:
    site.shorten(TRACE_S=0.5)
    head, worker = site.several(2, option(site), workload=UNTIL_GO)
    head.says("up", where="out")
    worker.is_in("joined")
    worker.stop()
    (site.folder / "go").touch()
    assert head.wait(8) == 3  # less than the heartbeat time-out
    assert written(site).args == {(0, "running"): {"status": 3}, (1, "joined"): {"unfinished": True}}
    worker.go_on()
    assert worker.wait() in (3, 76)  # the verdict is in its socket, unless the connection's end came first


def test_a_worker_that_says_nothing_is_drawn_as_the_head_sees_it(site: Site) -> None:
    head, worker = site.rank(0, 2, option(site)), site.rank(1, 2)
    assert (head.wait(), worker.wait()) == (0, 0)
    assert written(site).names(1) == ["waiting", "starting-ray", "joined", "ending"]


def test_a_worker_that_fails(site: Site) -> None:
    options = [option(site), "--num-gpus=0"]
    head = site.rank(0, 2, *options)
    worker = site.rank(1, 2, *options, env={"FAKE_RAY": "refuse"})
    assert (head.wait(), worker.wait()) == (69, 69)
    trace = written(site)
    assert trace.names(1) == [*WORKER[:-2], "ending"]
    assert trace.about["source"] == "ray-start"
    assert trace.args == {}


def test_the_quorums_file_remains_of_a_head_that_is_killed(site: Site) -> None:
    head = site.run(option(site), "--", *UNTIL_GO)
    head.says("up", where="out")
    appears(site.folder / "trace")
    agent = head.agent
    os.kill(agent, signal.SIGKILL)
    assert head.wait() == 137
    trace = written(site)
    assert trace.names(0) == HEAD[:4]
    assert trace.args == {(0, "waiting"): {"unfinished": True}}
    assert (trace.about["status"], trace.about["source"], trace.about["nodes"]) == (None, None, 1)


def test_an_attached_run_and_a_check_of_all_nodes(site: Site) -> None:
    ray = site.run("--", *UNTIL_GO)
    ray.says("up", where="out")
    (port,) = [word.removeprefix("--port=") for word in ray.argv if word.startswith("--port=")]
    options = [option(site), f"--attach=127.0.0.1:{port}", f"--run-id={site.run_id}-attached"]
    attached = site.run(*options, "--", "sh", "-c", "exit 4")
    assert attached.wait() == 4
    assert "without effect, since this run starts no Ray: --trace" not in attached.err.replace("--node-ip, ", "")
    trace = written(site)
    assert trace.names(0) == ["starting", "preparing", "searching", "waiting", "running", "ending"]
    assert trace.names(0, 1) == ["import ray"]
    assert trace.nodes[0].endswith(", driver")
    assert len(trace.marks) == 1

    node = site.run("check", "--run", option(site), f"--run-id={site.run_id}-check")
    assert node.wait() == 0
    trace = written(site)
    assert trace.names(0) == ["starting", "preparing", "waiting", "ending"]
    assert trace.about["source"] == "check"
    (site.folder / "go").touch()
    assert ray.wait() == 3


def test_up_is_the_first_moment_of_its_agent(site: Site) -> None:
    started = site.run("up", "--detach", option(site))
    assert started.process.wait(20) == 0
    down = site.run("down", "--status=5")
    assert down.wait() == 0, down.err
    started.wait(within=10)
    trace = written(site)
    assert trace.names(0) == [*HEAD[:4], "waiting-for-dashboard", *HEAD[4:]]
    assert trace.about["source"] == "down"
    assert trace.span(0, "starting")["dur"] > 50_000  # Python's own start, before `up` has forked


@pytest.mark.parametrize(
    ("where", "why"),
    [("missing/trace", "missing does not exist"), ("", "not a regular file"), ("file/trace", "file is not a folder")],
)
def test_a_file_that_cannot_be_written_is_found_before_anything_starts(site: Site, where: str, why: str) -> None:
    (site.folder / "file").touch()
    asked = f"{site.folder}/{where}"
    head, worker = site.several(2, f"--trace={asked}")
    assert (head.wait(), worker.wait()) == (78, 78)
    assert f"trace: --trace={asked}: " in head.err
    assert why in head.err
    assert "fix: --trace=FILE in a folder of this machine that this user can write" in head.err
    assert (head.starts, worker.starts) == ([], [])


def test_an_attached_run_finds_it_too(site: Site) -> None:
    node = site.run("--attach=127.0.0.1:1", "--trace=/dev/null", "--", "true")
    assert node.wait() == 64
    assert "--trace=/dev/null: /dev/null: not a regular file" in node.err
    assert Path("/dev/null").is_char_device()
