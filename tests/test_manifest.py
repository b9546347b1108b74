"""Only what a run has written itself is removed at its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootstrap.files.manifest import digest, remove_owned_files


def test_what_was_written_goes_with_its_folder(tmp_path: Path) -> None:
    mine = tmp_path / "folder" / "mine"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    remove_owned_files({str(mine): digest(b"mine")})
    assert not mine.parent.exists()
    remove_owned_files({str(mine): digest(b"mine")})


def test_what_another_head_has_put_in_its_place_stays(tmp_path: Path) -> None:
    mine, fifo, link, target = (tmp_path / name for name in ("mine", "fifo", "link", "target"))
    mine.write_bytes(b"another's")
    os.mkfifo(fifo)
    target.write_bytes(b"mine")
    link.symlink_to(target)
    remove_owned_files({str(path): digest(b"mine") for path in (mine, fifo)})
    with pytest.raises(OSError, match="symbolic links"):
        remove_owned_files({str(link): digest(b"mine")})
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "fifo", "link", "target"}
