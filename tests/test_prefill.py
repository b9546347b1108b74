"""What `ray start` would wait for, given beforehand; that real Ray then does not wait shows in test_dashboard.py."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from bootstrap.raynode import prefill


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """As much of Ray as is used, by module name."""
    names = ("ray._private.services", "ray._private.ray_constants", "ray._common.network_utils", "ray._raylet")
    modules = {name: types.ModuleType(name) for name in names}
    for name in ("ray", "ray._private", "ray._common"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_the_agents_port_is_written_before_the_raylet_starts(ray: dict[str, Any]) -> None:
    events: list[object] = []

    def start_raylet(node_id: str, session_dir: str, dashboard_agent_listen_port: int | None = None) -> str:
        events.append("raylet")
        return f"{node_id} {session_dir} {dashboard_agent_listen_port}"

    ray["ray._private.services"].start_raylet = start_raylet
    ray["ray._raylet"].DASHBOARD_AGENT_LISTEN_PORT_NAME = "a port"
    ray["ray._raylet"].persist_port = lambda *told: events.append(told)
    prefill.announce()
    started = ray["ray._private.services"].start_raylet("id", session_dir="/s", dashboard_agent_listen_port=7)
    assert started == "id /s 7"
    assert events == [("/s", "id", "a port", 7), "raylet"]


@pytest.mark.parametrize("name", ["start_raylet", "start_api_server", "start_otherwise"])
def test_a_ray_that_names_things_otherwise_waits_as_it_always_did(ray: dict[str, Any], name: str) -> None:
    setattr(ray["ray._private.services"], name, lambda folder, *, kind: (folder, kind))
    prefill.announce()
    assert getattr(ray["ray._private.services"], name)("/s", kind="k") == ("/s", "k")
