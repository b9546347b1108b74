"""TMPDIR of the dashboard; that nothing of it then stays is shown by test_pid_1_is_killed on real Ray."""

from __future__ import annotations

import os
import sys
import types

import pytest

from bootstrap.raynode import tempfiles

SESSION = "/tmp/ray-bootstrap.0123abcd/ray/session_2026-11-22_13-46-51_839170_4194304"


def _dashboards_tmpdir(monkeypatch: pytest.MonkeyPatch, session: str) -> str | None:
    services = types.ModuleType("ray._private.services")

    def start_api_server(include_dashboard: bool, session_dir: str) -> str | None:
        assert include_dashboard
        return os.environ.get("TMPDIR")

    services.start_api_server = start_api_server  # type: ignore[attr-defined]
    for name in ("ray", "ray._private"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "ray._private.services", services)
    tempfiles.patch_dashboard()
    return services.start_api_server(True, session_dir=session)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("mine", [None, "/scratch"])
def test_only_the_dashboard_has_it_in_the_session(monkeypatch: pytest.MonkeyPatch, mine: str | None) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    if mine:
        monkeypatch.setenv("TMPDIR", mine)
    assert _dashboards_tmpdir(monkeypatch, SESSION) == SESSION
    assert os.environ.get("TMPDIR") == mine


def test_a_session_too_deep_for_a_socket_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert _dashboards_tmpdir(monkeypatch, "/a-long-folder-of-the-user" + SESSION) == "/scratch"


def test_a_ray_that_names_things_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    services = types.ModuleType("ray._private.services")
    monkeypatch.setitem(sys.modules, "ray._private.services", services)
    for name in ("ray", "ray._private"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    tempfiles.patch_dashboard()
    assert not hasattr(services, "start_api_server")
