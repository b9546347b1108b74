"""What a rehearsal is asked for: faults, places, command lines; and its output. No node is started."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from bootstrap.cli import main
from bootstrap.errors import UsageError
from bootstrap.host import Host
from bootstrap.launch.rehearse import rehearse
from bootstrap.rehearsal import faults, plan, table
from bootstrap.rehearsal.output import Output
from bootstrap.rehearsal.play import Ending
from bootstrap.settings import Settings
from bootstrap.switches import Switches

HERE = Host({"PATH": "/usr/bin:/bin"}, "here")


def load(*given: str, nodes: int = 3, file: str | None = None) -> faults.Faults:
    """The faults of switches such as ``kill 1@10s``."""
    switches: dict[str, list[str]] = {}
    for each in given:
        kind, _, text = each.partition(" ")
        switches.setdefault(kind, []).append(text)
    return faults.load(switches, file, nodes)


def test_each_fault_says_which_node_when_and_for_how_long():
    found = load("late 2=5s", "kill 1@10", "stop 0@workload+1m", "cut 1@10s+500ms", "slow 2=50ms", "refuse 2:6379")
    by_kind = {fault.kind: fault for fault in found.of_nodes}
    assert (by_kind["late"].rank, by_kind["late"].seconds) == (2, 5)
    assert (by_kind["kill"].rank, by_kind["kill"].at, by_kind["kill"].in_workload) == (1, 10, False)
    assert (by_kind["stop"].rank, by_kind["stop"].at, by_kind["stop"].in_workload) == (0, 60, True)
    assert (by_kind["cut"].at, by_kind["cut"].seconds) == (10, 0.5)
    assert (by_kind["slow"].rank, by_kind["slow"].seconds) == (2, 0.05)
    assert (by_kind["refuse"].rank, by_kind["refuse"].port) == (2, 6379)
    assert [fault.kind for fault in found.timetable] == ["kill", "cut", "stop"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("kill 1", "--kill 1: expected RANK@TIME, such as 1@10s"),
        ("kill 1@soon", "--kill 1@soon: expected a duration such as"),
        ("kill 3@1s", "--kill 3@1s: there is no rank 3: --nodes=3 makes ranks 0 to 2"),
        ("cut 1@1s", "--cut 1@1s: expected RANK@TIME+TIME, such as 1@10s+8s"),
        ("late 1@1s", "--late 1@1s: expected RANK=TIME, such as 2=5s"),
        ("slow 1=50", "--slow 1=50: 50 s for each packet; expected at most 2 s, such as 2=50ms"),
        ("refuse 1:0", "--refuse 1:0: expected a whole number from 1 to 65535"),
        ("refuse 1:x", "--refuse 1:x: expected RANK:PORT, such as 2:6379"),
        ("hosts-file wrong", "--hosts-file wrong: expected one of none, loopback, right"),
    ],
)
def test_a_fault_that_cannot_be_is_quoted_with_what_was_expected(given, says):
    with pytest.raises(UsageError) as caught:
        load(given)
    assert says in caught.value.message


def test_faults_may_stand_in_a_file_a_line_each(tmp_path):
    file = tmp_path / "faults"
    file.write_text("# a bad day\n\nkill 1@10s\n--slow 2=50ms\nhosts-file loopback\n")
    found = load("late 0=1s", file=str(file))
    assert [fault.kind for fault in found.of_nodes] == ["kill", "slow", "late"]
    assert found.hosts_file == "loopback"
    assert load("hosts-file none", file=str(file)).hosts_file == "none"  # the command line wins


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("explode 1@1s", "line 1: unknown fault 'explode'"),
        ("kill 9@1s", "kill 9@1s ({file}, line 1): there is no rank 9"),
    ],
)
def test_a_line_of_the_file_that_is_wrong_is_named(tmp_path, line, says):
    file = tmp_path / "faults"
    file.write_text(line)
    with pytest.raises(UsageError) as caught:
        load(file=str(file))
    assert says.format(file=file) in caught.value.message


def test_a_file_of_faults_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"--faults=.*: No such file or directory"):
        load(file=str(tmp_path / "none"))


def settings(**options: object) -> Settings:
    return Settings(**{"nodes": 2, "workload": ("true",), **options})


def test_without_a_launcher_nodes_are_numbered_by_options():
    made = plan.make(settings(), HERE, Switches(options=("--nodes=2", "--num-cpus=3")))
    place = made.surroundings(1, ["node-0", "node-1"], ["10.0.0.1", "10.0.0.2"])
    command = made.command(1, place)
    assert command[0] == sys.executable
    assert command[-2:] == ["--", "true"]
    assert {"--rank=1", "--nodes=2", "--num-cpus=3", "--head-address=10.0.0.1"} <= set(command)


def test_options_and_variables_of_the_user_win_over_the_share_of_the_machine():
    host = Host({"PATH": "/bin", "RAY_BOOTSTRAP_MEMORY": "1Gi", "SLURM_JOB_ID": "7", "MINE": "x"}, "here")
    made = plan.make(settings(), host, Switches())
    env = made.environment(made.surroundings(0, ["a", "b"], ["10.0.0.1", "10.0.0.2"]))
    assert env["RAY_BOOTSTRAP_MEMORY"] == "1Gi"
    assert env["RAY_BOOTSTRAP_NUM_GPUS"] == "0"
    assert env["MINE"] == "x"
    assert "SLURM_JOB_ID" not in env
    assert int(env["RAY_BOOTSTRAP_OBJECT_STORE_MEMORY"]) < made.memory


def test_the_nodes_see_the_folders_of_what_they_run_and_write(tmp_path):
    script = f"cat {tmp_path}/a; {'x' * 300}/y; {'x/' * 3000}"
    workload = ("sh", "-c", script, str(tmp_path / "b"))
    made = plan.make(settings(workload=workload, trace="/etc/none/trace"), HERE, Switches())
    assert str(tmp_path) in list(made.folders)
    assert not [folder for folder in made.folders if "x/" in folder or folder == "/etc/none"]


def test_pretended_gpus_are_an_option_of_each_agent():
    made = plan.make(settings(), HERE, Switches(gpus=8))
    assert "--num-gpus=8" in made.command(0, made.surroundings(0, ["a", "b"], ["10.0.0.1", "10.0.0.2"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 1}, "--rank=1 with rehearse"),
        ({"head_address": "10.0.0.1"}, "--head-address=10.0.0.1 with rehearse"),
        ({"launcher": "slurm"}, "--launcher=slurm with rehearse"),
        ({"nodes": 201}, "--nodes=201: a rehearsal has at most 200 nodes"),
    ],
)
def test_options_of_a_single_node_are_refused(options, says):
    with pytest.raises(UsageError) as caught:
        plan.make(settings(**options), HERE, Switches())
    assert says in caught.value.message


def test_a_workload_without_dashes_is_shown_where_it_belongs(capsys):
    assert main(["rehearse", "--nodes", "4", "python", "train.py"]) == 64
    assert "put the workload after --: ray-bootstrap rehearse --nodes 4 -- python train.py" in capsys.readouterr().err


def test_a_launcher_without_an_environment_is_refused_with_those_that_have_one():
    with pytest.raises(UsageError, match=r"--as='explicit': expected one of .*kubernetes.*slurm"):
        plan.make(settings(), HERE, Switches(as_launcher="explicit"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"trace": "/tmp/up.json"}, "--trace=/tmp/up.json: /tmp is the nodes' own"),
        ({"metrics_file": "/shared/a/b.prom"}, "--metrics-file=/shared/a/b.prom: /shared is the nodes' own"),
        ({"shared_dir": "/tmp"}, "--shared-dir=/tmp: /tmp is the nodes' own"),
        ({"log_dir": "/run/not-there-yet"}, "--log-dir=/run/not-there-yet: /run is the nodes' own"),
    ],
)
def test_a_file_that_would_end_with_the_hosts_is_refused(monkeypatch, tmp_path, options, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bootstrap.namespaces.enter.fault", lambda: "")
    monkeypatch.setattr("bootstrap.namespaces.enter.enter", lambda: 3)
    with pytest.raises(UsageError) as caught:
        rehearse(settings(**options), HERE, Switches())
    assert [fault.startswith(says) for fault in caught.value.faults] == [True]
    with tempfile.NamedTemporaryFile(dir="/tmp") as script, pytest.raises(UsageError) as caught:
        rehearse(settings(workload=("python", script.name)), HERE, Switches())
    assert caught.value.faults[0].startswith(f"{script.name} in the workload: /tmp is the nodes' own")
    kept = {"trace": str(tmp_path / "up.json"), "log_dir": "/var/log/not-there-yet", "workload": ("sh", "x/" * 3000)}
    kept["shared_dir"] = "/shared"
    assert rehearse(settings(**kept), HERE, Switches()) == 3


def test_where_there_are_no_hosts_what_needs_them_is_refused(monkeypatch):
    monkeypatch.setattr("bootstrap.namespaces.enter.fault", lambda: "user namespaces are closed; fix: open them")
    asked = Switches(as_launcher="slurm", cut=("1@1s+1s",), slow=("1=1ms",), refuse=("1:1",), hosts_file="none")
    with pytest.raises(UsageError) as caught:
        rehearse(settings(rendezvous="dns"), HERE, asked)
    assert len(caught.value.faults) == 6
    assert all(
        fault.endswith("it needs a host for each node, and user namespaces are closed") for fault in caught.value.faults
    )
    assert caught.value.hint == "open them"


def test_every_line_has_the_name_of_its_node_and_a_colour_only_on_a_terminal(capfd):
    output = Output(HERE, ["a", "long"])
    out, into = os.pipe()
    os.write(into, b"one\ntw\xffo\n\nthree")
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        output.copy(pipe, "a", 0, sys.stdout).run()
    assert capfd.readouterr().out == "a    | one\na    | tw\ufffdo\na    | \na    | three\n"


def test_a_working_directory_that_was_deleted_is_an_error_of_the_users(monkeypatch, tmp_path):
    monkeypatch.setattr("bootstrap.namespaces.enter.fault", lambda: "")
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    with pytest.raises(UsageError, match="the working directory was deleted"):
        rehearse(settings(), HERE, Switches())


def test_the_table_has_a_row_for_each_node():
    rows = [Ending(0, "node-0", 0, "the workload ended with status 0", 26.44), Ending(1, "b", 137, "killed", 3)]
    never = Ending(2, "c", None, "never started", 0.0)
    assert table.lines([*rows, never]) == [
        "node    rank  status   after  why",
        "node-0     0       0  26.4 s  the workload ended with status 0",
        "b          1     137   3.0 s  killed",
        "c          2       -   0.0 s  never started",
    ]


def test_the_documents_list_of_faults_is_whole():
    text = (Path(__file__).parent.parent / "docs" / "rehearsal.md").read_text()
    for kind in (*faults.FORMS, "hosts-file", "faults"):
        assert f"| `--{kind} " in text
