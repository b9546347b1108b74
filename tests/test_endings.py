"""The remedy for a process of Ray that ended fits how it ended, and what Ray said; and the lines that tell why."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bootstrap.cgroup import FIX_OOM, OOM
from bootstrap.raynode import endings, telling
from bootstrap.raynode.telling import Telling

CPP = "[2026-11-22 01:47:05,823 {level} 24065 24065] "


@pytest.mark.parametrize(
    ("status", "oom", "causes", "texts"),
    [
        (signal.SIGKILL, "", "", ["journalctl -k", "dmesg", "earlyoom"]),
        (signal.SIGKILL, f"{OOM} 1 process in the cgroup of n1", "", [FIX_OOM]),
        (signal.SIGBUS, "", "", ["df -h /dev/shm", "--object-store-memory"]),
        (signal.SIGSEGV, "", "", ["Ray's logs"]),
        (signal.SIGABRT, "", "raylet.out: Check failed: Address already in use", ["ss -ltnp"]),
        (1 << 8, "", "raylet.out: No space left on device", ["df -h"]),
        (
            1 << 8,
            "",
            "Failed to connect to GCS at address 10.77.1.10:6379 within 5 s",
            ["10.77.1.10", "port 6379", "nft"],
        ),
        (
            1 << 8,
            "",
            "Failed to connect to GCS at address [fd00::1]:6379 within 5 s",
            ["ip route get fd00::1`", "port 6379"],
        ),
        (1 << 8, "", "raylet.out: Check failed: something new", ["see the cause above"]),
        (None, "", "", ["Ray's logs"]),
    ],
)
def test_the_remedy(status: int | None, oom: str, causes: str, texts: list[str]) -> None:
    how = endings.describe({"raylet": status}, oom)
    fix = endings.remedy("\n".join(filter(None, [how, causes])))
    assert [text for text in texts if text not in fix] == []
    assert "waits longer" not in fix
    assert how.startswith("raylet ")
    assert how.endswith(oom)


@pytest.mark.parametrize(
    ("line", "tells"),
    [
        (
            CPP.format(level="W")
            + "rpc_client.h:153: Failed to connect to GCS at address 10.0.0.1:6379 within 5 seconds.",
            1,
        ),
        (CPP.format(level="E") + "node_manager.cc:1: the agent has ended", 1),
        (CPP.format(level="W") + "store.cc:1: LRU eviction is off", 0),
        (CPP.format(level="I") + "raylet.cc:1: Failed to see why this should matter", 0),
        ("Ray runtime started.", 0),
    ],
)
def test_what_tells(line: str, tells: int) -> None:
    assert telling.is_telling(line) is bool(tells)


def test_of_what_ray_says_each_line_counts_once_and_the_first_three_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootstrap.timeouts.READ_LOGS_AGAIN_S", 0.0)
    said: list[str] = []
    starter: Any = SimpleNamespace(printed=lambda: "\n".join(said))
    found = Telling(starter, tmp_path)
    found._since -= 1  # the clock of a file system is behind by up to a tick

    def look() -> list[str]:
        for _ in range(3):  # the first may only take what was read before
            found.look()
            if found._call is not None:
                found._call.ended.wait(10)
        return found.lines

    assert look() == []
    said += [CPP.format(level="W") + f"rpc.h:1: Failed to connect to GCS within {n} seconds." for n in (5, 10)]
    said.append("Traceback (most recent call last):")
    assert look() == ["Failed to connect to GCS within 5 seconds."]
    logs = tmp_path / f"session_2026-01-01_{os.getpid()}" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("".join(CPP.format(level="E") + f"a.cc:1: fault {name}\n" for name in "xyz"))
    assert look() == ["Failed to connect to GCS within 5 seconds.", "raylet.out: fault x", "raylet.out: fault y"]
