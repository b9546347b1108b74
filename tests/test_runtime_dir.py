"""The runtime directory: who may use it, who holds it, and what the state files in it say."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from bootstrap import settings
from bootstrap.commands import reports
from bootstrap.files import runtime_dir
from bootstrap.files.manifest import Manifest
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.switches import Switches

pytestmark = pytest.mark.requires("linux")


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of /tmp."""
    monkeypatch.setattr(runtime_dir, "PARENT", tmp_path)
    return tmp_path


def opened(**facts: Any) -> RuntimeDir:
    """That of an agent in this process, which holds its lock for as long as the tests run."""
    made = runtime_dir.make()
    assert made.fault == ""
    made.set_state(
        **{"pid": os.getpid(), "pid_namespace": runtime_dir.pid_namespace(), "phase": "running", "ready": True, **facts}
    )
    return made


def left(parent: Path, name: str = "00000001", **files: Any) -> Path:
    """That of an agent that has ended."""
    path = parent / f"{runtime_dir.PREFIX}{name}"
    path.mkdir(mode=0o700)
    for file, content in files.items():
        (path / f"{file}.json").write_text(json.dumps(content))
    return path


def paths_of_ended() -> list[Path]:
    with runtime_dir.ended() as found:
        return list(found)


def test_it_is_closed_to_others_and_its_name_is_short_enough_for_sockets_below_it(parent: Path) -> None:
    old_mask = os.umask(0)
    try:
        made = opened()
        token = made.write_private(runtime_dir.TOKEN, b"secret")
    finally:
        os.umask(old_mask)
    assert token is not None
    assert (stat.S_IMODE(made.path.stat().st_mode), stat.S_IMODE(token.stat().st_mode)) == (0o700, 0o600)
    assert len(f"/tmp/{made.path.name}") <= 30
    assert made.ray_dir.parent == made.path


def test_two_agents_have_folders_of_their_own(parent: Path) -> None:
    assert opened().path != opened().path
    assert len(runtime_dir.running()) == 2


def test_where_it_cannot_be_made_nothing_is_written(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_dir, "PARENT", parent / "absent")
    made = runtime_dir.make()
    assert "No such file" in made.fault
    made.set_state(phase="running")
    made.note(Manifest(gcs="x"))
    assert made.write_private(runtime_dir.TOKEN, b"secret") is None
    assert list(parent.iterdir()) == []


def test_a_name_that_is_taken_is_not_used(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = left(parent, state={"pid": 1})
    digits = itertools.chain([b"\0\0\0\0", b"\0\0\0\1"], (bytes([0, 0, 1, n]) for n in range(256)))
    monkeypatch.setattr(os, "urandom", lambda _: next(digits))
    made = opened()
    assert made.path.name == f"{runtime_dir.PREFIX}00000101"
    assert json.loads((taken / "state.json").read_text()) == {"pid": 1}
    assert sorted(parent.iterdir()) == [taken, made.path]


def test_where_every_name_is_taken_the_run_goes_without(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = left(parent, state={"pid": 1})
    monkeypatch.setattr(os, "urandom", lambda _: b"\0\0\0\1")
    made = runtime_dir.make()
    assert "not empty" in made.fault
    made.set_state(phase="running")
    assert json.loads((taken / "state.json").read_text()) == {"pid": 1}
    assert list(parent.iterdir()) == [taken]


def test_an_agent_is_running_while_it_holds_its_lock(parent: Path) -> None:
    opened(run_id="mine")
    over = left(parent, state={"pid": os.getpid(), "since": 1.0, "pid_namespace": runtime_dir.pid_namespace()})
    assert [state["run_id"] for state in runtime_dir.running()] == ["mine"]
    assert paths_of_ended() == [over]


def test_what_ended_is_held_while_it_is_looked_at(parent: Path) -> None:
    left(parent)
    with runtime_dir.ended() as first, runtime_dir.ended() as second:
        assert (len(first), second) == (1, [])


def test_the_newest_is_first(parent: Path) -> None:
    folders = [left(parent, f"{number:08}") for number in (1, 3, 2)]
    for age, folder in enumerate(folders):
        os.utime(folder, (1000 + age, 1000 + age))
    assert paths_of_ended() == folders[::-1]


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '{"unknown": 1}', "[" * 100_000])
def test_a_damaged_manifest_names_nothing(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "manifest.json").write_text(damaged)
    assert Manifest.load(tmp_path / "manifest.json") == Manifest() == Manifest.load(tmp_path / "absent")


@pytest.mark.requires("root")
def test_folders_of_others_and_open_ones_are_left_alone(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    theirs, wide, link = left(parent, "00000001"), left(parent, "00000002"), parent / f"{runtime_dir.PREFIX}00000003"
    os.chown(theirs, 1234, 1234)
    wide.chmod(0o777)
    link.symlink_to(left(tmp_path_factory.mktemp("elsewhere")))
    assert paths_of_ended() == []
    assert runtime_dir.running() == []


def test_what_was_to_be_written_soon_is_not_written_after_the_end(parent: Path) -> None:
    async def run() -> None:
        made = opened()
        made.set_state_soon(seen=2)
        pending = made._pending
        assert pending is not None
        made.close()
        assert pending.cancelled()
        made.set_state(seen=3)
        assert "seen" not in json.loads((made.path / "state.json").read_text())

    asyncio.run(run())


def test_a_live_agent_is_found_among_many_that_have_ended(parent: Path) -> None:
    opened(run_id="mine")
    for number in range(100):
        left(parent, f"{number:08}")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd.name) for fd in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 32, limits[1]))
    try:
        assert [state["run_id"] for state in runtime_dir.running()] == ["mine"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_that_cannot_be_finished_leaves_nothing(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = opened()
    made.note(Manifest(gcs="first"))
    monkeypatch.setattr(os, "rename", fails_with_a_full_disk)
    assert not made.note(Manifest(gcs="second"))
    assert sorted(path.name for path in made.path.iterdir()) == ["manifest.json", "state.json"]
    assert Manifest.load(made.path / "manifest.json").gcs == "first"


def fails_with_a_full_disk(*_: object, **_named: object) -> None:
    raise OSError(28, "No space left on device")


def test_agents_of_other_containers_are_not_seen_as_ours(parent: Path) -> None:
    opened(pid_namespace=1)
    assert runtime_dir.running() == []


ODD: list[Any] = [[1], 1, None, "[" * 100_000, *({"pid": pid} for pid in (None, "x", float("inf")))]
ODD += [{"since": since} for since in (None, "now")]


@pytest.mark.parametrize("content", ODD, ids=map(str, range(len(ODD))))
def test_a_damaged_state_file_is_passed_over(parent: Path, content: Any) -> None:
    opened()
    damaged = opened()
    facts = {**damaged.state, **content} if isinstance(content, dict) else content
    (damaged.path / "state.json").write_text(content if isinstance(content, str) else json.dumps(facts))
    assert len(runtime_dir.running()) == 1
    assert reports.status(settings.load({}, {}, [], []), Host({}, "here"), Switches()) == 0
    (damaged.path / "state.json").unlink()
    (damaged.path / "state.json").mkdir()
    assert len(runtime_dir.running()) == 1


@pytest.mark.parametrize(("ready", "status"), [(True, 0), (False, 2), (None, 2), (["ready"], 2)])
def test_ready_or_not(parent: Path, ready: object, status: int) -> None:
    opened(ready=ready)
    assert reports.status(settings.load({}, {}, [], []), Host({}, "here"), Switches()) == status


def test_since_is_the_time_of_the_last_phase(parent: Path) -> None:
    made = opened()
    since = made.state["since"]
    made.set_state(seen=3)
    assert made.state["since"] == since <= time.time()
