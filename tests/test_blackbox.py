"""The real command on one node: the workload's status, what it is given, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from survivors import descendants

from bootstrap import cli
from bootstrap.files.secret import derive_token

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]


@pytest.mark.parametrize(
    ("workload", "status", "reason"),
    [
        (["true"], 0, "the workload ended with status 0"),
        (["sh", "-c", "exit 3"], 3, "the workload ended with status 3"),
        (["sh", "-c", "exit 255"], 255, "the workload ended with status 255"),
        (["sh", "-c", "exit 76"], 76, "the workload ended with status 76"),
        (["sh", "-c", "kill -KILL $$"], 137, "the workload ended with status 137 (SIGKILL)"),
        (["sh", "-c", "kill -SEGV $$"], 139, "the workload ended with status 139 (SIGSEGV)"),
        (["sh", "-c", "kill -TERM $$"], 143, "the workload ended with status 143 (SIGTERM)"),
        (["bash", "-c", "kill -40 $$"], 168, "the workload ended with status 168 (signal 40)"),
        (["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137, "the workload ended with status 137 (128 + SIGKILL)"),
        (["sh", "-c", "exit 193"], 193, "the workload ended with status 193"),
    ],
)
def test_the_workloads_status_is_the_commands(site: Site, workload: list[str], status: int, reason: str) -> None:
    node = site.run("--", *workload)
    assert node.wait() == status
    assert node.out == ""
    assert f"exit status {status} (from the workload): {reason}, after " in node.err.splitlines()[-1]
    assert (node.verdict["status"], node.verdict["source"]) == (status, "workload")
    assert node.verdict["reason"] == reason
    assert node.verdict["run_id"] == site.run_id
    assert node.verdict["logs"] in node.err.splitlines()[-1]
    assert list(Path(node.verdict["logs"]).iterdir())


@pytest.mark.parametrize(
    ("workload", "status", "reason"),
    [
        ("/no/such/program", 127, "'/no/such/program' is not found on PATH"),
        ("no-such-program", 127, "'no-such-program' is not found on PATH"),
        ("/etc", 126, "'/etc' cannot be executed"),
        ("/etc/passwd", 126, "'/etc/passwd' cannot be executed"),
    ],
)
def test_a_workload_that_cannot_be_started_is_told_before_ray_starts(
    site: Site, workload: str, status: int, reason: str
) -> None:
    node = site.run("--", workload)
    assert node.wait() == status
    told = f"exit status {status} (from the workload): the workload could not be started: {reason}"
    assert told in node.err.splitlines()[-1]
    assert (node.verdict["status"], node.verdict["source"]) == (status, "workload")
    assert node.starts == []


def test_a_workload_is_looked_for_as_a_shell_does(site: Site) -> None:
    tool = site.folder / "tool"
    tool.write_text("#!/bin/sh\nexit 5\n")
    node = site.run("--", "tool", env={"PATH": f"{site.folder}:/usr/bin:/bin"})
    assert node.wait() == 126, node.err
    assert "'tool' cannot be executed" in node.err
    tool.chmod(0o755)
    assert site.run("--", "tool", env={"PATH": f"{site.folder}:/usr/bin:/bin"}).wait() == 5
    node = site.run("--", "sh", "-c", "exit 6", env={"PATH": ""}, before=["/usr/bin/env", "-C", "/bin"])
    assert node.wait() == 6, node.err


def test_sagemaker_starts_the_image_with_the_name_of_its_program(site: Site) -> None:
    program = site.folder / "train"
    program.write_text("#!/bin/sh\necho trained\nexit 5\n")
    program.chmod(0o755)
    env = {"PATH": f"{site.folder}:/usr/bin:/bin", "TRAINING_JOB_NAME": "job"}
    for args in (["train"], ["--nodes=1", "train"]):
        node = site.run(*args, env=env)
        assert (node.wait(), node.out) == (5, "trained\n"), node.err
    for there in ({**env, "TRAINING_JOB_NAME": None}, env):
        node = site.run("train", *(["--epochs=3"] if there is env else []), env=there)
        assert node.wait() == 64
        assert "put the workload after --: ray-bootstrap -- train" in node.err


def test_the_workloads_streams_are_its_own(site: Site) -> None:
    node = site.run("--", "sh", "-c", "cat; echo oops >&2", stdin=-1)
    assert node.process.stdin is not None
    node.process.stdin.write(b"a line\nhalf a line")
    node.process.stdin.close()
    assert node.wait() == 0
    assert node.out == "a line\nhalf a line"
    assert "\noops\n" in node.err


def test_what_the_workload_finds_in_its_environment(site: Site) -> None:
    outer = {"RAY_ADDRESS": "outer:6379", "RAY_JOB_ID": "01000000", "GLOO_SOCKET_IFNAME": "eth7", "MINE": "a b\nc"}
    names = "RAY_ADDRESS RAY_JOB_ID GLOO_SOCKET_IFNAME MINE RAY_BOOTSTRAP_RUN_ID RAY_BOOTSTRAP_CLUSTER_NODES"
    script = f"import os; print([os.environ.get(name) for name in {names.split()}])"
    node = site.run("--launcher=local", "--gcs-port=6391", "--", sys.executable, "-c", script, env=outer)
    assert node.wait() == 0
    assert node.out == f"{['127.0.0.1:6391', None, 'eth7', outer['MINE'], site.run_id, '1']}\n"
    (start,) = node.starts
    assert [start["env"].get(name) for name in outer] == [None, None, "eth7", "a b\nc"]


def test_each_node_has_the_heads_address_and_its_own(site: Site) -> None:
    show = "echo $MASTER_ADDR $no_proxy $NO_PROXY"
    env = {"http_proxy": "http://proxy:3128", "NO_PROXY": ".corp"}
    head, worker = site.several(2, workload=("sh", "-c", show), env=env)
    assert (head.wait(), worker.wait()) == (0, 0), head.err
    everywhere = ".corp,localhost,127.0.0.1,::1"
    assert head.out == f"127.0.0.1 {everywhere},127.0.0.2 {everywhere},127.0.0.2\n"
    (start,) = worker.starts
    assert (start["env"]["MASTER_ADDR"], start["env"]["VLLM_HOST_IP"]) == ("127.0.0.1", "127.0.0.2")
    assert start["env"]["no_proxy"] == f"{everywhere},127.0.0.2"


def test_how_ray_is_started_on_a_head(site: Site) -> None:
    args = ["--num-cpus=3", "--num-gpus=2", "--memory=2Gi", "--object-store-memory=100Mi", "--resources", '{"disk": 2}']
    args += ["--labels=zone=a", "--gcs-port=6392", "--dashboard-port=8391", "--ray-client-server-port=10391"]
    args += ["--dashboard-agent-listen-port=30391", "--metrics-export-port=30392", "--dashboard-agent-grpc-port=30393"]
    args += ["--runtime-env-agent-port=30394", "--min-worker-port=20000", "--max-worker-port=20999"]
    args += ["--ray-start-arg=--verbose", "--ignore-check=gpus"]
    node = site.run(*args, "--", "true")
    assert node.wait() == 0, node.err
    (label,) = [argument for argument in node.argv if argument.startswith("--labels=")]
    assert label.startswith("--labels=ray-bootstrap/rank=0,ray-bootstrap/run=")
    assert label.endswith(",zone=a")
    assert [argument for argument in node.argv if argument != label] == [
        "--head",
        "--port=6392",
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={node.temp_dir}",
        "--num-cpus=3",
        "--num-gpus=2",
        "--object-store-memory=104857600",
        "--memory=2147483648",
        '--resources={"disk": 2}',
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=8391",
        "--ray-client-server-port=10391",
        "--dashboard-agent-listen-port=30391",
        "--metrics-export-port=30392",
        "--dashboard-agent-grpc-port=30393",
        "--runtime-env-agent-port=30394",
        "--min-worker-port=20000",
        "--max-worker-port=20999",
        "--disable-usage-stats",
        "--verbose",
    ]


@pytest.mark.parametrize(
    ("env", "mode", "path"),
    [
        ({"RAY_AUTH_TOKEN": "s3cret"}, "token", False),
        ({"RAY_AUTH_TOKEN_PATH": "token"}, "token", True),
        ({"RAY_AUTH_TOKEN": "s3cret", "RAY_BOOTSTRAP_AUTH": "off"}, "disabled", False),
    ],
)
def test_ray_and_the_workload_use_the_same_token(site: Site, env: dict[str, str], mode: str, path: bool) -> None:
    token = site.folder / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    env = {name: str(token) if value == "token" else value for name, value in env.items()}
    script = "import os; print(os.environ.get('RAY_AUTH_MODE'), os.environ.get('RAY_AUTH_TOKEN_PATH'))"
    node = site.run("--", sys.executable, "-c", script, env=env)
    assert node.wait() == 0, node.err
    (start,) = node.starts
    assert start["env"].get("RAY_AUTH_MODE") == mode
    assert start["env"].get("RAY_AUTH_TOKEN_PATH") == (str(token) if path else None)
    assert start["env"].get("RAY_AUTH_TOKEN") == (None if path else env.get("RAY_AUTH_TOKEN"))
    assert node.out == f"{mode} {token if path else None}\n"
    assert "s3cret" not in " ".join(start["argv"]) + node.err


@pytest.mark.parametrize("given", [{"RAY_BOOTSTRAP_SECRET": "s3cret"}, {"RAY_BOOTSTRAP_SECRET_FILE": "secret"}])
def test_ray_and_the_workload_get_a_token_and_never_the_secret(site: Site, given: dict[str, str]) -> None:
    secret = site.folder / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    env = {name: str(secret) if value == "secret" else value for name, value in given.items()}
    script = "import os; print(open(os.environ['RAY_AUTH_TOKEN_PATH']).read(), dict(os.environ))"
    # The process that imports Ray ends at once if it was given the secret.
    starter = "'child_main' in str(sys.orig_argv)"
    site.patch("import os, sys", f"{starter} and 'RAY_BOOTSTRAP_SECRET' in os.environ and os._exit(99)")
    node = site.run("--", sys.executable, "-c", script, env={**env, "RAY_AUTH_TOKEN": "another"})
    assert node.wait() == 0, node.err
    (start,) = node.starts
    assert node.out.startswith(f"{derive_token(b's3cret', site.run_id)} ")
    for shown in (json.dumps(start), node.err, node.out):
        assert "s3cret" not in shown
        assert "RAY_AUTH_TOKEN'" not in shown


def test_a_python_that_puts_no_folder_of_its_own_on_the_path(site: Site) -> None:
    node = site.run("--", "true", env={"PYTHONSAFEPATH": "1"})
    assert node.wait() == 0, node.err


def test_a_single_node_makes_a_secret_of_its_own(site: Site) -> None:
    script = "import os; p = os.environ['RAY_AUTH_TOKEN_PATH']; print(oct(os.stat(p).st_mode), len(open(p).read()), p)"
    node = site.run("--", sys.executable, "-c", script)
    assert node.wait() == 0, node.err
    mode, length, path = node.out.split()
    assert (mode, length) == ("0o100600", "64")
    assert not Path(path).exists()
    (start,) = node.starts
    assert start["env"]["RAY_AUTH_TOKEN_PATH"] == path


def test_another_system_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cli.main(["detect"]) == 64
    assert "ray-bootstrap runs on Linux only; this is darwin" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0
    assert cli.main(["-h"]) == 0


@pytest.mark.parametrize("argv", [["rehearse", "--late"], ["down", "--status"], ["rehearse", "--nodes=0", "--gpus"]])
def test_a_switch_without_its_value_is_an_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 64
    assert f"Option '{argv[-1]}' requires an argument" in capsys.readouterr().err


USAGE = [
    (["--"], {}, ["no workload after --; omit -- for a cluster that stays up"]),
    (["--num-cpu", "4", "--", "true"], {}, ["no such option: --num-cpu (did you mean --num-cpus?)"]),
    (["--num-cpu=4"], {}, ["no such option: --num-cpu (did you mean --num-cpus?)"]),
    (["--nodes"], {}, ["requires an argument"]),
    (["python", "train.py"], {}, ["unexpected 'python'; put the workload after --: ray-bootstrap -- python train.py"]),
    (["-head-address=10.0.0.1", "--", "true"], {}, ["no such option: -head-address (did you mean --head-address?)"]),
    (["-shared-dir", "/x", "--", "true"], {}, ["no such option: -shared-dir (did you mean --shared-dir?)"]),
    (["--rank=0", "detetc"], {}, ["unexpected 'detetc'; did you mean ray-bootstrap detect --rank=0"]),
    (["--rank=0", "detect"], {}, ["unexpected 'detect'; put the command first: ray-bootstrap detect --rank=0"]),
    (["--secret-file=/no/such/file"], {}, ["--secret-file=/no/such/file: No such file or directory", "openssl rand"]),
    (["--rank=5", "--nodes=2"], {}, ["--rank=5 with --nodes=2: ranks go from 0 to 1"]),
    ([], {"RAY_BOOTSTRAP_GRACE": "soon"}, ["RAY_BOOTSTRAP_GRACE='soon': expected a duration such as 90, 90s"]),
    (["--ignore-check=gpu"], {}, ["--ignore-check='gpu': unknown check (did you mean gpus?)"]),
    (
        ["--num-cpus=x", "--gcs-port=99999", "--resources={", "--role=boss", "--frob"],
        {"RAY_BOOTSTRAP_NODES": "0"},
        [
            "--num-cpus='x': expected a whole number",
            "--gcs-port='99999': expected a whole number from 1 to 65535",
            "--resources='{': expected a JSON object",
            "--role='boss': expected one of auto, head, worker",
            "no such option: --frob",
            "RAY_BOOTSTRAP_NODES='0': expected a whole number of at least 1",
        ],
    ),
]


@pytest.mark.parametrize(("args", "env", "faults"), USAGE)
def test_all_faults_of_the_command_line_are_told_at_once(
    site: Site, args: list[str], env: dict[str, str], faults: list[str]
) -> None:
    node = site.run(*args, env=env)
    assert node.wait() == 64, node.err
    assert [fault for fault in faults if fault not in node.err] == []
    assert (node.starts, node.out) == ([], "")
    assert "Traceback" not in node.err
    assert (node.verdict["status"], node.verdict["source"]) == (64, "usage")


def test_a_misspelt_variable_is_told_and_no_error(site: Site) -> None:
    env = {"RAY_BOOTSTRAP_MIN_NODE": "2", "RAY_BOOTSTRAP_PORT": "tcp://10.0.0.1:80", "RAY_BOOTSTRAP_SERVICE_HOST": "h"}
    node = site.run("--", "true", env=env)
    assert node.wait() == 0
    told = "RAY_BOOTSTRAP_MIN_NODE is not an option's variable; did you mean RAY_BOOTSTRAP_MIN_NODES?"
    assert node.err.count("is not an option's variable") == 1
    assert told in node.err


@pytest.mark.parametrize(
    ("args", "told"),
    [(["--help"], "--num-cpus N"), (["--version"], "ray-bootstrap 0."), (["run", "--help"], "--quorum-timeout TIME")],
)
def test_help_and_version_go_to_standard_output(site: Site, args: list[str], told: str) -> None:
    node = site.run(*args)
    assert node.wait() == 0
    assert told in node.out
    assert (node.err, node.starts) == ("", [])


FAKE_CAUSE = "gcs_server.out: [2026-01-01 00:00:00,000 C 1 1] fake_main.cc:1: Check failed: the port is already in use"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("refuse", ["`ray start` failed: SystemExit: 1", FAKE_CAUSE]),
        ("mute-refuse", ["`ray start` failed: SystemExit: 1", "the fake Ray does not want to"]),
        ("dies", ["the process that starts Ray was killed by SIGKILL"]),
        ("raylet-ends", ["`ray start` failed: raylet exited with status 4"]),
        ("no-raylet", ["`ray start` reported success, but no raylet is running"]),
    ],
)
def test_a_ray_that_does_not_start(site: Site, words: str, told: list[str]) -> None:
    node = site.run("--", "touch", "started", env={"FAKE_RAY": words})
    assert node.wait() == 69
    assert [line for line in told if line not in node.err] == []
    assert (node.verdict["source"], node.verdict["retryable"]) == ("ray-start", True)
    assert not (node.folder / "started").exists()


def test_a_ray_that_cannot_be_imported(site: Site) -> None:
    broken = site.folder / "broken" / "ray"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    node = site.run("--", "true", env={"PYTHONPATH": str(broken.parent)})
    assert node.wait() == 69
    assert "Ray cannot be imported: ImportError: libfoo.so.1: cannot open shared object file" in node.err


def test_a_port_that_is_taken_while_ray_starts(site: Site) -> None:
    node = site.rank(0, 2, env={"FAKE_RAY": "gate refuse-first"})
    worker = site.rank(1, 2)
    node.is_in("starting-ray")
    node.appears("record")
    first = dict(argument.split("=") for argument in node.argv if "port=" in argument)
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier GCS may linger
        taker.bind(("", int(first["--port"])))
        taker.listen()
        (node.folder / "record.go").touch()
        check("port-taken", there=node.wait(), elsewhere=[worker.wait()], workload=0)
    again = dict(argument.split("=") for argument in node.starts[1]["argv"] if "port=" in argument)
    assert first["--port"] != again["--port"]
    assert f"port {first['--port']} was taken while Ray started; trying again with other ports" in node.err


def test_a_port_of_the_users_that_is_taken_is_not_tried_again(site: Site) -> None:
    with socket.socket() as taker:
        taker.bind(("", 0))
        taker.listen()
        port = taker.getsockname()[1]
        node = site.run(f"--gcs-port={port}", "--ignore-check=ports", "--", "true", env={"FAKE_RAY": "refuse"})
        assert node.wait() == 69, node.err
    assert len(node.starts) == 1
    assert "trying again" not in node.err


@pytest.mark.parametrize("daemon", ["raylet", "gcs_server"])
@pytest.mark.parametrize(
    ("signum", "how"),
    [
        (signal.SIGTERM, "exited with status 0"),
        (signal.SIGRTMIN, "exited with status 3"),
        (signal.SIGKILL, "was killed by SIGKILL"),
    ],
)
def test_a_daemon_that_ends_by_itself_ends_the_run(site: Site, daemon: str, signum: int, how: str) -> None:
    """It is the agent's child now."""
    node = site.run("--", "sh", "-c", "echo up; exec sleep 600")
    node.says("up", where="out")
    os.kill(node.daemon(daemon), signum)
    assert node.wait() == 76
    assert node.verdict["reason"] == f"Ray's {daemon} on {node.verdict['host']} {how}"
    assert f"error: {node.verdict['reason']}\n" in node.err


@pytest.mark.parametrize(
    ("signum", "how"),
    [
        (signal.SIGTERM, "ended; its exit status is unknown"),
        (signal.SIGRTMIN, "exited with status 3"),
        (signal.SIGKILL, "was killed by SIGKILL"),
    ],
)
def test_a_daemon_that_ends_before_the_quorum(site: Site, signum: int, how: str) -> None:
    """It is the child of the process that started it; a 0 in /proc may be a status that the kernel hides."""
    node = site.rank(0, 2, "--late-wait=0")
    node.says("waiting for rank 1")
    os.kill(node.raylet, signum)
    assert node.wait() == 76
    assert node.verdict["reason"] == f"Ray's raylet on {node.verdict['host']} {how}"


def test_daemons_that_ignore_sigterm_do_not_hold_the_node(site: Site) -> None:
    node = site.run("--", "true", env={"FAKE_RAY": "stubborn"})
    assert node.wait() == 0
    assert node.verdict["seconds"] < 15


def test_what_the_workload_leaves_behind_is_ended(site: Site) -> None:
    script = "(setsid sleep 600 & echo $!); (env -i setsid sh -c 'trap \"\" TERM; echo $$; sleep 600; :' &); sleep 0.3"
    node = site.run("--", "sh", "-c", script)
    assert node.wait() == 0
    left = [int(pid) for pid in node.out.split()]
    assert len(left) == 2
    assert [pid for pid in left if Path(f"/proc/{pid}/exe").exists()] == []


CHAIN = """
import os, sys, time
beat, end = os.open("beat", os.O_WRONLY | os.O_CREAT | os.O_APPEND), time.monotonic() + 15
while time.monotonic() < end:
    os.write(beat, b".")
    if os.fork():
        os._exit(0)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("pause", ["0", "0.001", "0.01"])
def test_a_workload_that_forks_and_exits_does_not_escape(site: Site, pause: str) -> None:
    """Each look at /proc comes too late for one of the chain; a signal to its process group does not."""
    node = site.run("--", sys.executable, "-c", CHAIN, pause)
    assert node.wait() == 0
    beat = node.folder / "beat"
    before = beat.stat().st_size
    time.sleep(0.3)
    assert beat.stat().st_size == before


def test_orphans_are_reaped_while_the_workload_runs(site: Site) -> None:
    script = "pid=$(sh -c 'true & echo $!'); while test -e /proc/$pid; do sleep 0.02; done; echo reaped"
    node = site.run("--", "sh", "-c", script)
    assert node.wait() == 0
    assert node.out == "reaped\n"


def test_the_logs_are_copied(site: Site) -> None:
    node = site.run(f"--log-dir={site.shared}", "--", "true")
    assert node.wait() == 0
    (copied,) = site.shared.rglob("raylet.err")
    assert copied.parent.name == "rank-0"
    assert f"Ray's logs: {copied.parent}" in node.err.splitlines()[-1]


def test_without_a_workload_the_cluster_stays_until_it_is_stopped(site: Site) -> None:
    node = site.run("--gcs-port=6393")
    node.says("no workload was given: the cluster stays until it is stopped")
    assert (
        'to use it from another shell on any of its nodes: eval "$(ray-bootstrap env)", which sets RAY_ADDR' in node.err
    )
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert (node.verdict["source"], node.verdict["retryable"]) == ("stopped", True)
    assert "stopped by SIGTERM" in node.err


def test_two_runs_on_one_machine_do_not_touch_each_other(site: Site) -> None:
    staying = site.run()
    staying.says("no workload was given")
    other = site.run("--", "true", env={"RAY_BOOTSTRAP_RUN_ID": f"{site.run_id}-other"})
    assert other.wait() == 0
    assert staying.raylet in descendants(os.getpid())
    staying.send(signal.SIGTERM)
    assert staying.wait() == 143


def test_a_dashboard_that_is_waited_for_and_does_not_come(site: Site) -> None:
    node = site.run("--dashboard-wait=0.2s", "--", "touch", "started", env={"FAKE_RAY": "no-dashboard"})
    assert node.wait() == 69
    assert "Ray's dashboard at 127.0.0.1:" in node.err
    assert "took no jobs within --dashboard-wait=0.2s: http://127.0.0.1:" in node.err
    assert "/api/jobs/: connection refused" in node.err
    assert not (node.folder / "started").exists()


def test_a_workload_that_submits_a_job_starts_when_the_dashboard_takes_jobs(site: Site) -> None:
    script = site.folder / "train.sh"
    script.write_text(
        "# ours\necho $RAY_API_SERVER_ADDRESS $RAY_DASHBOARD_ADDRESS\ncat $0 >/dev/null || ray job submit -- true\n"
    )
    black_hole = {"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    outer = {"RAY_API_SERVER_ADDRESS": "http://outer:8265", "RAY_BOOTSTRAP_SECRET": "of the test"}
    node = site.run("--dashboard-port=8395", "--", "sh", str(script), env=black_hole | outer)
    assert node.wait() == 0, node.err
    assert f"starts when the dashboard takes jobs, as it needs that: `ray job` in {script}" in node.err
    assert node.out == "http://127.0.0.1:8395 http://127.0.0.1:8395\n"
    (start,) = node.starts
    assert "RAY_API_SERVER_ADDRESS" not in start["env"]
    asked = {path.stem: path.read_text() for path in node.temp_dir.rglob("*.requests")}
    assert asked["gcs_server"].startswith("GET /api/jobs/ HTTP/1.1\n")
    assert asked["raylet"].startswith("GET /api/healthz HTTP/1.1\n")
    assert "Authorization" not in "".join(asked.values())


def test_a_workload_starts_without_a_dashboard_that_nothing_demands(site: Site) -> None:
    site.shorten(DASHBOARD_S=0.3)
    needing = ["sh", "-c", "echo ran; exit 3; ray job submit -- true"]
    node = site.run("--", *needing, env={"FAKE_RAY": "no-jobs"})
    assert node.wait() == 3
    assert node.out == "ran\n"
    assert "took no jobs within --dashboard-wait=0.3s" in node.err
    assert "/api/jobs/: status 503; going on without it; fix: " in node.err
    other = site.run("--", "sh", "-c", "exit 4", env={"FAKE_RAY": "no-dashboard"})
    assert other.wait() == 4
    assert "dashboard-wait" not in other.err


def test_a_cluster_that_stays_is_up_when_its_dashboard_takes_jobs(site: Site) -> None:
    node = site.run(env={"FAKE_RAY": "no-jobs"})
    node.is_in("waiting-for-dashboard")
    assert site.run("status").wait() == 0
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert "no workload was given" not in node.err
