"""The user's commands before Ray, on every node, with the fake Ray."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

ENV = "$RAY_BOOTSTRAP_ENV"


def setup(*commands: str) -> list[str]:
    return [f"--setup={command}" for command in commands]


def test_what_the_commands_write_reaches_ray_and_the_workload_on_that_node(site: Site) -> None:
    commands = [
        f"echo out; echo err >&2; stat -c %a {ENV}; echo FIRST=1 >> {ENV}",
        f"echo SECOND=${{FIRST}}2 >> {ENV}",
        f"""echo "RAY_BOOTSTRAP_LABELS=rack=r$RAY_BOOTSTRAP_RANK" >> {ENV}""",
        f"""echo 'RAY_BOOTSTRAP_RESOURCES={{"domain": '$RAY_BOOTSTRAP_RANK'}}' >> {ENV}""",
    ]
    given = [*setup(*commands), "--labels=rack=none,zone=z", '--resources={"domain": 7, "disk": 1}']
    script = "echo $FIRST $SECOND ${RAY_BOOTSTRAP_ENV-gone} ${RAY_BOOTSTRAP_LABELS-gone}"
    head, worker = site.several(2, *given, workload=["sh", "-c", script])
    assert (head.wait(), worker.wait()) == (0, 0), head.err
    for rank, node in enumerate((head, worker)):
        assert node.starts[0]["env"].items() >= {"FIRST": "1", "SECOND": "12"}.items()
        assert "RAY_BOOTSTRAP_RANK" not in node.starts[0]["env"]
        labels = next(argument for argument in node.argv if argument.startswith("--labels="))
        assert {f"rack=r{rank}", "zone=z"} <= set(labels.removeprefix("--labels=").split(","))
        assert f'--resources={{"disk": 1, "domain": {rank}}}' in node.argv
        lines = [line.partition(f" rank {rank}: ")[2] for line in node.err.splitlines()]
        assert [line for line in lines if line in ("setup: out", "setup: err", "setup: 600")] == [
            "setup: out",
            "setup: err",
            "setup: 600",
        ]
        assert not list(Path("/tmp").glob("ray-bootstrap.*/setup.env"))
    assert head.out == "1 12 gone gone\n"


def test_a_command_that_fails_on_a_worker_ends_the_run_and_the_head_says_where(site: Site) -> None:
    command = "test $RAY_BOOTSTRAP_ROLE = head || { echo no such library; exit 3; }"
    head, worker = site.several(2, *setup("true", command))
    check("setup", there=worker.wait(), elsewhere=[head.wait()])
    told = f"rank 1 ({head.verdict['host']}): `{command}` (2 of 2) of --setup exited with status 3\nno such library"
    assert head.verdict["reason"] == told
    assert (head.verdict["source"], head.verdict["retryable"]) == ("setup", True)
    assert "fix: mend the command" in head.err
    assert worker.starts == []


def test_a_command_that_fails_on_the_head_ends_the_run_before_its_ray(site: Site) -> None:
    head, worker = site.several(2, *setup("[ $RAY_BOOTSTRAP_RANK = 1 ]"))
    assert (head.wait(), worker.wait()) == (79, 79)
    assert "the head says: `[ $RAY_BOOTSTRAP_RANK = 1 ]` of --setup exited with status 1" in worker.err
    assert (head.starts, worker.starts) == ([], [])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("export A=1", "line 1 is 'export A=1': expected NAME=value"),
        ("A<<END", "line 1 is 'A<<END', and no line after it is 'END'"),
        ("RAY_BOOTSTRAP_NUM_CPUS=2", "RAY_BOOTSTRAP_NUM_CPUS: of the options only RAY_BOOTSTRAP_RESOURCES and"),
        ("RAY_BOOTSTRAP_RESOURCES=disk", "RAY_BOOTSTRAP_RESOURCES='disk': expected a JSON object"),
        ("RAY_BOOTSTRAP_LABELS=rack", "RAY_BOOTSTRAP_LABELS='rack': expected key=value,key=value, got 'rack'"),
        ("RAY_ADDRESS=elsewhere:1", "RAY_ADDRESS: the agent has set it already"),
    ],
)
def test_a_line_that_is_not_understood_is_quoted(site: Site, line: str, told: str) -> None:
    node = site.run(*setup(f"echo '{line}' >> {ENV}"), "--", "true")
    assert node.wait() == 79
    assert told in node.verdict["reason"]
    assert node.starts == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("printf 'A=%0131070d' 1", "A: 131070 characters; Linux takes up to 131072 bytes"),
        ("yes LONG=1 | head -n 200000", "more than 1048576 bytes"),
    ],
)
def test_what_is_too_long_is_not_cut(site: Site, command: str, told: str) -> None:
    node = site.run(*setup(f"{command} >> {ENV}"), "--", "true")
    assert node.wait() == 79
    assert told in node.verdict["reason"]


def test_a_command_the_shell_cannot_read_is_unfit_and_nothing_runs(site: Site) -> None:
    checked = site.run("check", *setup("echo 'a"))
    assert checked.wait() == 78
    assert '/bin/sh does not understand --setup="echo \'a"' in checked.out
    node = site.run(*setup(f"touch {site.folder}/ran", "if"), "--", "true")
    assert node.wait() == 78
    assert not (site.folder / "ran").exists()


def test_a_signal_ends_the_commands_and_what_they_have_started_on_all_nodes(site: Site) -> None:
    head, worker = site.several(2, *setup("sleep 1000 & echo begun; sleep 1000"))
    for node in (head, worker):
        node.says("setup: begun")
    head.send(signal.SIGTERM)
    assert (head.wait(), worker.wait()) == (143, 143)


def test_what_a_command_leaves_behind_runs_until_the_end_and_its_lines_are_shown(site: Site) -> None:
    begin = f"(while [ ! -e {site.folder}/go ]; do sleep 0.01; done; echo later; exec sleep 1000) & echo $! > pid"
    wait = f"touch {site.folder}/go; kill -0 $(cat pid); sleep 0.5"
    node = site.run(*setup(begin), "--", "sh", "-c", wait)
    assert node.wait() == 0, node.err
    assert "setup: later\n" in node.err


def test_a_worker_runs_them_while_the_heads_ray_starts_and_says_when_they_take_long(site: Site) -> None:
    site.shorten(SLOW_START_S=0.2)
    wait = f"[ $RAY_BOOTSTRAP_RANK = 0 ] || while [ ! -e {site.folder}/go ]; do sleep 0.01; done"
    head = site.rank(0, 2, *setup(wait), env={"FAKE_RAY": "gate"})
    head.appears("record")
    worker = site.rank(1, 2, *setup(wait))
    head.says("waiting: its setup takes long: `[ $RAY_BOOTSTRAP_RANK = 0 ]")
    (head.folder / "record.go").touch()
    head.says("the Ray head is up", "waiting for rank 1")
    (site.folder / "go").touch()
    assert (head.wait(), worker.wait()) == (0, 0)
    assert worker.err.index("setup: done") < worker.err.index("joined 127.0.0.1")


def test_a_later_attempt_on_the_same_node_uses_what_an_earlier_one_has_done(site: Site) -> None:
    # Not in /tmp, where other runs of this user remove all but the newest few records.
    parent = f"runtime_dir.PARENT = pathlib.Path({str(site.folder)!r})"
    site.patch("import pathlib", "from bootstrap.files import runtime_dir", parent)
    ran = site.folder / "ran"
    count = f"echo run >> {ran}; echo NUMBER=$(wc -l < {ran}) >> {ENV}"
    show = ["--", "sh", "-c", "echo $NUMBER"]

    def number(attempt: int, *more: str, commands: list[str] | None = None) -> str:
        node = site.run(f"--attempt={attempt}", *setup(*(commands or [count])), *more, *show)
        assert node.wait() == 0, node.err
        return node.out.strip()

    assert number(0) == "1"
    assert number(1) == "1"
    assert "setup: attempt 0 has run it on this node; --setup-again=yes repeats it" in site.nodes[-1].err
    assert number(2) == "1"  # it has what attempt 1 used
    assert number(0) == "2"  # a run id that is used again
    assert number(1) == "2"
    assert number(3, "--setup-again=yes") == "3"
    assert number(4, commands=[count, "true"]) == "4"


def test_what_failed_is_done_again_by_the_next_attempt(site: Site) -> None:
    command = f"echo run >> {site.folder}/ran; [ $(wc -l < {site.folder}/ran) = 2 ]"
    assert site.run("--attempt=0", *setup(command), "--", "true").wait() == 79
    assert site.run("--attempt=1", *setup(command), "--", "true").wait() == 0


def test_in_kuberays_pods_they_are_refused(site: Site) -> None:
    node = site.run("kuberay", *setup("true"), env={"KUBERAY_GEN_RAY_START_CMD": "ray start --head"})
    assert node.wait() == 64
    assert "--setup='true': KubeRay starts Ray in its pods" in node.err


def test_detect_shows_them(site: Site) -> None:
    node = site.run("detect", "--json", *setup("a b", "c"), "--expect-gpus=2", "--head-gpus=0")
    assert node.wait() == 0
    shown = json.loads(node.out)
    assert shown["setup"]["value"] == ["a b", "c"]
    assert shown["expected"]["value"] == {"GPU": 0}
