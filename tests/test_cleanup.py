"""What a run leaves is removed, and nothing else: at its end, behind a dead agent, and by the next run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bootstrap import cleanup, timeouts
from bootstrap.files import runtime_dir
from bootstrap.files.manifest import Manifest, digest, remove_owned_files
from bootstrap.raynode.session import Held

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

FILES = ("state.json", "manifest.json", "token", "tls.crt", "tls.key", "ca.crt")


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime_dir, "PARENT", tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def ended(parent: Path, number: int, *, logs: bool = True) -> Path:
    """The folder of a run that has ended; a higher number is a later run."""
    path = parent / f"{runtime_dir.PREFIX}{number:08}"
    (path / "ray" / "session_2" / ("logs" if logs else "sockets")).mkdir(parents=True)
    path.chmod(0o700)
    os.utime(path, (number, number))
    return path


def of(folder: Path, **more: Any) -> Manifest:
    """The manifest of a run whose Ray lies in its runtime directory."""
    return Manifest(closed_dir=str(folder), ray_dir=str(folder / "ray"), **more)


def removed(keep: int) -> list[str]:
    """What it says that it has removed."""
    lines: list[str] = []
    cleanup.remove_ended_runs(keep, lines.append)
    return lines


def owned(path: Path, content: bytes = b"mine") -> Manifest:
    return Manifest(owned_files={str(path): digest(content)}, owned_dirs=[str(path.parent)])


def test_owned_files_go_with_their_empty_folder(tmp_path: Path) -> None:
    mine = tmp_path / "folder" / "mine"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    remove_owned_files(owned(mine))
    assert not mine.parent.exists()
    remove_owned_files(owned(mine))


def test_what_another_head_has_put_in_its_place_stays(tmp_path: Path) -> None:
    mine, fifo, link, target = (tmp_path / name for name in ("mine", "fifo", "link", "target"))
    mine.write_bytes(b"another's")
    os.mkfifo(fifo)
    target.write_bytes(b"mine")
    link.symlink_to(target)
    for path in (mine, fifo):
        remove_owned_files(owned(path))
    with pytest.raises(OSError, match="symbolic links"):
        remove_owned_files(owned(link))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "fifo", "link", "target"}


def test_a_run_without_logs_leaves_no_folder(parent: Path) -> None:
    folder = ended(parent, 1, logs=False)
    assert cleanup.remove(folder, of(folder), Held()) == (None, [])
    assert not folder.exists()


def test_of_a_run_with_logs_they_alone_stay(parent: Path) -> None:
    folder = ended(parent, 1)
    for name in FILES:
        (folder / name).touch()
    logs, _ = cleanup.remove(folder, of(folder), Held())
    assert logs == folder / "ray" / "session_2" / "logs"
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("logs", [True, False])
def test_the_closed_folder_in_the_users_goes_unless_it_holds_logs(parent: Path, tmp_path: Path, logs: bool) -> None:
    folder, closed = ended(parent, 1, logs=False), tmp_path / "users" / "12345678"
    (closed / "ray" / "session_2" / ("logs" if logs else "sockets")).mkdir(parents=True)
    closed.chmod(0o700)
    cleanup.remove(folder, Manifest(closed_dir=str(closed), ray_dir=str(closed / "ray")), Held())
    kept = [closed, closed / "ray", closed / "ray" / "session_2", closed / "ray" / "session_2" / "logs"]
    assert sorted((tmp_path / "users").rglob("*")) == (kept if logs else [])
    assert (tmp_path / "users").exists()


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_shared_folder_that_hangs_does_not_keep_the_rest(
    parent: Path, monkeypatch: pytest.MonkeyPatch, hung: threading.Event
) -> None:
    folder = ended(parent, 1)
    monkeypatch.setattr(timeouts, "SHARED_FOLDER_S", 0.1)
    monkeypatch.setattr(cleanup, "remove_owned_files", lambda _manifest: hung.wait())
    for name in FILES:
        (folder / name).touch()
    _, faults = cleanup.remove(folder, owned(Path("/nfs/record")), Held())
    assert faults == ["/nfs timed out after 0.1 s"]
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["manifest.json"]  # for the next run


def test_the_next_run_removes_what_was_killed_with_its_supervisor(parent: Path, tmp_path: Path) -> None:
    folder, record = ended(parent, 1), tmp_path / "shared" / "record"
    record.parent.mkdir()
    record.write_bytes(b"mine")
    mine = owned(record)
    (folder / "token").write_text("secret")
    (folder / "ray" / "session_2" / "sockets").mkdir()
    (folder / "state.json").write_text(json.dumps({"pid": 1}))
    (folder / "manifest.json").write_text(
        json.dumps(dataclasses.asdict(of(folder, owned_files=mine.owned_files, owned_dirs=mine.owned_dirs)))
    )
    assert removed(5) == []
    assert not record.parent.exists()
    assert sorted(path.name for path in folder.rglob("*")) == ["logs", "ray", "session_2"]


def test_the_logs_of_the_newest_runs_stay(parent: Path) -> None:
    folders = [ended(parent, number) for number in range(1, 9)]
    assert removed(0) == []
    assert all(folder.exists() for folder in folders)
    line = f"removed Ray's logs of 3 ended runs; those of the newest 5 stay in {parent}/ray-bootstrap.*"
    assert removed(5) == [line]
    assert [folder.exists() for folder in folders] == [False] * 3 + [True] * 5


def test_runs_without_logs_do_not_displace_logs(parent: Path) -> None:
    logs = ended(parent, 1)
    empty = [parent / f"{runtime_dir.PREFIX}{number:08}" for number in range(2, 9)]
    for folder in empty:
        folder.mkdir(mode=0o700)
    assert removed(1) == []
    assert (logs.exists(), [folder for folder in empty if folder.exists()]) == (True, [])


def test_how_a_run_ended_stays_with_its_logs_and_without_logs_for_an_hour(parent: Path) -> None:
    logs = [ended(parent, number) for number in range(1, 4)]
    early, fresh = parent / f"{runtime_dir.PREFIX}00000011", parent / f"{runtime_dir.PREFIX}00000012"
    for folder in (*logs, early, fresh):
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "result.json").write_text('{"status": 3, "run_id": "mine"}')
    os.utime(early / "result.json", (time.time() - timeouts.END_KEPT_S - 9,) * 2)
    for number, folder in enumerate(logs):
        os.utime(folder, (number, number))
    assert len(removed(2)) == 1
    assert [folder.exists() for folder in (*logs, early, fresh)] == [False, True, True, False, True]
    assert {path for _, path, _ in runtime_dir.results()} == {*logs[1:], fresh}


def test_only_our_own_files_are_removed(parent: Path) -> None:
    """`mktemp -d /tmp/ray-bootstrap.XXXXXX` may be a user's; even one with a name like ours keeps what is not ours."""
    theirs = parent / f"{runtime_dir.PREFIX}Xy3-zQ"
    theirs.mkdir(mode=0o700)
    (theirs / "data").touch()
    old = ended(parent, 1)
    (old / "data").touch()
    os.utime(old, (1, 1))
    ended(parent, 9)
    assert len(removed(1)) == 1
    assert [str(path.relative_to(old)) for path in old.rglob("*")] == ["data"]
    assert (theirs / "data").exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_ray_that_outlived_its_agents_keeps_its_files(
    parent: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    folder, session = ended(parent, 1), parent / f"{runtime_dir.PREFIX}{1:08}" / "ray" / "session_2"
    manifest = of(folder, session=str(session) if known else "")
    (folder / "manifest.json").write_text(json.dumps(dataclasses.asdict(manifest)))
    (folder / "token").touch()
    (session / "sockets").mkdir()
    monkeypatch.setattr(cleanup, "daemons", lambda _processes: ["its raylet"])
    monkeypatch.setattr(cleanup, "is_own", lambda _raylet: True)
    monkeypatch.setattr(cleanup, "session_of", lambda _raylet: session)
    for number in range(2, 5):
        ended(parent, number)
    assert len(removed(1)) == 1
    assert all(path.exists() for path in (folder / "manifest.json", folder / "token", session / "sockets"))
    monkeypatch.setattr(cleanup, "session_of", lambda _raylet: parent / "another" / "session_2")
    removed(0)
    assert not any(path.exists() for path in (folder / "manifest.json", folder / "token", session / "sockets"))


def test_a_clean_up_after_the_clean_up_keeps_the_logs(parent: Path) -> None:
    """The agent is killed while it copies logs or writes the result; its manifest is gone by then."""
    folder = ended(parent, 1)
    cleanup.remove(folder, Manifest(), Held())
    assert (folder / "ray" / "session_2" / "logs").exists()


def test_status_shows_no_agent_while_another_process_cleans_up_behind_it(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ended(parent, 1)
    (folder / "state.json").touch()
    seen: list[bool] = []
    monkeypatch.setattr(cleanup, "remove_owned_files", lambda _: seen.append((folder / "state.json").exists()))
    cleanup.remove(folder, Manifest(), Held())
    assert seen == [False]


def test_unfinished_files_go_too(parent: Path) -> None:
    folder = ended(parent, 1, logs=False)
    for name in FILES:
        (folder / f".{name}").touch()
    cleanup.remove(folder, of(folder), Held())
    assert not folder.exists()


@pytest.mark.requires("root")
def test_neither_a_live_run_nor_another_users_nor_a_link_is_removed(parent: Path, tmp_path: Path) -> None:
    live, theirs = runtime_dir.make(), ended(parent, 1)
    os.utime(live.path, (1, 1))
    os.chown(theirs, 1234, 1234)
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").touch()
    link = parent / f"{runtime_dir.PREFIX}00000002"
    link.symlink_to(precious)
    newest = ended(parent, 9)
    assert removed(1) == []
    assert all(path.exists() for path in (live.path, theirs, precious / "file", newest))


def test_a_run_says_which_logs_it_removed(site: Site) -> None:
    """In a folder in the place of /tmp: the real one may hold logs that the user of this machine wants to keep."""
    (site.folder / "sitecustomize.py").write_text(
        f"from bootstrap.files import runtime_dir; runtime_dir.PARENT = runtime_dir.Path('{site.folder}')"
    )
    env = {"RAY_BOOTSTRAP_TEMP_DIR": None, "PYTHONPATH": f"{site.folder}:{Path(__file__).parent}/fake_ray"}
    logs = []
    for age in (1000, 2000):
        node = site.run("--", "true", env=env)
        assert node.wait() == 0
        logs.append(Path(node.verdict["logs"]))
        os.utime(logs[-1].parents[2], (age, age))
    last = site.run("--keep-logs=1", "--", "sleep", "600", env=env)
    last.says(f"removed Ray's logs of 1 ended run; those of the newest 1 stay in {site.folder}/ray-bootstrap.*")
    assert [path.exists() for path in logs] == [False, True]
    last.says("quorum reached")
    last.send(signal.SIGTERM)
    assert last.wait() == 143
    assert Path(last.verdict["logs"]).exists()


def test_the_newest_results_without_logs_stay_however_many_runs_fail(parent: Path) -> None:
    """Each keeps no descriptor open, either: of 1 024 the next run needs some."""
    for number in range(70):
        folder = parent / f"{runtime_dir.PREFIX}{number:08}"
        folder.mkdir(mode=0o700)
        (folder / "result.json").write_text('{"status": 78}')
        os.utime(folder / "result.json", (time.time() - number,) * 2)
    with runtime_dir.ended() as folders:
        assert folders == []
    assert removed(5) == []
    assert sorted(int(path.name[-8:]) for path in parent.iterdir()) == list(range(64))
