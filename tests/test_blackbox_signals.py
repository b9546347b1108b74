"""The real command, stopped or killed: in every phase, on either kind of node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import blocks, wait_for
from stubs import RESOLVER_THAT_HANGS, nvml_that_hangs, preloaded

from bootstrap.namespaces.linux import children_in_pid_namespace

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]

TERM, INT, HUP, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT
KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
STAY = ["sh", "-c", "echo up; exec sleep 600"]
"""A workload that ends by any signal."""
HANDLES = ["sh", "-c", "trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.02; done"]
UNTIL_TOLD = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done"]
SAVES = [
    "sh",
    "-c",
    """trap 'stopped=1' TERM; echo up; until test $stopped; do sleep 0.02; done
    echo saving; until test -e ../go; do sleep 0.02; done; echo saved""",
]
"""A workload that takes its time for a checkpoint, and hears no second SIGTERM.

It waits without a long-lived child: one that has not reached its exec yet loses the signal to the shell's handler.
"""
IGNORES = ["sh", "-c", "trap '' TERM INT; echo up; while :; do sleep 0.02; done"]


@pytest.mark.parametrize("signum", [TERM, INT, HUP, QUIT])
def test_a_signal_during_the_workload(site: Site, signum: int) -> None:
    node = site.run("--", *STAY)
    node.says("up", where="out")
    node.send(signum)
    assert node.wait() == 128 + signum
    assert f"passing {signal.Signals(signum).name} on to the workload; 20 s of grace" in node.err
    assert f"the workload ended with status {128 + signum}" in node.err
    assert (node.verdict["source"], node.verdict["status"]) == ("stopped", 128 + signum)


def test_the_workload_may_use_its_grace(site: Site) -> None:
    node = site.run("--", *HANDLES)
    node.says("up", where="out")
    node.send(TERM)
    assert node.wait() == 143
    assert node.out == "up\nsaved\n"
    assert "the workload ended with status 5" in node.err


def test_a_workload_that_ignores_sigterm_is_killed_after_its_grace(site: Site) -> None:
    node = site.run("--grace=0.5", "--", *IGNORES)
    node.says("up", where="out")
    node.send(TERM)
    assert node.wait() == 143
    assert "the workload ended with status 137" in node.err
    assert node.verdict["seconds"] < 15


def test_a_second_signal_ends_the_grace(site: Site) -> None:
    head, worker = site.several(2, "--grace=1h", workload=IGNORES)
    head.says("up", where="out")
    head.send(INT)
    head.says("passing SIGINT on to the workload; 3600 s of grace")
    head.send(TERM)
    check("stop-again", there=head.wait(), elsewhere=[worker.wait()], signum=INT)
    assert "the workload ended with status 137" in head.err


def test_a_daemon_that_dies_leaves_the_workload_its_grace(site: Site) -> None:
    node = site.run("--", *HANDLES)
    node.says("up", where="out")
    os.kill(node.raylet, KILL)
    assert node.wait() == 76
    assert node.out == "up\nsaved\n"


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_signals_are_the_workloads(site: Site, signum: int) -> None:
    name = signal.Signals(signum).name.removeprefix("SIG")
    node = site.run("--", "sh", "-c", f"trap 'echo got; exit 7' {name}; echo up; while :; do sleep 0.02; done")
    node.says("up", where="out")
    node.send(signum)
    assert node.wait() == 7
    assert node.out == "up\ngot\n"


def test_a_user_signal_without_a_workload_is_told(site: Site) -> None:
    node = site.run()
    node.says("no workload was given")
    node.send(signal.SIGUSR1)
    node.says("ignored SIGUSR1: no workload runs on this node")
    node.send(TERM)
    assert node.wait() == 143


@pytest.mark.requires("cc")
@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_signal_during_the_inspection(site: Site, signum: int) -> None:
    node = site.run("--", "touch", "started", env=nvml_that_hangs(site))
    node.says("NVML hangs")
    node.send(signum)
    assert node.wait() == 128 + signum
    assert not (node.folder / "started").exists()


FOLDER_THAT_IS_SLOW = """
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    if (strstr(to, "SLOW")) { fprintf(stderr, "it takes its time\\n"); usleep(MILLISECONDS * 1000); }
    return syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}
"""


def slow(what: str, milliseconds: int) -> str:
    return FOLDER_THAT_IS_SLOW.replace("SLOW", what).replace("MILLISECONDS", str(milliseconds))


@pytest.mark.requires("cc")
def test_a_signal_while_the_shared_folder_hangs(site: Site) -> None:
    env = preloaded(site, slow("head-", 600_000))
    node = site.run("--rank=0", "--nodes=2", f"--shared-dir={site.shared}", env=env)
    node.says("it takes its time")
    node.send(TERM)
    assert node.wait() == 143


@pytest.mark.requires("cc")
def test_a_shared_folder_that_hangs_ends_all_nodes_in_time(site: Site) -> None:
    options = ["--nodes=2", f"--shared-dir={site.shared}", "--head-timeout=1"]
    head = site.run("--rank=0", *options, "--", "true", env=preloaded(site, slow("head-", 600_000)))
    worker = site.run("--rank=1", *options, "--", "true")
    check("shared-dir-hangs-later", there=head.wait(), elsewhere=[worker.wait()])


@pytest.mark.requires("cc")
@pytest.mark.parametrize("signum", [TERM, KILL])
def test_a_signal_while_the_record_is_written_leaves_nothing_of_it(site: Site, signum: int) -> None:
    env = preloaded(site, slow("head-", 500))
    node = site.run("--rank=0", "--nodes=2", f"--shared-dir={site.shared}", env=env)
    node.says("it takes its time")
    os.kill(node.agent, signum)
    assert node.wait() == 128 + signum
    assert list(site.shared.iterdir()) == []


@pytest.mark.requires("cc")
@pytest.mark.parametrize(
    ("args", "times"),
    [
        (["--address=head.example", "--min-nodes=2"], 1),
        (["--head-address=head.example", "--rank=1", "--nodes=2"], 8),  # two looks
    ],
)
def test_a_signal_while_a_name_server_hangs(site: Site, args: list[str], times: int) -> None:
    node = site.run(*args, env=preloaded(site, RESOLVER_THAT_HANGS))
    wait_for(lambda: node.err.count("the resolver hangs") >= times, 20, "look-ups that hang")
    node.send(TERM)
    begun = time.monotonic()
    assert node.wait() == 143
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("signum", [TERM, INT])
def test_a_signal_while_ray_starts(site: Site, signum: int) -> None:
    node = site.run("--", "touch", "started", env={"FAKE_RAY": "hang"})
    node.appears("record")
    node.send(signum)
    assert node.wait() == 128 + signum
    assert not (node.folder / "started").exists()


def test_a_signal_to_a_worker_that_looks_for_the_head(site: Site) -> None:
    node = site.rank(1, 2)
    node.is_in("searching")
    node.send(TERM)
    assert node.wait() == 143


def test_a_signal_to_a_worker_that_waits_for_its_release(site: Site) -> None:
    head = site.rank(0, 2, env={"FAKE_RAY": "gate"})
    worker = site.rank(1, 2)
    worker.is_in("waiting")
    worker.send(TERM)
    assert worker.wait() == 143
    assert worker.starts == []
    head.says("rank 1 (", "left: stopped by SIGTERM")
    instead = site.rank(1, 2)
    instead.is_in("waiting")
    (head.folder / "record.go").touch()
    assert (head.wait(), instead.wait()) == (0, 0)


def test_a_signal_to_a_head_whose_workers_wait_for_their_release(site: Site) -> None:
    head = site.rank(0, 2, env={"FAKE_RAY": "hang"})
    worker = site.rank(1, 2)
    worker.is_in("waiting")
    head.send(TERM)
    assert (head.wait(), worker.wait()) == (143, 143)
    assert "the head says: stopped by SIGTERM" in worker.err
    assert worker.starts == []


def test_a_signal_during_the_quorum_says_who_was_missing(site: Site) -> None:
    head = site.rank(0, 3, "--late-wait=0")
    worker = site.rank(1, 3)
    worker.is_in("joined")
    head.says("2 of 3 nodes; waiting for rank 2 (not seen)")
    head.send(TERM)
    assert (head.wait(), worker.wait()) == (143, 143)
    assert "so far:\n" in head.err
    assert "rank 2: never seen" in head.err


def test_a_signal_to_an_idle_worker_during_the_workload(site: Site) -> None:
    head, worker = site.several(2, workload=HANDLES)
    head.says("up", where="out")
    worker.is_in("joined")  # Ray, and so the head, knows it a moment before
    raylet = worker.raylet
    worker.send(TERM)
    assert worker.wait() == 143
    drain = json.loads((worker.folder / "record.drain").read_text())
    assert int(drain["node-id"], 16) == raylet
    assert drain["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert 1 <= int(drain["deadline-remaining-seconds"]) < 20  # what is left of the grace, less what the end takes
    head.says("rank 1 (", "left: stopped by SIGTERM")
    head.send(TERM)
    assert head.wait() == 143
    assert head.out == "up\nsaved\n"


def test_a_busy_worker_stays_until_the_workload_has_ended(site: Site) -> None:
    head, worker = site.several(2, "--grace=1h", workload=UNTIL_TOLD, env={"FAKE_RAY": "busy"})
    head.says("up", where="out")
    worker.is_in("joined")
    worker.send(TERM)
    worker.appears("record.drain")
    (site.folder / "go").touch()
    assert (head.wait(), worker.wait()) == (0, 0)


def test_a_signal_to_all_agents_leaves_the_workload_its_cluster(site: Site) -> None:
    nodes = site.several(3, "--grace=1h", workload=SAVES, env={"FAKE_RAY": "busy"})
    nodes[0].says("up", where="out")
    for worker in nodes[1:]:
        worker.is_in("joined")
    for node in reversed(nodes):
        node.send(TERM)
    nodes[0].says("saving", where="out")
    for worker in nodes[1:]:
        worker.says("the head is stopping, too: this node stays for the workload, 3600 s at most")
        worker.is_in("joined")
    (site.folder / "go").touch()
    assert [node.wait() for node in nodes] == [143, 143, 143]
    assert nodes[0].out == "up\nsaving\nsaved\n"
    assert not list(site.folder.glob("*/record.drain"))
    assert "leaving" not in nodes[0].err


@pytest.mark.parametrize("how", ["grace", "signal", "raylet"])
def test_a_worker_that_stays_for_the_head_leaves_before_it(site: Site, how: str) -> None:
    head = site.rank(0, 2, "--grace=1h", workload=SAVES)
    worker = site.rank(1, 2, "--grace=2" if how == "grace" else "--grace=1h", workload=SAVES)
    head.says("up", where="out")
    worker.is_in("joined")
    head.send(TERM)
    head.says("saving", where="out")
    worker.send(TERM)
    worker.says("the head is stopping, too: this node stays for the workload")
    if how == "signal":
        worker.send(INT)
    elif how == "raylet":
        os.kill(worker.raylet, KILL)
    assert worker.wait() == 143
    (site.folder / "go").touch()
    assert head.wait() == 143
    assert head.out == "up\nsaving\nsaved\n"


def test_a_worker_whose_head_does_not_answer_drains(site: Site) -> None:
    head, worker = site.several(2, workload=UNTIL_TOLD)
    head.says("up", where="out")
    worker.is_in("joined")
    os.kill(head.agent, STOP)
    worker.send(TERM)
    worker.appears("record.drain")
    os.kill(head.agent, CONT)
    there = worker.wait()
    head.says("rank 1 (", "leaving: stopped by SIGTERM")
    (site.folder / "go").touch()
    check("stop-worker-head-hangs", there=there, elsewhere=[head.wait()], signum=TERM, workload=0)


@pytest.mark.parametrize("how", ["grace", "signal"])
def test_the_grace_of_a_busy_worker_ends(site: Site, how: str) -> None:
    grace = "--grace=4" if how == "grace" else "--grace=1h"
    head, worker = site.several(2, grace, workload=STAY, env={"FAKE_RAY": "busy"})
    head.says("up", where="out")
    worker.is_in("joined")
    worker.send(TERM)
    worker.appears("record.drain")
    if how == "signal":
        worker.send(INT)
    assert worker.wait() == 143
    head.send(TERM)
    assert head.wait() == 143


def test_a_grace_that_is_too_short_to_drain_says_so(site: Site) -> None:
    head, worker = site.several(2, "--grace=0.5", workload=STAY, env={"FAKE_RAY": "busy"})
    head.says("up", where="out")
    worker.is_in("joined")
    worker.send(TERM)
    assert worker.wait() == 143
    assert "--grace=0.5 is too short to drain Ray, so tasks here are killed; fix: --grace=4 or more" in worker.err
    assert not (worker.folder / "record.drain").exists()
    head.send(TERM)
    assert head.wait() == 143


def test_a_signal_to_every_process_at_once_leaves_the_grace(site: Site) -> None:
    """Slurm (unless proctrack/cgroup) and systemd signal all processes: the agent hears it twice, Ray ends of it."""
    node = site.run("--grace=1h", "--", *SAVES)
    node.says("up", where="out")
    agent, daemons = node.agent, [node.raylet, node.daemon("gcs_server")]
    os.kill(agent, signal.SIGSTOP)  # it meets all of them at once, however slow this loop is
    for pid in [*daemons, agent, node.standby, node.process.pid]:
        os.kill(pid, TERM)
    os.kill(agent, signal.SIGCONT)
    node.says("saving", where="out")
    (site.folder / "go").touch()
    assert node.wait() == 143
    assert node.out == "up\nsaving\nsaved\n"


def test_a_signal_to_the_head_ends_all_with_its_status(site: Site) -> None:
    nodes = site.several(3, workload=HANDLES)
    nodes[0].says("up", where="out")
    nodes[0].send(INT)
    first, *others = [node.wait() for node in nodes]
    check("stop-head", there=first, elsewhere=others, signum=INT)


VICTIMS = ["supervisor", "standby", "agent"]


def process(node: Node, victim: str) -> int:
    """The process id of one of the node's three."""
    return node.process.pid if victim == "supervisor" else int(getattr(node, victim))


@pytest.mark.parametrize(
    ("fault", "victim"),
    [("head-supervisor", "supervisor"), ("head-standby", "standby"), ("head-agent", "agent")],
)
def test_killing_one_of_the_heads_three_processes_leaves_nothing(site: Site, fault: str, victim: str) -> None:
    head, worker = site.several(2, workload=STAY)
    head.says("up", where="out")
    os.kill(process(head, victim), KILL)
    check(fault, elsewhere=[worker.wait()], there=head.wait(within=5))
    assert "without a verdict" in worker.err or "was killed" in worker.err
    if victim == "agent":
        assert "was killed by SIGKILL; killed the" in head.err


def test_killing_the_agent_while_ray_starts_leaves_nothing_of_the_session(site: Site) -> None:
    node = site.run("--", "true", env={"FAKE_RAY": "hang"})
    wait_for(lambda: list(node.temp_dir.glob("session_2*/sockets")), what="a session")
    (session,) = node.temp_dir.glob("session_2*")
    os.kill(node.agent, KILL)
    assert node.wait() == 137
    assert [path.name for path in session.iterdir()] == ["logs"]


def test_killing_the_agent_while_the_file_of_its_record_hangs(site: Site) -> None:
    site.shorten(DEAD_AGENT_S=1)
    nobody_reads = site.folder / "fifo"
    os.mkfifo(nobody_reads)
    node = site.run(f"--result-file={nobody_reads}", "--", *STAY)
    node.says("up", where="out")
    os.kill(node.agent, KILL)
    assert node.wait() == 137
    assert [path.name for path in node.temp_dir.glob("session_2*/*")] == ["logs"]


def test_killing_the_agent_when_nobody_reads_its_lines(site: Site) -> None:
    site.shorten(DEAD_AGENT_S=1)
    reading, writing = os.pipe()
    node = site.run("--", *STAY, stderr=writing)
    node.says("up", where="out")
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    os.set_blocking(writing, True)
    os.kill(node.agent, KILL)
    assert node.wait() == 137
    assert node.verdict["status"] == 137
    assert [path.name for path in node.temp_dir.glob("session_2*/*")] == ["logs"]
    for fd in (reading, writing):
        os.close(fd)


def test_a_worker_that_is_told_to_stop_may_be_the_first_of_all_that_are(site: Site) -> None:
    head, worker = site.several(2, "--on-node-loss=fail", workload=SAVES)
    head.says("up", where="out")
    worker.send(TERM)
    head.says("rank 1 (", "leaving")
    head.send(TERM)
    head.says("saving", where="out")
    (site.folder / "go").touch()
    assert (head.wait(), worker.wait()) == (143, 143), head.err


def test_a_worker_alone_that_is_told_to_stop_is_a_loss(site: Site) -> None:
    site.shorten(STOPPED_FIRST_S=1)
    head, worker = site.several(2, "--on-node-loss=fail", workload=STAY)
    head.says("up", where="out")
    worker.send(TERM)
    there = worker.wait()  # before the head stops waiting for its own signal
    check("stop-worker-fail", there=there, elsewhere=[head.wait()], signum=TERM)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize(("fault", "on_loss"), [("worker-process", "warn"), ("worker-process-fail", "fail")])
def test_killing_one_of_a_workers_three_processes_leaves_nothing(
    site: Site, fault: str, on_loss: str, victim: str
) -> None:
    site.shorten(STOPPED_FIRST_S=1)
    head, worker = site.several(2, f"--on-node-loss={on_loss}", workload=UNTIL_TOLD)
    head.says("up", where="out")
    os.kill(process(worker, victim), KILL)
    there = worker.wait(within=5)
    head.says("rank 1 (")
    if on_loss == "warn":
        (site.folder / "go").touch()
    check(fault, there=there, elsewhere=[head.wait()], workload=0)
    assert ("was lost during the workload" in head.verdict["reason"]) is (on_loss == "fail")


def test_a_worker_that_falls_silent_is_lost(site: Site) -> None:
    head, worker = site.several(2, "--heartbeat-timeout=1", "--on-node-loss=fail", workload=STAY)
    head.says("up", where="out")
    agent = worker.agent
    for pid in (worker.process.pid, agent):
        os.kill(pid, STOP)
    others = [head.wait()]
    assert "silent for 1 s" in head.err
    for pid in (worker.process.pid, agent):
        os.kill(pid, CONT)
    check("worker-silent-fail", there=worker.wait(), elsewhere=others)


def test_a_head_that_falls_silent_is_lost(site: Site) -> None:
    head, worker = site.several(2, "--heartbeat-timeout=1", workload=STAY)
    head.says("up", where="out")
    agent = head.agent
    os.kill(agent, STOP)
    assert worker.wait() == 76
    assert "it was silent for 1 s" in worker.err
    os.kill(agent, CONT)
    head.send(TERM)
    assert head.wait() == 143


def test_a_signal_before_the_agent_is_up(site: Site) -> None:
    node = site.run("--", "sleep", "600")
    wait_for(lambda: blocks(node.process.pid, TERM), what="the first line of __main__")
    node.send(TERM)
    assert node.wait() == 143


@pytest.mark.hosts
@pytest.mark.parametrize(("workload", "status"), [(["sh", "-c", "exit 3"], 3), (HANDLES, 143)])
def test_as_pid_1(site: Site, workload: list[str], status: int) -> None:
    with children_in_pid_namespace(None):
        node = site.run("--", *workload, before=["unshare", "--mount", "--mount-proc", "--"])
    if status == 143:
        node.says("up", where="out")
        node.send(TERM)
    assert node.wait() == status


@pytest.mark.hosts
def test_pid_1_reaps_strangers(site: Site) -> None:
    with children_in_pid_namespace(None):
        node = site.run("--", *STAY, before=["unshare", "--mount", "--mount-proc", "--"])
    node.says("up", where="out")
    orphans = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children")
    before = orphans.read_text()
    with children_in_pid_namespace(node.process.pid):
        # Like `kubectl exec`: it comes in from outside, and what it leaves behind becomes PID 1's.
        stranger = subprocess.Popen(["sh", "-c", "exec 3<&0; (read line <&3) & exit 0"], stdin=subprocess.PIPE)
    assert stranger.wait() == 0
    wait_for(lambda: orphans.read_text() != before, what="PID 1 has a new child")
    assert stranger.stdin is not None
    stranger.stdin.close()
    wait_for(lambda: orphans.read_text() == before, what="PID 1 has reaped it")
    node.send(TERM)
    assert node.wait() == 143
