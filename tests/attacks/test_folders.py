"""A neighbour and the folders of a run: he gets into none, makes none in our place, and plants nothing in a copy."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import neighbour
import pytest
from namespaces import wait_for

from bootstrap.files import runtime_dir

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux", "root", "setpriv")

RAYS = ["-name", "session_2*", "-o", "-name", "logs", "-o", "-name", "runtime_resources"]
"""For ``find``: what of Ray's folders a neighbour could use."""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder like /tmp, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="p-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def in_the_place_of_tmp(site: Site, folder: Path) -> None:
    """The nodes that are started from now on have their runtime directories there."""
    patch = f"from bootstrap.files import runtime_dir; runtime_dir.PARENT = runtime_dir.Path('{folder}')"
    site.shorten()
    with (site.folder / "sitecustomize.py").open("a") as file:
        file.write(f"\n{patch}\n")


def folder_of_ray(node: Node) -> Path:
    """Ray's folder, once Ray has been started."""
    wait_for(lambda: node.starts, 20, "ray start")
    (option,) = (word for word in node.argv if word.startswith("--temp-dir="))
    return Path(option.partition("=")[2])


@pytest.mark.parametrize("where", ["default", "public", "missing"])
def test_he_gets_into_no_folder_of_ray(site: Site, public: Path, where: str) -> None:
    """Ray makes them with mode 0777: who gets there replaces what the next task runs."""
    asked = {"default": None, "public": str(public), "missing": f"{public}/missing"}[where]
    in_the_place_of_tmp(site, public)
    node = site.run("--", "sleep", "600", env={"RAY_BOOTSTRAP_TEMP_DIR": asked})
    node.says("quorum reached")
    ray = folder_of_ray(node)
    (mine,) = ray.glob("session_2*")
    assert stat.S_IMODE((mine / "runtime_resources").stat().st_mode) == 0o777
    assert neighbour.finds(public, ray, *RAYS) == []
    (own,) = public.glob("ray-bootstrap.*")
    assert neighbour.finds(own) == [str(own)]
    before = sorted(public.rglob("*"))
    neighbour.does('for path; do mv "$path" "$path.away"; rm -rf "$path"; mkdir -p "$path"; done', ray, ray.parent)
    assert sorted(public.rglob("*")) == before
    said = f"Ray's folder is {ray}: other users can enter every folder above {ray.parent}"
    assert (said in node.err) == (asked is not None)
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert Path(node.verdict["logs"]).is_relative_to(ray)


def test_of_ray_in_a_public_folder_only_logs_stay_and_out_of_his_reach(site: Site, public: Path) -> None:
    env = {"RAY_BOOTSTRAP_TEMP_DIR": str(public), "FAKE_RAY": "mute-refuse"}
    node = site.run("--", "true", env=env)
    assert node.wait() == 69
    (closed,) = public.iterdir()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    left = {str(path.relative_to(closed)) for path in closed.glob("**/session_2*/*")}
    assert {Path(name).name for name in left} == {"logs"}
    assert neighbour.finds(closed) == [str(closed)]


def port(site: Site) -> int:
    """The roll call's, another one in each test, as several run at once."""
    return 20000 + zlib.crc32(site.run_id.encode()) % 10000


def waiting(site: Site, public: Path, temp_dir: Path | None) -> tuple[Node, Path]:
    """A worker that has found itself fit and waits for its head, and its runtime directory."""
    in_the_place_of_tmp(site, public)
    env = {"RAY_BOOTSTRAP_TEMP_DIR": str(temp_dir) if temp_dir else None}
    node = site.rank(1, 2, "--head-timeout=60s", f"--rollcall-port={port(site)}", env=env)
    wait_for(lambda: any("searching" in path.read_text() for path in public.glob("*/state.json")), 20, "the search")
    (own,) = public.glob("ray-bootstrap.*")
    return node, own


def then_a_head(site: Site) -> Node:
    return site.rank(0, 2, f"--rollcall-port={port(site)}", workload=["sleep", "600"])


def test_a_folder_that_he_makes_while_a_worker_waits_is_not_used(site: Site, public: Path) -> None:
    temp_dir = public / "ray"
    worker, _ = waiting(site, public, temp_dir)
    neighbour.does('mkdir -m 777 "$1"', temp_dir)
    head = then_a_head(site)
    assert worker.wait() == 78
    assert f"{temp_dir} belongs to uid {neighbour.UID}, who can replace this run's folders" in worker.err
    assert worker.starts == []
    assert neighbour.finds(temp_dir, *RAYS) == []
    head.send(signal.SIGTERM)
    head.wait()


@pytest.mark.parametrize(
    ("who", "status", "why"),
    [
        ("neighbour", 78, "belongs to uid 54321, who can replace this run's folders"),
        ("nobody", 69, "No such file"),
        ("we", 69, "is no longer the folder that this agent made"),
    ],
)
def test_a_folder_that_takes_the_place_of_ours_is_not_used(
    site: Site, public: Path, who: str, status: int, why: str
) -> None:
    """A cleaner of /tmp has removed ours, and its name was seen."""
    worker, mine = waiting(site, public, None)
    mine.rename(site.folder / "removed")
    if who == "we":
        mine.mkdir(mode=0o700)
        fcntl.flock(os.open(mine, os.O_RDONLY), fcntl.LOCK_EX)  # or the head would take it for that of an ended run
    elif who == "neighbour":
        neighbour.does('mkdir -m 777 "$1"', mine)
    head = then_a_head(site)
    assert worker.wait(clean=False) == status
    assert f"{mine}" in worker.err
    assert why in worker.err
    assert worker.starts == []
    assert not (mine / "ray").exists()
    head.send(signal.SIGTERM)
    head.wait()


def test_a_public_folder_that_lets_him_rename_is_no_place_for_ray(site: Site, public: Path) -> None:
    public.chmod(0o777)
    node = site.run("--", "true", env={"RAY_BOOTSTRAP_TEMP_DIR": str(public)})
    assert node.wait() == 78
    assert f"fix: as root: chmod +t {public}" in node.err
    assert list(public.iterdir()) == []


def test_the_name_that_he_sees_is_not_the_one_to_take(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime directory is made under a name with a dot, and renamed once it is locked."""
    monkeypatch.setattr(runtime_dir, "PARENT", public)
    lock = fcntl.flock

    def watched(fd: int, operation: int) -> None:
        taking = 'cd "$1" && for name in .ray-bootstrap.*; do mkdir -p "${name#.}/his" 2>/dev/null; done'
        neighbour.does(taking, public)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", watched)
    made = runtime_dir.make()
    assert made.fault == ""
    assert made.path.stat().st_uid == os.geteuid()


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
    found = sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.suffix != ".requests")
    assert found == ["gcs_server.err", "old", "old/worker.out", "raylet.err", "raylet.out", "worker.out"]
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
