"""A neighbour and the folders of a run: he gets into none, makes none in our place, and plants nothing in a copy."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import neighbour
import pytest

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux", "root", "setpriv")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder like /tmp, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="p-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def with_odd_logs(site: Site, copies: Path) -> Node:
    """A run that has ended, among whose logs there were a FIFO and links, and which copied them."""
    node = site.run(f"--log-dir={copies}", "--", "sh", "-c", "echo up; umask; until test -e go; do sleep 0.02; done")
    node.says("up", where="out")
    (logs,) = node.temp_dir.glob("session_2*/logs")
    (logs / "old").mkdir()
    for path in (logs / "worker.out", logs / "old" / "worker.out"):
        path.write_text("line")
    os.mkfifo(logs / "worker.err")
    (logs / "link").symlink_to("/etc/shadow")
    (logs / "deep").symlink_to("/etc")
    (node.folder / "go").touch()
    assert node.wait() == 0
    return node


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_the_copy_of_the_logs_can_be_read_by_others_and_written_by_none(site: Site, public: Path) -> None:
    node = with_odd_logs(site, public / "copies")
    assert "warning: copying" not in node.err
    copy = Path(node.verdict["logs"])
    assert copy.is_relative_to(public / "copies")
    found = sorted(str(path.relative_to(copy)) for path in copy.rglob("*"))
    assert found == ["gcs_server.err", "old", "old/worker.out", "raylet.err", "worker.out"]
    assert neighbour.does('cat "$1"/worker.out "$1"/old/worker.out', copy) == "lineline"
    assert neighbour.finds(public / "copies", "-writable") == []


@pytest.mark.parametrize("planted", ["run", "rank-0", "worker.out"])
def test_what_he_plants_where_logs_are_copied_is_not_followed(site: Site, public: Path, planted: str) -> None:
    precious = public / "precious"
    (precious / "rank-0").mkdir(parents=True)
    kept = [precious / "worker.out", precious / "rank-0" / "worker.out"]
    for file in kept:
        file.write_text("precious")
    run = public / hashlib.sha256(site.run_id.encode()).hexdigest()[:16]
    where = {"run": run, "rank-0": run / "rank-0", "worker.out": run / "rank-0" / "worker.out"}[planted]
    neighbour.does('umask 0; mkdir -p "${1%/*}"; ln -s "$2" "$1"', where, kept[0] if planted[0] == "w" else precious)
    assert where.is_symlink()
    node = with_odd_logs(site, public)
    assert [file.read_text() for file in precious.rglob("*.out")] == ["precious"] * 2
    assert [path.name for path in precious.rglob("*") if path.is_file()] == ["worker.out"] * 2
    assert "warning: copying Ray's logs: " in node.err
    assert Path(node.verdict["logs"]).is_relative_to(node.temp_dir)
