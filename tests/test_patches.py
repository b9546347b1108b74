"""Our changes to Ray's functions; each test names the one that shows the effect on real Ray."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bootstrap.raynode import child_main, dispositions, prefill, tempfiles
from bootstrap.raynode.patches import patch

SESSION = "/tmp/ray-bootstrap.0123abcd/ray/session_2026-11-22_13-46-51_839170_4194304"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """As much of Ray as is used, by module name."""
    names = ("ray._private.services", "ray._private.ray_constants", "ray._common.network_utils", "ray._raylet")
    modules = {name: types.ModuleType(name) for name in names}
    for name in ("ray", "ray._private", "ray._common"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_the_agents_port_is_written_before_the_raylet_starts(ray: dict[str, Any]) -> None:
    """That `ray start` then does not wait: test_dashboard.py."""
    events: list[object] = []

    def start_raylet(node_id: str, session_dir: str, dashboard_agent_listen_port: int | None = None) -> str:
        events.append("raylet")
        return f"{node_id} {session_dir} {dashboard_agent_listen_port}"

    ray["ray._private.services"].start_raylet = start_raylet
    ray["ray._raylet"].DASHBOARD_AGENT_LISTEN_PORT_NAME = "a port"
    ray["ray._raylet"].persist_port = lambda *given: events.append(given)
    patch("start_raylet", prefill.agent)
    started = ray["ray._private.services"].start_raylet("id", session_dir="/s", dashboard_agent_listen_port=7)
    assert started == "id /s 7"
    assert events == [("/s", "id", "a port", 7), "raylet"]


def test_the_raylet_is_given_our_worker(ray: dict[str, Any]) -> None:
    """That its tasks have the signals back: test_real_hosts.py."""
    services = ray["ray._private.services"]
    services.start_raylet = lambda name, worker_path, *, kind: (name, worker_path, kind)
    patch("start_raylet", dispositions.give_back)
    name, path, kind = services.start_raylet("raylet", "/ray/default_worker.py", kind="k")
    assert (name, kind) == ("raylet", "k")
    assert path == str(Path(dispositions.__file__).with_name("default_worker.py"))
    assert Path(path).is_file()


@pytest.mark.parametrize("mine", [None, "/scratch"])
@pytest.mark.parametrize(("above", "has_it"), [("", True), ("/a-long-folder-of-the-user", False)])
def test_only_the_dashboard_has_its_temporary_files_in_the_session_if_a_socket_fits_there(
    ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mine: str | None, above: str, has_it: bool
) -> None:
    """That a killed run then leaves none: test_pid_1_is_killed."""
    monkeypatch.delenv("TMPDIR", raising=False)
    if mine:
        monkeypatch.setenv("TMPDIR", mine)
    services = ray["ray._private.services"]
    services.start_api_server = lambda session_dir: os.environ.get("TMPDIR")
    patch("start_api_server", tempfiles.in_session)
    assert services.start_api_server(above + SESSION) == (above + SESSION if has_it else mine)
    assert os.environ.get("TMPDIR") == mine


def test_an_error_of_rays_own_is_passed_on_and_the_variable_restored(ray: dict[str, Any]) -> None:
    def start_api_server(session_dir: str) -> None:
        raise SystemExit(session_dir)

    services, before = ray["ray._private.services"], os.environ.get("TMPDIR")
    services.start_api_server = start_api_server
    patch("start_api_server", tempfiles.in_session)
    with pytest.raises(SystemExit, match=SESSION):
        services.start_api_server(SESSION)
    assert os.environ.get("TMPDIR") == before


@pytest.mark.parametrize("name", ["start_raylet", "start_api_server", "start_otherwise"])
def test_a_ray_that_names_things_otherwise_does_what_it_always_did(ray: dict[str, Any], name: str) -> None:
    setattr(ray["ray._private.services"], name, lambda folder, *, kind: (folder, kind))
    for function, around in child_main._PATCHES:
        patch(function, around)
    assert getattr(ray["ray._private.services"], name)("/s", kind="k") == ("/s", "k")
    assert len(vars(ray["ray._private.services"]).keys() & {"start_raylet", "start_api_server"}) <= 1
