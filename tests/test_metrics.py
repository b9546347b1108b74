"""``--metrics-file``: what a node's file says, as Prometheus' own parser reads it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from namespaces import wait_for
from prometheus_client.parser import text_string_to_metric_families

from bootstrap import __version__
from bootstrap.model import NodeIdentity, Phase, Role
from bootstrap.run.metrics import families, render
from bootstrap.run.timeline import Timeline

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

UNTIL_GO = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; exit 3"]
HEAD = NodeIdentity("slurm", Role.HEAD, 0, 4, 'a "run"\n', attempt=2)
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Values:
    found: Values = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            assert sample.name.startswith("ray_bootstrap_")
            assert (sample.name.endswith("_total")) == (family.type == "counter")
            found[sample.name.removeprefix("ray_bootstrap_"), tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(node: Node) -> Values:
    path = node.folder / "metrics.prom"
    return read(path.read_text()) if path.exists() else {}


def phase(values: Values) -> str:
    (now,) = [dict(labels)["phase"] for (name, labels), value in values.items() if name == "phase" and value]
    return now


def test_the_names_and_values() -> None:
    timeline = Timeline(1000.0)
    timeline.enter(Phase.PREPARING)
    began = timeline.phases[-1].begin
    state = {"rank": 0, "ready": False, "findings": 2, "expected": 4, "seen": 3}
    values = read(render(list(families(HEAD, state, timeline, began + 5))).decode())
    info = {"version": __version__, "run": 'a "run"\n', "launcher": "slurm", "role": "head", "rank": "0"}
    assert values.pop(("info", tuple(sorted(info.items())))) == 1
    phases = {labels: value for (name, labels), value in values.items() if name == "phase"}
    assert phases.pop((("phase", "preparing"),)) == 1
    assert set(phases.values()) == {0}
    assert {dict(labels)["phase"] for labels in phases} >= {"starting", "searching", "running", "joined", "ending"}
    assert {dict(labels)["phase"] for labels in phases} & {"lost", "left", "refused", "failed"} == set()
    rest = {name: value for (name, labels), value in values.items() if not labels}
    assert rest == {
        "restarts_total": 2,
        "phase_start_timestamp_seconds": pytest.approx(timeline.epoch + began),
        "ready": 0,
        "findings": 2,
        "nodes_expected": 4,
        "nodes_present": 3,
        "nodes_missing": 1,
    }
    assert values["phase_seconds_total", (("phase", "preparing"),)] == pytest.approx(5)
    assert values["phase_seconds_total", (("phase", "starting"),)] == pytest.approx(began - 1000)


def test_what_is_not_known_is_absent() -> None:
    values = read(render(list(families(None, {}, Timeline(), 0.0))).decode())
    assert {name for name, _ in values} == {"phase", "phase_seconds_total", "phase_start_timestamp_seconds", "ready"}
    ended = read(render(list(families(HEAD, {"expected": 4, "seen": 1, "status": 3}, Timeline(), 0.0))).decode())
    assert ended["exit_status", ()] == 3
    assert not {"nodes_present", "nodes_missing"} & {name for name, _ in ended}


def test_two_nodes_as_they_come_up_and_end(site: Site) -> None:
    option = "--metrics-file=metrics.prom"  # in the working directory
    head = site.rank(0, 2, option, workload=UNTIL_GO)
    wait_for(lambda: of(head).get(("nodes_missing", ())) == 1, 20, "the head waits for a node")
    worker = site.rank(1, 2, option)
    head.says("up", where="out")
    wait_for(lambda: of(head).get(("ready", ())) == 1 == of(worker).get(("ready", ())), 20, "both are ready")
    wait_for(lambda: of(head).get(("nodes_present", ())) == 2, 20, "the worker is counted")
    assert (phase(of(head)), phase(of(worker))) == ("running", "joined")
    assert (of(head)["nodes_expected", ()], of(head)["nodes_missing", ()]) == (2, 0)
    assert not [name for name, _ in of(worker) if name.startswith("nodes")]
    assert ("exit_status", ()) not in of(head)
    (site.folder / "go").touch()
    assert (head.wait(), worker.wait()) == (3, 3)
    for node in (head, worker):
        assert (phase(of(node)), of(node)["exit_status", ()], of(node)["ready", ()]) == ("ending", 3, 0)
    assert list(head.folder.glob(".*")) == []


def test_a_node_that_is_unfit_says_so(site: Site) -> None:
    node = site.run("--metrics-file=metrics.prom", "--num-gpus=0", "--expect-gpus=3", "--", "true")
    assert node.wait() == 78
    assert of(node)["findings", ()] >= 1
    assert of(node)["exit_status", ()] == 78


def test_a_file_that_cannot_be_written_is_one_warning_and_the_run_goes_on(site: Site) -> None:
    node = site.run("--metrics-file=missing/metrics.prom", "--", "sh", "-c", "exit 3")
    assert node.wait() == 3
    assert node.err.count("--metrics-file cannot be written: missing/metrics.prom: No such file or directory") == 1
    assert "fix: --metrics-file=FILE in a folder" in node.err


def test_the_file_of_a_killed_agent_stays_as_it_was(site: Site) -> None:
    node = site.run("--metrics-file=metrics.prom", "--", *UNTIL_GO)
    node.says("up", where="out")
    wait_for(lambda: of(node).get(("ready", ())) == 1, 20, "it is ready")
    os.kill(node.agent, signal.SIGKILL)
    assert node.wait() == 137
    assert phase(of(node)) == "running"
    assert Path(node.folder, "metrics.prom").exists()
