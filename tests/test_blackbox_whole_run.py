"""``wait``, ``status --run``, ``down`` and ``env``: the run as another shell of its user sees it, and ends it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import states
from namespaces import wait_for

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

PAIR = ("--nodes=2", "--head-address=127.0.0.1")
SECRET = {"RAY_BOOTSTRAP_SECRET": "correct horse battery staple"}
STAYS = ("sh", "-c", "trap 'echo saved; exit 5' TERM; echo up; while :; do sleep 0.1; done")


def several(site: Site, count: int, env: dict[str, str] | None = None) -> list[Node]:
    """Nodes whose cluster stays up without a workload."""
    who = [(f"--rank={rank}", f"--nodes={count}", "--head-address=127.0.0.1") for rank in range(count)]
    return [site.run(*each, env={**SECRET, **(env or {})}) for each in who]


def elsewhere(site: Site) -> None:
    """Has the commands that are started from now on see no agent on this machine, as on a host beside the run's."""
    site.patch("from pathlib import Path", "from bootstrap.files import runtime_dir", "runtime_dir.PARENT = Path('/x')")


# --------------------------------------------------------------------------------------------------------------- wait


def test_wait_before_during_and_after_the_start(site: Site) -> None:
    before = site.run("wait")
    (node,) = several(site, 1)
    assert before.wait() == 0
    node.is_in("running")
    during = site.run("wait")
    assert during.wait() == 0
    assert during.out == before.out == f"{gcs_of(site)}\n"
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    after = site.run("wait")
    assert after.wait() == 143
    assert after.out == ""
    assert "has ended with status 143 (from ray-bootstrap: stopped): stopped by SIGTERM" in after.err


def gcs_of(site: Site) -> str:
    return str(next(state["gcs"] for state in states() if state.get("run_id") == site.run_id))


def test_wait_says_why_a_run_fails_before_ray_starts(site: Site) -> None:
    waiting = site.run("wait")
    unfit = site.run(f"--temp-dir=/tmp/{'x' * 60}", "--", "true")
    assert unfit.wait() == 78
    assert waiting.wait() == 78
    assert re.search(r"has ended with status 78 \(from ray-bootstrap: preflight\): \w", waiting.err)


def test_wait_fails_for_a_run_that_ended_well(site: Site) -> None:
    """There is no cluster to use, whatever its workload's status."""
    node = site.run("--", "true")
    assert node.wait() == 0
    waiting = site.run("wait")
    assert waiting.wait() == 68
    assert "has ended with status 0 (from the workload): the workload ended with status 0" in waiting.err
    assert "exit status 68, since no cluster stands" in waiting.err


def test_wait_names_the_run_that_its_caller_did_not(site: Site) -> None:
    own = f"runtime_dir.PARENT = Path('{site.folder}')"  # where no other run of this user is the latest to have ended
    site.patch("from pathlib import Path", "from bootstrap.files import runtime_dir", own)
    assert site.run("--", "true").wait() == 0
    waiting = site.run("wait", env={"RAY_BOOTSTRAP_RUN_ID": None})
    assert waiting.wait() == 68
    assert f"error: run {site.run_id!r} has ended with status 0" in waiting.err


def test_wait_says_how_far_the_run_is(site: Site) -> None:
    nodes = [site.run(f"--rank={rank}", "--nodes=3", "--head-address=127.0.0.1", env=SECRET) for rank in range(2)]
    nodes[1].is_in("joined")
    late = site.run("wait", "--timeout=1")
    assert late.wait() == 68
    assert "does not stand after 1 s; its nodes that are not up:" in late.err
    assert re.search(r"\n.* 0 +\S+ +127\.0\.0\.1 +waiting ", late.err)
    assert re.search(r"\n.* 2 +- +- +never seen", late.err)
    assert "127.0.0.2" not in late.err
    never = site.run("wait", "--timeout=0.3", "--run-id=another")
    assert never.wait() == 68
    assert "no run 'another' found within 0.3 s: this user has no run 'another' on this machine" in never.err
    assert site.run("down").wait() == 0
    assert [node.wait() for node in nodes] == [0, 0]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_wait_ends_at_a_signal(site: Site, signum: int, status: int) -> None:
    waiting = site.run("wait")
    wait_for(lambda: waiting._alive() and "sigterm" in handled(waiting.process.pid), 10)
    waiting.send(signum)
    assert waiting.wait() == status
    assert f"stopped by {signal.Signals(signum).name}" in waiting.err


def handled(pid: int) -> str:
    """``sigterm`` once the process has a handler for it."""
    (mask,) = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return "sigterm" if int(mask, 16) & 1 << (signal.SIGTERM - 1) else ""


def test_wait_hears_of_an_agent_that_is_killed(site: Site) -> None:
    waiting = site.run("wait")
    head = site.run("--rank=0", "--nodes=2", "--head-address=127.0.0.1", env=SECRET)
    head.says("roll call is open")
    os.kill(head.agent, signal.SIGKILL)
    assert head.wait() == 137
    assert waiting.wait() == 137
    assert "(from ray-bootstrap: killed): the agent" in waiting.err


# ------------------------------------------------------------------------------------------------------- status --run


def test_status_of_the_whole_run(site: Site) -> None:
    none = site.run("status", "--run")
    assert none.wait() == 1
    head = site.run("--rank=0", "--nodes=3", "--head-address=127.0.0.1", env=SECRET)
    head.is_in("waiting")
    watching = site.run("status", "--run", "--watch")
    watching.says("never seen", where="out")
    some = site.run("status", "--run", "--json")
    assert some.wait() == 2
    report = json.loads(some.out)
    assert (report["run_id"], report["size"], report["ready"], report["unseen"]) == (site.run_id, 3, False, [1, 2])
    assert [(row["rank"], row["phase"]) for row in report["nodes"]] == [(0, "waiting")]
    workers = [site.run(f"--rank={rank}", "--nodes=3", "--head-address=127.0.0.1", env=SECRET) for rank in (1, 2)]
    watching.says("3 of 3 nodes are up, the cluster stands", where="out")
    whole = site.run("status", "--run")
    assert whole.wait() == 0
    lines = whole.out.splitlines()
    assert lines[1].split() == ["rank", "host", "address", "phase", "since", "CPUs", "GPUs", "findings"]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]
    assert [line.split()[2:4] for line in lines[2:]] == [
        ["127.0.0.2", "running"],
        ["127.0.0.5", "joined"],
        ["127.0.0.6", "joined"],
    ]
    assert site.run("down", "--status=9").wait() == 0
    assert watching.wait() == 1
    assert "has ended with status 9" in watching.err
    for node in (head, *workers):
        assert node.wait() == 9


def test_watch_redraws_in_a_terminal(site: Site) -> None:
    (node,) = several(site, 1)
    node.is_in("running")
    terminal, its_end = os.openpty()
    watching = site.run("status", "--run", "--watch", before=["sh", "-c", 'exec "$@" > "$0"', os.ttyname(its_end)])
    seen = b""
    while seen.count(b"\x1b[H\x1b[2J") < 3:
        seen += os.read(terminal, 65536)
    assert seen.count(b"1 of 1 nodes are up, the cluster stands") >= 2  # once more, although nothing has changed
    assert site.run("down").wait() == 0
    assert (watching.wait(), node.wait()) == (1, 0)
    os.close(terminal)
    os.close(its_end)


def test_watch_is_for_people(site: Site) -> None:
    for args in (["--watch"], ["--watch", "--run", "--json"]):
        refused = site.run("status", *args)
        assert refused.wait() == 64
        assert "give --run, and leave --json out" in refused.err


# --------------------------------------------------------------------------------------------------------------- down


def test_down_ends_all_nodes_with_its_status_and_returns_when_they_are_gone(site: Site) -> None:
    nodes = several(site, 3)
    assert site.run("wait").wait() == 0
    ending = site.run("down", "--status", "3")
    assert ending.wait() == 0
    assert [state for state in states() if state.get("run_id") == site.run_id] == []
    for node in nodes:
        assert node.wait() == 3
        last = node.err.splitlines()[-1]
        assert "exit status 3 (from ray-bootstrap: down): 'ray-bootstrap down' on " in last
        assert "error:" not in node.err
        assert (node.verdict["source"], node.verdict["retryable"]) == ("down", False)
    again = site.run("down")
    assert again.wait() == 0
    assert "with status 3 (from ray-bootstrap: down)" in again.err


def test_down_gives_a_workload_its_grace(site: Site) -> None:
    nodes = site.several(2, workload=STAYS, env=SECRET)
    nodes[0].says("up", where="out")
    assert site.run("down").wait() == 0
    assert [node.wait() for node in nodes] == [0, 0]
    assert nodes[0].out == "up\nsaved\n"
    assert "passing SIGTERM on to the workload" in nodes[0].err


def test_two_downs_at_once_both_return(site: Site) -> None:
    slow = ("sh", "-c", "trap 'sleep 2; exit' TERM; echo up; while :; do sleep 0.1; done")
    (node,) = site.several(1, workload=slow)
    node.says("up", where="out")
    first, second = site.run("down", "--status=4"), site.run("down", "--status=5")
    assert [first.wait(), second.wait()] == [0, 0]
    assert node.wait() in (4, 5)  # whichever came first


def test_down_before_the_quorum(site: Site) -> None:
    """Nobody waits for the nodes that have not come."""
    head = site.run("--rank=0", "--nodes=2", "--head-address=127.0.0.1", env=SECRET)
    head.is_in("waiting")
    assert site.run("down", "--status=6").wait() == 0
    assert head.wait() == 6
    assert "stays for up to" not in head.err


def test_down_ends_one_of_two_runs(site: Site) -> None:
    one, other = site.run(), site.run("--run-id=other")
    for node in (one, other):
        node.is_in("running")
    several_here = site.run("down", env={"RAY_BOOTSTRAP_RUN_ID": None})
    assert several_here.wait() == 64
    assert "name one: --run-id=ID" in several_here.err
    assert site.run("down", "--run-id=other", "--status=7").wait() == 0
    assert other.wait() == 7
    assert one.process.poll() is None
    assert site.run("down").wait() == 0
    assert one.wait() == 0


def test_down_without_a_run(site: Site) -> None:
    none = site.run("down")
    assert none.wait() == 68
    assert f"no run {site.run_id!r} found: this user has no run" in none.err
    assert "no other machine was asked: nothing says where the head of run" in none.err
    assert "fix: start it on this machine, or give --head-address=HOST, or" in none.err
    (unknown := site.run("status", "--run")).wait()
    assert f"no run {site.run_id!r} found" in unknown.err
    assert "fix: start it on this machine, or give --head-address=HOST" in unknown.err


@pytest.mark.parametrize("status", ["256", "three"])
def test_a_status_is_one_of_an_exit(site: Site, status: str) -> None:
    wrong = site.run("down", f"--status={status}")
    assert wrong.wait() == 64
    assert f"--status='{status}'" in wrong.err


@pytest.mark.parametrize("command", ["status", "wait", "down", "env"])
def test_what_they_would_not_run_is_refused(site: Site, command: str) -> None:
    lost = site.run(command, "--", "python", "train.py")
    assert lost.wait() == 64
    assert f"{command} runs nothing: omit `-- python train.py`; `ray-bootstrap exec -- COMMAND`" in lost.err


# --------------------------------------------------------------------------------------------- from beside the nodes


def test_from_elsewhere_with_the_secret_and_not_without(site: Site) -> None:
    nodes = several(site, 2)
    nodes[1].is_in("joined")
    elsewhere(site)
    where = "--head-address=127.0.0.1"
    assert site.run("wait", where, env=SECRET).wait() == 0
    shown = site.run("status", "--run", "--json", where, env=SECRET)
    assert shown.wait() == 0
    assert [row["phase"] for row in json.loads(shown.out)["nodes"]] == ["running", "joined"]
    for env, why in (
        ({"RAY_BOOTSTRAP_SECRET": "another one of 16 bytes"}, "its secret is not the head's"),
        ({}, "the head has a secret, this node has no secret"),
    ):
        for command in ("wait", "down"):
            refused = site.run(command, where, env=env)
            assert refused.wait() == 77
            assert why in refused.err
    another = site.run("down", where, "--attempt=1", env=SECRET)
    assert another.wait() == 68
    assert "another run's head" in another.err
    nowhere = site.run("down", env=SECRET)
    assert nowhere.wait() == 68
    assert "nothing says where the head of run" in nowhere.err
    assert site.run("down", where, "--status=8", env=SECRET).wait() == 0
    assert [node.wait() for node in nodes] == [8, 8]


def test_from_elsewhere_by_the_record_in_a_shared_folder(site: Site) -> None:
    shared = f"--shared-dir={site.shared}"
    waiting = site.run("wait", shared)
    nodes = [site.run(f"--rank={rank}", "--nodes=2", shared) for rank in range(2)]
    nodes[1].is_in("joined")
    assert waiting.wait() == 0
    elsewhere(site)
    assert site.run("wait", shared).wait() == 0
    assert site.run("down", shared, "--status=2").wait() == 0
    assert [node.wait() for node in nodes] == [2, 2]


def test_from_elsewhere_by_the_record_of_the_end(site: Site) -> None:
    """A head that ended before all nodes had come has left word, also for those who wait beside them."""
    shared = f"--shared-dir={site.shared}"
    head = site.run("--rank=0", "--nodes=2", shared, "--quorum-timeout=1")
    assert head.wait() == 75
    elsewhere(site)
    waiting = site.run("wait", shared)
    assert waiting.wait() == 75
    assert "has ended with status 75 (from ray-bootstrap: quorum)" in waiting.err
    again = site.run("down", shared)  # no rank, so the nodes that come late still read it
    assert again.wait() == 0
    assert list(site.shared.glob("ray-bootstrap-*/end-*.json"))


# ---------------------------------------------------------------------------------------------------------------- env


def test_env_is_for_a_shell_to_evaluate(site: Site) -> None:
    script = 'set -e; eval "$("$@")"; echo $RAY_ADDRESS $RAY_AUTH_MODE; test -r "$RAY_AUTH_TOKEN_PATH"'
    early = site.run("env", before=["bash", "-c", script, "bash"])
    assert early.wait() == 1  # the shell that evaluates it stops
    assert "this user has no run" in early.err
    (node,) = several(site, 1)
    node.is_in("running")
    plain = site.run("env")
    assert plain.wait() == 0
    token = next(Path(state["folder"], "token") for state in states() if state.get("run_id") == site.run_id)
    assert plain.out.startswith("export RAY_ADDRESS=127.0.0.")
    assert str(token) in plain.out
    assert token.read_text() not in plain.out
    shell = site.run("env", before=["bash", "-c", script, "bash"])
    assert shell.wait() == 0
    assert shell.out == f"{gcs_of(site)} token\n"
    assert site.run("down").wait() == 0
    assert node.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_script_that_a_signal_ends_does_not_end_its_run_with_0(site: Site, signum: int) -> None:
    """By the traps of docs/scripts.md: with that of EXIT alone the status is that of the last command."""
    page = (Path(__file__).parent.parent / "docs" / "scripts.md").read_text()
    traps = re.findall(r"^trap .*", page, re.MULTILINE)[:2]
    lines = [*traps, 'ray-bootstrap up "${@:4}" || exit', "true", "echo up", "read line"]
    script = "\n".join(lines).replace("ray-bootstrap", '"$1" -m bootstrap')
    head = site.run("--run-id", site.run_id, before=["bash", "-c", script, "bash"], stdin=subprocess.PIPE)
    head.says("up", where="out")
    head.send(signum)
    assert head.wait() == 143
    assert head.verdict["status"] == 143


def test_a_script_ends_its_run_with_its_own_status(site: Site) -> None:
    """As the docs have it: `up`, then work, and whatever ends the script ends the run on all nodes with its status."""
    script = 'trap \'"$1" -m bootstrap down --status $?\' EXIT; "$1" -m bootstrap up "${@:4}" || exit; echo up; exit 9'
    head = site.run(*PAIR, "--rank=0", before=["bash", "-c", script, "bash"], env=SECRET)
    worker = site.run(*PAIR, "--rank=1", env=SECRET)
    assert head.wait() == 9  # and nothing of it is left
    assert worker.wait() == 9
    assert "'ray-bootstrap down' on " in head.err
