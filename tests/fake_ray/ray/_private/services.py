"""How a driver finds a Ray."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ray._private.state import nodes


def canonicalize_bootstrap_address_or_die(address: str) -> str:
    if address != "auto":
        return address
    head = Path(os.environ["FAKE_RAY_CLUSTER"]) / "head.json"
    if not head.exists():
        raise ConnectionError("Could not find any running Ray instance.")
    return str(json.loads(head.read_text())["address"])


def _find_address_from_flag(flag: str) -> set[str]:
    """The raylets of this machine; none where FAKE_RAY holds the word ``elsewhere``."""
    if flag != "--node_id":
        raise ValueError(flag)
    elsewhere = "elsewhere" in os.environ.get("FAKE_RAY", "").split()
    table = [] if elsewhere else nodes(Path(os.environ["FAKE_RAY_CLUSTER"]))
    return {node["NodeID"] for node in table if node["Alive"]}
