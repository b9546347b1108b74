"""The state file: where there is no place for it, who may remove its folder, and what else may lie there."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bootstrap import settings
from bootstrap.commands import reports
from bootstrap.errors import PreflightFailed
from bootstrap.files import runtime_dir
from bootstrap.files.runtime_dir import StateFile
from bootstrap.host import Host
from bootstrap.process.table import read_process

pytestmark = pytest.mark.requires("linux")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of that in /tmp; not made yet."""
    path = tmp_path / "states"
    monkeypatch.setattr(runtime_dir, "folder", lambda: path)
    return path


def opened() -> StateFile:
    file = StateFile()
    assert file.open() == ""
    file.update(phase="running")
    return file


def test_it_is_there_while_the_agent_is(folder: Path) -> None:
    file = opened()
    assert [facts["phase"] for facts in runtime_dir.running()] == ["running"]
    assert folder.stat().st_mode & 0o777 == 0o700
    file.remove()
    assert not folder.exists()


def test_where_the_folder_cannot_be_made_there_is_no_state_file(folder: Path, tmp_path: Path) -> None:
    tmp_path.rmdir()
    file = StateFile()
    assert str(folder) in file.open()
    file.update(phase="running")
    file.remove()
    assert not tmp_path.exists()
    tmp_path.mkdir()


def test_somebody_elses_folder_is_an_error_and_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    folder.symlink_to(theirs)
    file = StateFile()
    with pytest.raises(PreflightFailed):
        file.open()
    file.path.write_text("{}")
    file.update(phase="ending")
    file.remove()
    assert file.path.read_text() == "{}"


def test_a_folder_that_was_removed_is_made_again(folder: Path) -> None:
    file = opened()
    file.path.unlink()
    folder.rmdir()
    file.update(phase="waiting")
    assert [facts["phase"] for facts in runtime_dir.running()] == ["waiting"]


def test_nothing_is_written_where_somebody_else_has_put_a_folder_meanwhile(folder: Path, tmp_path: Path) -> None:
    file = opened()
    file.path.unlink()
    folder.rmdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    folder.symlink_to(theirs)
    file.update(phase="waiting")
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("losses", [1, 3])
def test_another_agents_end_while_the_folder_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    """It removes the folder when it is empty: here, each time between our mkdir and our look at it."""
    lost: list[Path] = []
    lstat = Path.lstat

    def removed_first(path: Path) -> os.stat_result:
        if path == folder and len(lost) < losses:
            lost.append(path)
            folder.rmdir()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", removed_first)
    file = opened()
    assert len(lost) == losses
    assert file.path.exists()


def test_what_was_to_be_written_soon_is_not_written_after_the_end(folder: Path) -> None:
    async def run() -> None:
        file = opened()
        file.soon(seen=2)
        pending = file._pending
        assert pending is not None
        file.remove()
        assert pending.cancelled()
        file.soon(seen=3)
        assert file._pending is None
        file.update(seen=4)

    asyncio.run(run())
    assert not folder.exists()


def test_a_dead_agents_files_go_and_what_it_said_is_known(folder: Path) -> None:
    folder.mkdir()
    runtime_dir.path_of(77, "json").write_text(json.dumps({"pid": 77, "since": 1.0, "session": "/s"}))
    runtime_dir.path_of(77, "token").write_text("secret")
    runtime_dir.path_of(77, "new").write_text("{")
    runtime_dir.path_of(78, "token").write_text("another's")
    (folder / "1-77.token").write_text("one's in another container")
    assert runtime_dir.remove_dead_agent(77)["session"] == "/s"
    assert set(folder.iterdir()) == {runtime_dir.path_of(78, "token"), folder / "1-77.token"}


def test_what_was_killed_with_its_supervisor_is_cleared_up_by_the_next_agent(folder: Path) -> None:
    folder.mkdir()
    dead = {"pid": os.getppid(), "started": 1, "since": 1.0}  # an earlier process of that number
    runtime_dir.path_of(dead["pid"], "json").write_text(json.dumps({**dead, "supervisor": 2**30}))
    runtime_dir.path_of(dead["pid"], "token").write_text("secret")
    (folder / "1-77.json").write_text(json.dumps({**dead, "supervisor": 2**30}))
    waits = {**dead, "pid": 2**30 + 1, "supervisor": os.getpid()}  # its supervisor is about to
    runtime_dir.path_of(2**30 + 1, "json").write_text(json.dumps(waits))
    file = opened()
    assert set(folder.iterdir()) == {file.path, runtime_dir.path_of(2**30 + 1, "json"), folder / "1-77.json"}


def test_agents_of_other_containers_are_not_seen_as_ours(folder: Path) -> None:
    folder.mkdir()
    (folder / f"1-{os.getpid()}.json").write_text(mine())
    assert runtime_dir.running() == []


def test_a_dead_agent_in_somebody_elses_folder_said_nothing(folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    folder.symlink_to(theirs)
    runtime_dir.path_of(77, "json").write_text(json.dumps({"pid": 77, "since": 1.0, "session": "/home"}))
    assert runtime_dir.remove_dead_agent(77) == {}
    assert runtime_dir.path_of(77, "json").exists()


def mine(**changes: Any) -> str:
    process = read_process(os.getpid())
    assert process is not None
    facts = {"pid": process.pid, "started": process.started, "since": time.time(), "phase": "running", **changes}
    return json.dumps({name: value for name, value in facts.items() if value != "missing"})


ODD = [
    "[1]",
    "1",
    "null",
    "",
    "{",
    "[" * 100_000,
    "\udcff",
    mine(pid=None),
    mine(pid="missing"),
    mine(pid="x"),
    mine(pid=float("inf")),
    mine(since="missing"),
    mine(since=None),
    mine(since="now"),
]
OF_NOBODY = [mine(pid=10**30), mine(started="missing")]
"""Sound, but of no process here."""


@pytest.mark.parametrize("text", [*ODD, *OF_NOBODY], ids=map(str, range(len(ODD + OF_NOBODY))))
def test_an_odd_file_is_passed_over(folder: Path, text: str) -> None:
    opened()
    runtime_dir.path_of(5, "json").write_bytes(text.encode("utf-8", "surrogateescape"))
    runtime_dir.path_of(6, "json").mkdir()
    assert len(runtime_dir.running()) == 1
    assert reports.status(settings.load({}, {}, [], []), Host({}, "here"), False) == 0
    assert runtime_dir.remove_dead_agent(5).get("phase") == ("running" if text in OF_NOBODY else None)


def test_an_odd_phase_is_not_ready(folder: Path) -> None:
    folder.mkdir()
    runtime_dir.path_of(5, "json").write_text(mine(phase=["running"]))
    assert reports.status(settings.load({}, {}, [], []), Host({}, "here"), False) == reports.NOT_READY


def test_the_states_in_somebody_elses_folder_are_not_ours(folder: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    folder.symlink_to(theirs)
    runtime_dir.path_of(5, "json").write_text(mine())
    assert runtime_dir.running() == []
