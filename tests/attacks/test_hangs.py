"""Whatever lies where Ray's files are expected, the agent reads what it can, hears its signals, and ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")


HANGS = """
import pathlib, time
from bootstrap.raynode import session

def hang(*_, **__):
    pathlib.Path("reading").write_text("!")
    time.sleep(600)

session._read_end = hang
"""


def make_logs_unreadable(site: Site, **seconds: float) -> None:
    """As on a disk that hangs; ``seconds`` as for ``site.shorten``."""
    site.shorten(REMOVE_SESSION_S=1, **seconds)
    with (site.folder / "sitecustomize.py").open("a") as file:
        file.write(HANGS)


def replace_by_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def running(site: Site) -> tuple[Node, Path]:
    """A node whose workload runs, and its session."""
    node = site.run("--", "sleep", "600")
    node.says("quorum reached")
    (session,) = node.temp_dir.glob("session_2*")
    return node, session


def test_a_raylet_dies_among_fifos(site: Site) -> None:
    node, session = running(site)
    for name in ("gcs_server.err", "raylet.err", "raylet.out", "dashboard_agent.log"):
        replace_by_fifo(session / "logs" / name)
    replace_by_fifo(node.temp_dir / "ray_current_cluster")
    (session / "logs" / "gcs_server.out").write_text("OSError: the one log that can be read\n")
    begun = time.monotonic()
    os.kill(node.raylet, signal.SIGKILL)
    assert node.process.wait(10) == 76
    assert time.monotonic() - begun < 5
    assert "gcs_server.out: OSError: the one log that can be read" in node.err


@pytest.mark.parametrize("stop", [False, True])
def test_a_raylet_dies_and_its_logs_cannot_be_read(site: Site, stop: bool) -> None:
    """The run ends without the cause; and at once if it is stopped meanwhile."""
    make_logs_unreadable(site, READ_LOGS_S=600 if stop else 1)
    node, _ = running(site)
    os.kill(node.raylet, signal.SIGKILL)
    if stop:
        node.appears("reading")
        node.send(signal.SIGTERM)
    assert node.process.wait(15) == (143 if stop else 76), node.err
    assert stop or "raylet on" in node.err


def test_ray_does_not_start_and_its_logs_cannot_be_read(site: Site) -> None:
    make_logs_unreadable(site, READ_LOGS_S=1)
    node = site.run("--", "true", env={"FAKE_RAY": "refuse"})
    assert node.process.wait(20) == 69, node.err
    assert "`ray start` failed" in node.err
