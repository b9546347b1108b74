"""What an earlier attempt of a run has set up on this machine: when it counts."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bootstrap import cleanup
from bootstrap.files import runtime_dir
from bootstrap.files import setup as files
from bootstrap.host import Host

pytestmark = pytest.mark.requires("linux")

THIS = files.Done("run", 3, ["a", "b"], "boot 1 2 3", "")


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime_dir, "PARENT", tmp_path)
    return tmp_path


def saved(**changes: Any) -> runtime_dir.RuntimeDir:
    made = runtime_dir.make()
    files.save(made, dataclasses.replace(THIS, **{"attempt": 1, "written": "A=1", **changes}))
    return made


@pytest.mark.parametrize(
    "changes",
    [{"run_id": "other"}, {"attempt": 3}, {"attempt": 4}, {"commands": ["a"]}, {"system": "boot 1 2 4"}],
)
def test_only_an_earlier_attempt_with_the_same_commands_on_the_same_system_counts(changes: dict[str, Any]) -> None:
    saved(**changes)
    assert files.earlier(THIS) is None


def test_of_several_earlier_attempts_the_last_counts() -> None:
    """By time: the run id may have been used before."""
    newest = saved(attempt=0, written="A=0").path / "setup.json"
    assert oct(newest.stat().st_mode)[-3:] == "600"
    os.utime(saved().path / "setup.json", (1, 1))
    damaged = saved(attempt=2).path / "setup.json"
    damaged.write_text(json.dumps({"attempt": 2}))
    found = files.earlier(THIS)
    assert found is not None
    assert (found.attempt, found.written) == (0, "A=0")


def test_another_user_cannot_plant_one(parent: Path) -> None:
    made = saved().path
    made.chmod(0o755)
    assert files.earlier(THIS) is None
    made.chmod(0o700)
    (made / "real").write_text((made / "setup.json").read_text())
    (made / "setup.json").unlink()
    (made / "setup.json").symlink_to(made / "real")
    assert files.earlier(THIS) is None


def test_a_new_root_folder_or_boot_is_another_system(tmp_path: Path) -> None:
    boot = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("first\n")
    host = Host({}, "node", tmp_path / "root")
    one = files.system(host)
    assert files.system(host) == one
    boot.write_text("second\n")
    assert files.system(host) != one
    boot.write_text("first\n")
    (tmp_path / "root/new").mkdir()
    assert files.system(host) != one


def test_it_goes_with_the_logs_of_its_run(parent: Path) -> None:
    made = [saved(attempt=number) for number in range(3)]
    for number, each in enumerate(made):
        os.close(each.lock)
        os.utime(each.path, (number, number))
    cleanup.remove_ended_runs(2, lambda _line: None)
    assert [each.path.exists() for each in made] == [False, True, True]
    assert (made[1].path / "setup.json").exists()
