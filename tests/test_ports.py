"""Which TCP ports Ray gets on a node."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import listeners
import pytest

from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.raynode import ports
from bootstrap.settings import Settings, flag, options

HOST = Host({}, "node")
RANGE = "proc/sys/net/ipv4/ip_local_port_range"


def choose(settings: Settings, role: Role = Role.HEAD, host: Host = HOST) -> dict[str, int]:
    return ports.choose(settings, role, host)


def given_away(root: Path, low: int, high: int) -> Host:
    """A host whose kernel gives these ports to outgoing connections."""
    (root / RANGE).parent.mkdir(parents=True)
    (root / RANGE).write_text(f"{low}\t{high}\n")
    return Host({}, "node", root)


@pytest.fixture
def taken() -> Any:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_on_which_somebody_listens_is_not_free(taken: int) -> None:
    assert not ports.is_free(taken)


def test_a_port_that_was_just_given_up_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
    assert ports.is_free(port)


EVERY_NODE = {
    "dashboard_agent_listen_port",
    "dashboard_agent_grpc_port",
    "metrics_export_port",
    "runtime_env_agent_port",
}


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.HEAD, {"gcs_port", "dashboard_port", "ray_client_server_port", *EVERY_NODE}),
        (Role.WORKER, EVERY_NODE),
    ],
)
def test_ports_that_are_chosen(role: Role, names: set[str]) -> None:
    chosen = choose(Settings(), role)
    assert set(chosen) == names
    assert all(ports.is_free(port) for port in chosen.values())
    assert len(set(chosen.values())) == len(chosen)


def test_the_users_ports_are_taken_as_they_are(taken: int) -> None:
    settings = Settings(gcs_port=taken, object_manager_port=8076, min_worker_port=1, max_worker_port=2)
    chosen = choose(settings, Role.HEAD)
    assert (chosen["gcs_port"], chosen["object_manager_port"], chosen["max_worker_port"]) == (taken, 8076, 2)


def test_a_standard_port_that_is_taken_gives_way(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_STANDARD", {"gcs_port": taken})
    port = choose(Settings(), Role.HEAD)["gcs_port"]
    assert port != taken
    assert ports.is_free(port)


CLAIM = """
import sys
from bootstrap.raynode import ports as ray_ports
print(ray_ports.claim(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.mark.requires("linux")
def test_a_port_is_chosen_by_one_agent_only_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(ports, "_STANDARD", {"gcs_port": port})
    other = subprocess.Popen([sys.executable, "-c", CLAIM, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        assert ports.is_free(port)  # nobody has bound it yet
        assert not ports.claim(port)
        assert choose(Settings(), Role.HEAD)["gcs_port"] != port
        other.communicate()
    assert choose(Settings(), Role.HEAD)["gcs_port"] == port
    assert ports.claim(port)


@pytest.mark.requires("linux")
def test_a_standard_port_that_the_user_replaces_stays_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_claims", {})
    monkeypatch.setattr(ports, "_STANDARD", {"gcs_port": 1})
    assert choose(Settings(gcs_port=7000), Role.HEAD)["gcs_port"] == 7000
    assert not {1, 7000} & ports._claims.keys()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (32768, 60999, lambda port: not 30000 <= port <= 60999),
        (15000, 62000, lambda port: port > 62000),
        (1024, 65535, lambda port: port >= 20000),  # nothing else is left
    ],
)
def test_a_port_that_the_kernel_does_not_give_away(tmp_path: Path, low: int, high: int, expected: Any) -> None:
    host = given_away(tmp_path, low, high)
    for _ in range(20):
        chosen = choose(Settings(), Role.WORKER, host)
        for name in ("dashboard_agent_listen_port", "min_worker_port", "max_worker_port"):  # Ray's, and a range below
            chosen.pop(name, None)
        assert [port for port in chosen.values() if not expected(port)] == []


WORKERS = ("min_worker_port", "max_worker_port")


@pytest.mark.parametrize(
    ("low", "high", "reserved", "options", "expected"),
    [
        (32768, 60999, "", {}, None),  # Linux's default: Ray's own range
        (20000, 65535, "", {}, None),
        (9000, 65000, "", {}, (1024, 6378)),  # up to GCS
        (9000, 65000, "10002-19999", {}, None),
        (9000, 65000, "8080,2000-2001,10002-19998", {}, (10002, 19998)),
        (16000, 65000, "", {}, (10002, 15999)),  # from the Ray Client server on
        (9000, 65000, "", {"gcs_port": 3000, "node_manager_port": 4000}, (4001, 6378)),
        (9000, 65000, "", {"rollcall_port": 1999}, (2000, 6378)),
        (9000, 65000, "", {"min_worker_port": 12000, "max_worker_port": 12999}, (12000, 12999)),
        (2000, 65000, "", {}, None),  # 976 ports are too few
        (2024, 65000, "", {}, (1024, 2023)),
        (1024, 65535, "", {}, None),
        (10000, 20000, "", {}, (1024, 6378)),  # not those of the roll call
    ],
)
def test_workers_ports_are_outside_the_range_of_the_kernel(
    tmp_path: Path, low: int, high: int, reserved: str, options: dict[str, int], expected: tuple[int, int] | None
) -> None:
    host, settings = given_away(tmp_path, low, high), Settings(**options)
    (tmp_path / RANGE).with_name("ip_local_reserved_ports").write_text(reserved + "\n")
    span = ports.workers(settings, host)
    assert (span.start, span.stop - 1) == (expected or (10002, 19999))
    for role in Role:
        chosen = choose(settings, role, host)
        assert tuple(chosen.pop(name, None) for name in WORKERS) == (expected or (None, None))
        assert [port for port in chosen.values() if port in span] == []


def test_no_file_says_which_ports_the_kernel_gives_away(tmp_path: Path) -> None:
    assert not ports.ephemeral(Host({}, "node", tmp_path))
    assert choose(Settings(), Role.HEAD, Host({}, "node", tmp_path))


def test_workers_that_leave_no_port_are_an_error_and_not_a_search_without_end() -> None:
    # The standard ports of a head may be free or not, as another test has it; those of a worker are in the range.
    with pytest.raises(PreflightFailed) as failure:
        choose(Settings(min_worker_port=20000, max_worker_port=65535), Role.WORKER)
    assert "in the workers' range 20000-65535" in failure.value.message
    assert "--dashboard-agent-listen-port=PORT" in failure.value.hint


def test_a_claim_that_fails_for_another_reason_keeps_nobody_from_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(socket.socket):
        def bind(self, _address: Any) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(ports, "_claims", {})
    monkeypatch.setattr(socket, "socket", Full)
    assert ports.claim(7000)
    assert not ports._claims


def test_the_table_of_listeners_has_every_port_option():
    named = {word for line in listeners.lines() for word in re.findall(r"`(--[a-z-]+)`", line)}
    assert named == {flag(f.name) for f in options() if f.name.endswith("_port")} | {"--dashboard-host"}
