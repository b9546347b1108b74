"""Ray on one node: its command line, the cause of a failure, and what is cleared away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.files.manifest import Manifest
from bootstrap.files.secret import Secret
from bootstrap.host import Host
from bootstrap.model import Gpu, NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.process.table import Process, read_process
from bootstrap.raynode import command
from bootstrap.raynode import session as ray_session
from bootstrap.raynode.command import start_argv
from bootstrap.settings import Settings

MIB, GIB = 1 << 20, 1 << 30
HEAD = NodeIdentity("explicit", Role.HEAD, 0, 2, "my run")
WORKER = NodeIdentity("explicit", Role.WORKER, 1, 2, "my run")
ADDRESS = NodeAddress("10.0.0.7", "eth0", "node-7")
PORTS = {"gcs_port": 6379, "dashboard_port": 8265, "ray_client_server_port": 10001, "dashboard_agent_listen_port": 9}


def argv(
    identity: NodeIdentity = HEAD,
    *,
    ports: Mapping[str, int] = PORTS,
    resources: Resources | None = None,
    shm: int = 0,
    **options: Any,
) -> list[str]:
    resources, settings = resources or Resources(4, 16 * GIB), Settings(**options)
    gcs = None if identity.role is Role.HEAD else "10.0.0.1:6379"
    node = Node(settings, Host({}, "node-7"), identity, ADDRESS, resources, Path("/tmp/ray"), Secret(None, ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "shm_free", lambda: shm)
        return start_argv(node, ports, gcs)


def test_a_head() -> None:
    labels = f"--labels=ray-bootstrap/rank=0,ray-bootstrap/run={HEAD.run_hash}"
    assert argv() == [
        "--head",
        "--port=6379",
        "--node-ip-address=10.0.0.7",
        "--temp-dir=/tmp/ray",
        "--num-cpus=4",
        "--num-gpus=0",
        labels,
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=8265",
        "--ray-client-server-port=10001",
        "--dashboard-agent-listen-port=9",
        "--disable-usage-stats",
    ]


def test_a_worker() -> None:
    labels = f"--labels=ray-bootstrap/rank=1,ray-bootstrap/run={HEAD.run_hash}"
    assert argv(WORKER) == [
        "--address=10.0.0.1:6379",
        "--node-ip-address=10.0.0.7",
        "--temp-dir=/tmp/ray",
        "--num-cpus=4",
        "--num-gpus=0",
        labels,
        "--dashboard-agent-listen-port=9",
    ]


GPU = Gpu(0, "GPU-1", "NVIDIA X", 80 * GIB)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": Resources(0, 0, (GPU,), num_gpus=1)}, ["--num-cpus=0", "--num-gpus=1"]),
        ({"resources": Resources(1, 0, custom={"b": 2, "a": 0.5})}, ['--resources={"a": 0.5, "b": 2}']),
        ({"labels": {"zone": "a", "a": ""}}, ["--labels=a=,ray-bootstrap/rank=0,ray-bootstrap/run=", ",zone=a"]),
        ({"dashboard_host": "0.0.0.0"}, ["--dashboard-host=0.0.0.0"]),
        (
            {"ports": {**PORTS, "min_worker_port": 1, "max_worker_port": 2}},
            ["--min-worker-port=1", "max-worker-port=2"],
        ),
        ({"ray_start_arg": ("--verbose", "--x=a b")}, ["--verbose", "--x=a b"]),
        # The object store: Ray's share of what was granted, bounded by what /dev/shm really has.
        ({"shm": 100 * GIB}, [f"--object-store-memory={int(16 * GIB * 0.3)}", f"--memory={16 * GIB - 5153960755}"]),
        ({"shm": GIB}, [f"--object-store-memory={int(GIB * 0.95)}"]),
        ({"shm": 80 * MIB}, [f"--object-store-memory={int(80 * MIB * 0.95)}"]),
        (
            {"shm": 10**13, "resources": Resources(1, 10**13)},
            ["--object-store-memory=200000000000", "--memory=9800000000000"],
        ),
        ({"shm": GIB, "object_store_memory": 5 * GIB}, [f"--object-store-memory={5 * GIB}", f"--memory={11 * GIB}"]),
        ({"object_store_memory": 17 * GIB}, [f"--object-store-memory={17 * GIB}", "--memory=1"]),
        ({"memory": 3 * GIB}, [f"--memory={3 * GIB}"]),
    ],
)
def test_words_of_the_command_line(changes: dict[str, Any], words: list[str]) -> None:
    line = "\n".join(["", *argv(**changes), ""])
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("shm", [0, 79 * MIB])
def test_a_shm_that_is_too_small_leaves_the_choice_to_ray(shm: int) -> None:
    assert [word for word in argv(shm=shm) if "memory" in word] == []


@given(st.text() | st.just("\udcff"), st.integers(0, 10**6))
def test_any_run_id_makes_valid_labels(run_id: str, rank: int) -> None:
    identity = NodeIdentity("explicit", Role.WORKER, rank, None, run_id)
    (labels,) = [word for word in argv(identity) if word.startswith("--labels=")]
    found = dict(label.split("=") for label in labels.removeprefix("--labels=").split(","))
    assert found == {command.RUN_LABEL: identity.run_hash, command.RANK_LABEL: str(rank)}
    assert found[command.RUN_LABEL].isalnum()


def test_another_run_has_another_hash() -> None:
    other = NodeIdentity("explicit", Role.HEAD, 0, 2, "another run")
    assert HEAD.run_hash != other.run_hash
    assert HEAD.run_hash == WORKER.run_hash


SESSION = "session_2026-01-01_00-00-00_000000_7"


def log(folder: Path, name: str, text: str, session: str = SESSION) -> Path:
    path = folder / session / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


CHECK = "[2026-11-20 22:39:00,123 C 12 12] (gcs_server) grpc_server.cc:122:  Check failed: server_ Failed to bind"


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ({}, []),
        ({"gcs_server.out": "all is well\n"}, []),
        ({"gcs_server.out": f"start\n{CHECK}\nstack\n"}, [f"gcs_server.out: {CHECK}"]),
        ({"raylet.err": "OSError: [Errno 98] Address already in use"}, ["raylet.err: OSError: [Errno 98] Address"]),
        ({"monitor.log": CHECK, "raylet.log": CHECK}, []),
        (
            {"raylet.out": "\n".join(f"OSError: {n}" for n in range(9))},
            [f"raylet.out: OSError: {n}" for n in (6, 7, 8)],
        ),
        ({"raylet.out": f"OSError: {'y' * 1000}"}, [f"raylet.out: OSError: {'y' * 391}"]),
        ({"gcs_server.err": CHECK, "gcs_server.out": CHECK}, [f"gcs_server.err: {CHECK}"]),
    ],
)
def test_the_cause_out_of_rays_logs(tmp_path: Path, logs: dict[str, str], expected: list[str]) -> None:
    for name, text in logs.items():
        log(tmp_path, name, text)
    found = ray_session.causes(tmp_path / SESSION)
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
    assert all(len(line) <= len("raylet.out: ") + 400 for line in found)


ERRORS = """
[2026-11-21 20:34:34,169 C 24330 24330] (gcs_server) grpc_server.cc:133:  An unexpected system state has occurred.
[2026-11-21 20:33:23,856 E 18987 19016] (raylet) agent_manager.cc:87: The raylet exited immediately because one Ray
[2026-11-21 20:31:45,026 E 7349 7349] (gcs_server) logging.cc:474: *** SIGSEGV received at time=1795293105 on cpu 0 ***
*** SIGSEGV received at time=1795293358 on cpu 0 ***
E1121 20:34:34.084456087   24330 chttp2_server.cc:1063]                UNKNOWN:No address added out of total 1
2026-11-21 20:33:22,365\tERROR http_server_agent.py:85 -- Agent port #52365 failed to bind after 6 attempts.
2026-11-21 20:33:22,365 ERROR agent.py:233 -- Failed to start HTTP server with exception: [Errno 98]
OSError: [Errno 98] error while attempting to bind on address ('192.0.2.2', 52365): address already in use
grpc.aio._call.AioRpcError: <AioRpcError of RPC that terminated with:
ModuleNotFoundError: No module named 'aiohttp'
Fatal Python error: Segmentation fault
terminate called after throwing an instance of 'std::system_error'
/opt/ray/raylet/raylet: error while loading shared libraries: libcuda.so.1: cannot open shared object file
""".strip().splitlines()
"""Out of the logs of Ray 2.52 and 2.60; the last three are glibc's, libstdc++'s and Python's."""
NO_ERRORS = """
RAY_ERROR_INFO_CHANNEL
[2026-11-21 20:31:45,026 E 7349 7349] (gcs_server) logging.cc:474:     @     0x555aba7002a2         96  main
[2026-11-21 20:31:45,026 E 7349 7349] (gcs_server) logging.cc:474: PC: @     0x7f40d4f26f36  (unknown)  epoll_wait
[2026-11-21 20:33:23,856 I 18987 19016] (raylet) main.cc:12: Error: none, C E ERROR Check failed
[2026-11-21 20:33:23,856 W 18987 19016] (raylet) node_manager.cc:9: the worker was terminated, already in use
PC: @     0x7f40d4f26f36  (unknown)  epoll_wait
2026-11-21 20:33:22,365\tWARNING http_server_agent.py:79 -- Failed to bind to port 52365. Error: address already in use
2026-11-21 20:33:22,492\tINFO process_watcher.py:45 -- ERROR_INFO: raylet pid is 18987
    [state-dump] \tray::rpc::NodeInfoGcsService.grpc_client.ReportError: - 1 total (0 active), terminated
- The agent failed to start because of unexpected error or port conflict. Error: see the log
Traceback (most recent call last):
    raise OSError: [Errno 98]
""".strip("\n").splitlines()


@pytest.mark.parametrize(("lines", "expected"), [(ERRORS, ERRORS), (NO_ERRORS, [])], ids=["errors", "others"])
def test_a_cause_is_an_error_line(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    for number, line in enumerate(lines):
        log(tmp_path, "raylet.out", line, f"session_{number}")
    found = [cause for number in range(len(lines)) for cause in ray_session.causes(tmp_path / f"session_{number}")]
    assert found == [f"raylet.out: {line.strip()}" for line in expected]


def test_the_logs_of_an_earlier_run_are_no_cause(tmp_path: Path) -> None:
    old = log(tmp_path, "raylet.out", "OSError: old", "session_2025-01-01_00-00-00_000000_7")
    os.utime(old, (1000, 1000))
    log(tmp_path, "raylet.out", "OSError: new")
    os.utime(old.parent.parent, (1000, 1000))
    assert ray_session.causes_since(tmp_path, 2000) == ["raylet.out: OSError: new"]


def test_causes_are_few_and_logs_may_be_no_text(tmp_path: Path) -> None:
    for name in ("gcs_server.err", "gcs_server.out", "raylet.err", "raylet.out", "dashboard_agent.log"):
        log(tmp_path, name, f"OSError: {name}\n" * 1000)
    assert len(ray_session.causes(tmp_path / SESSION)) == 8
    (tmp_path / SESSION / "logs" / "raylet.out").write_bytes(b"\xff\xfe\nOSError: \xff\x00\n")
    assert "raylet.out: OSError: \ufffd\0" in ray_session.causes(tmp_path / SESSION)


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("EXPECTED_TERMINATION", "received SIGTERM", "received SIGTERM"),  # as measured with Ray 2.60.0
        ("EXPECTED_TERMINATION", "Terminated by autoscaler.", "Terminated by autoscaler."),
        ("AUTOSCALER_DRAIN_IDLE", r"node that\'s idle for 6.2 seconds.", "node that's idle for 6.2 seconds."),
        ("UNEXPECTED_TERMINATION", "dashboard_agent failed and raylet fate-shares with it.", ""),
    ],
)
def test_whether_a_raylet_was_asked_to_end(tmp_path: Path, reason: str, message: str, expected: str) -> None:
    start = (
        "[2026-11-22 16:41:40,982 I 349 349] (raylet) main.cc:481: Raylet graceful shutdown triggered with death info:"
    )
    log(tmp_path, "raylet.out", f'{start} reason: {reason}\nreason_message: "{message}"\n\n[…] and more\n')
    assert ray_session.asked_to_end(tmp_path / SESSION) == expected


def test_no_folder_no_causes(tmp_path: Path) -> None:
    assert ray_session.causes(tmp_path / "none") == []


def test_which_processes_are_daemons() -> None:
    processes = [
        Process(n, 1, "S", name, n, 1, n)
        for n, name in enumerate(["gcs_server", "raylet", "python", "ray::IDLE", "my raylet"])
    ]
    assert [process.name for process in ray_session.daemons(processes)] == ["gcs_server", "raylet"]


def test_the_session_of_a_raylet(tmp_path: Path) -> None:
    session = tmp_path / "session_x"
    words = [sys.executable, "-c", "print(); input()", "--a", f"--raylet_socket_name={session}/sockets/raylet"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # until then it may still be a fork of ours
    process = read_process(child.pid)
    assert process is not None
    assert ray_session.session_of(process) == session
    child.communicate(b"\n")
    assert ray_session.session_of(process) is None


def test_the_session_of_a_head_that_failed_half_way(tmp_path: Path) -> None:
    earlier, ours = (f"session_2026-01-01_00-00-0{second}_000000_17" for second in range(2))
    log(tmp_path, "raylet.out", "", earlier)  # of another container, whose process ids are the same
    before = ray_session.session_names(tmp_path, 17)
    assert (before, ray_session.session_names(tmp_path, 7)) == ([earlier], [])
    log(tmp_path, "raylet.out", "", ours)

    def own(starter: int, earlier: list[str], closed: str = "") -> set[Path]:
        manifest = Manifest(closed_dir=closed, ray_dir=str(tmp_path), starter=starter, earlier_sessions=earlier)
        return ray_session.own_sessions(manifest, ray_session.Held())

    assert own(7, before) == set()
    assert own(17, before) == {tmp_path / ours}
    assert own(17, ray_session.session_names(tmp_path)) == set()
    assert own(7, [], closed=str(tmp_path.parent)) == {tmp_path / earlier, tmp_path / ours}


def test_a_session_of_another_container_with_the_same_process_ids_is_not_ours(tmp_path: Path) -> None:
    ours, theirs = (f"session_2026-01-01_00-00-0{second}_000000_6" for second in range(2))
    for name in (ours, theirs):
        log(tmp_path, "raylet.out", "", name)
    manifest = Manifest(ray_dir=str(tmp_path), starter=6, session=str(tmp_path / ours))
    assert ray_session.own_sessions(manifest, ray_session.Held()) == {tmp_path / ours}


@pytest.mark.parametrize("name", ["gcs_server.err", "raylet.out"])
def test_a_log_that_would_block_or_lead_elsewhere_is_not_read(tmp_path: Path, name: str) -> None:
    """Ray's folder in a ``--temp-dir`` is open to all users."""
    session = log(tmp_path, "dashboard_agent.log", CHECK).parent.parent
    os.mkfifo(session / "logs" / name)
    secret = tmp_path / "secret"
    secret.write_text(CHECK)
    (session / "logs" / "raylet.err").symlink_to(secret)
    (tmp_path / "session_2_dangling").symlink_to(tmp_path / "nowhere")
    assert [line.partition(": ")[0] for line in ray_session.causes_since(tmp_path, 0)] == ["dashboard_agent.log"]


def test_a_note_on_the_cluster_that_would_block_is_not_read(tmp_path: Path) -> None:
    session = log(tmp_path, "raylet.out", "").parent.parent
    os.mkfifo(tmp_path / "ray_current_cluster")
    assert ray_session.remove_session(session, "10.0.0.1:6379") == session / "logs"


@pytest.mark.requires("root")
@pytest.mark.parametrize("swapped", ["link", "folder"])
def test_what_somebody_has_put_in_a_sessions_place_is_not_cleared_up(tmp_path: Path, swapped: str) -> None:
    """Ray lets every user write in its ``--temp-dir``."""
    kept = log(tmp_path, "raylet.out", "text")
    session = kept.parent.parent
    home = tmp_path / "home"
    (home / "folder").mkdir(parents=True)
    (home / "file").touch()
    session.rename(tmp_path / "away")
    if swapped == "link":
        session.symlink_to(home)
    else:
        home.rename(session)
        os.chown(session, 65534, 65534)
    assert ray_session.remove_session(session, "") is None
    assert {path.name for path in session.iterdir()} == {"folder", "file"}
    assert ray_session.remove_session(tmp_path / "away", "") == tmp_path / "away" / "logs"


def test_clearing_up_leaves_the_logs_and_what_is_not_ours(tmp_path: Path) -> None:
    kept = log(tmp_path, "raylet.out", "text")
    session = kept.parent.parent
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("")
    for name in ("sockets", "runtime_resources/deep"):
        (session / name).mkdir(parents=True)
        (session / name / "file").write_text("")
    (session / "link").symlink_to(foreign)
    (session / "node_ip_address.json").write_text("")
    (tmp_path / "ray_current_cluster").write_text("10.0.0.1:6379")
    ray_session.remove_session(session, "10.0.0.1:6379")
    assert sorted(tmp_path.rglob("*")) == sorted([foreign, foreign / "precious", session, kept.parent, kept])
    ray_session.remove_session(session, "10.0.0.1:6379")


def test_the_note_of_another_cluster_stays(tmp_path: Path) -> None:
    session = log(tmp_path, "raylet.out", "").parent.parent
    (tmp_path / "ray_current_cluster").write_text("10.0.0.9:6379")
    ray_session.remove_session(session, "10.0.0.1:6379")
    assert (tmp_path / "ray_current_cluster").read_text() == "10.0.0.9:6379"
