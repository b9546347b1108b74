"""GCS's node table, out of the files that every started raylet has left."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from ray._raylet import GcsClientOptions


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class GlobalState:
    def _initialize_global_state(self, options: GcsClientOptions) -> None:
        self._folder = Path(os.environ["FAKE_RAY_CLUSTER"])
        if (self._folder / "head.json").exists():
            known = json.loads((self._folder / "head.json").read_text())["address"]
            if options.address != known:
                raise ConnectionError(f"no GCS at {options.address}, but at {known}")

    def node_table(self) -> list[dict[str, Any]]:
        with (self._folder / "asked").open("ab") as file:  # a byte for every question
            file.write(b".")
        return nodes(self._folder)


def nodes(folder: Path) -> list[dict[str, Any]]:
    return [_row(json.loads(path.read_text())) for path in sorted(folder.glob("node-*.json"))]


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "NodeID": f"{node['pid']:056x}",
        "NodeManagerAddress": node["ip"],
        "Alive": node.get("host", socket.gethostname()) != socket.gethostname()
        or alive(node["pid"]),  # another host has its own numbers
        "NodeManagerPort": node.get("manager", 0),
        "ObjectManagerPort": node.get("objects", 0),
        "Labels": node["labels"],
        "Resources": node["resources"],
    }
