"""The workload of ``cluster.py ready``: says when a task has run on every node, and when the dashboard answers."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def stamp(name: str) -> None:
    """Write the time to a file that appears whole."""
    file = Path(f"/shared/{name}.new")
    file.write_text(f"{time.time()}\n")
    file.rename(f"/shared/{name}")


@ray.remote
def nothing() -> None:
    """Needs a worker process."""


ray.init(address="auto", log_to_driver=False, logging_level="error")
alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
ray.get([nothing.options(scheduling_strategy=NodeAffinitySchedulingStrategy(i, soft=False)).remote() for i in alive])
stamp("used")
while socket.socket().connect_ex(("127.0.0.1", 8265)):
    time.sleep(0.02)
stamp("dashboard")
