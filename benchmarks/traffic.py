"""The workload of ``cluster.py traffic``: what calls to an actor on another node and fetches from there cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CALLS, FETCHES, MEGABYTES = 1000, 7, 32


def write(name: str, value: float) -> None:
    """Write a number to a file that appears whole."""
    file = Path(f"/shared/{name}.new")
    file.write_text(f"{value}\n")
    file.rename(f"/shared/{name}")


@ray.remote(num_cpus=0)
class Elsewhere:
    """Lives on another node than the driver."""

    def nothing(self) -> None:
        """Answer at once."""

    def object(self) -> np.ndarray:
        """Return an object that the driver has to fetch."""
        return np.random.default_rng(0).integers(0, 256, MEGABYTES * 10**6, dtype=np.uint8)


def seconds(function: Callable[[], object]) -> float:
    """Return how long it takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def fetch(actor: ray.actor.ActorHandle) -> float:
    """Return the seconds from an object that is ready on the other node to its bytes on this one."""
    reference = actor.object.remote()
    ray.wait([reference], fetch_local=False)
    return seconds(lambda: ray.get(reference))


ray.init(address="auto", log_to_driver=False, logging_level="error")
here = ray.get_runtime_context().get_node_id()
other = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here)
actor = Elsewhere.options(scheduling_strategy=NodeAffinitySchedulingStrategy(other, soft=False)).remote()
time.sleep(10)  # the dashboard and Ray's agents are still starting, and take the CPU
for _ in range(CALLS // 10):
    ray.get(actor.nothing.remote())
write("call", seconds(lambda: [ray.get(actor.nothing.remote()) for _ in range(CALLS)]) / CALLS * 1000)
write("burst", CALLS * 5 / seconds(lambda: ray.get([actor.nothing.remote() for _ in range(CALLS * 5)])))
write("fetch", MEGABYTES / statistics.median(fetch(actor) for _ in range(FETCHES)))
