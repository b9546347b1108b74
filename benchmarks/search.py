"""How long a worker searches whose head gets its name after the worker has started, behind a caching resolver.

    sudo .venv/bin/python benchmarks/search.py --by name service --cache 0 5 30 --rounds 12

``name`` is the head's own in a headless Service, which does not exist until its endpoint is published; ``service`` is a
ClusterIP Service, whose name exists from the beginning. In each round both agents start at once and are published at
times spread over --published seconds. Runs on hosts made of namespaces (bootstrap/namespaces/), so it needs root; Ray
does not start.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import publication
from hosts import Hosts, make_hosts, wait_for

MOST = 90.0
"""Seconds for a worker to find its head."""


def seconds(hosts: Hosts, by: str, run: str, published: tuple[float, float]) -> float:
    """Return the seconds from the publication of the head's endpoint until the head has the worker."""
    begun = time.monotonic()
    agents, publisher = publication.start(hosts, by, run, published)
    wait_for(lambda: "rank 1: node-1" in hosts[0].err(agents[0]), timeout=MOST, what="the worker at the head")
    took = time.monotonic() - begun
    publisher.join()
    for agent in agents:
        agent.wait(timeout=60)
    return took - published[0]


def main() -> None:
    """Run the rounds and print the distribution of each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", nargs="+", choices=publication.BY, default=publication.BY)
    parser.add_argument("--cache", nargs="+", type=float, default=[0.0, 5.0, 30.0], help="seconds; of any answer")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--published", type=float, default=3.0, help="the last endpoint's time in seconds")
    options = parser.parse_args()
    spread = [options.published * i / max(1, options.rounds - 1) for i in range(options.rounds)]
    times = list(zip(spread, random.Random(13).sample(spread, len(spread)), strict=True))
    visible = [str(publication.REPOSITORY), sys.prefix]
    for cache in options.cache:
        with (
            tempfile.TemporaryDirectory() as base,
            make_hosts(2, base=Path(base) / "hosts", dns={}, dns_cache=cache, visible=visible) as hosts,
        ):
            for by in options.by:
                took = [seconds(hosts, by, f"{by}-{i}", published) for i, published in enumerate(times)]
                median, mean, most = statistics.median(took), statistics.mean(took), max(took)
                print(f"cache {cache:g} s, by {by}: median {median:.2f} s, mean {mean:.2f} s, most {most:.2f} s")
                print(f"    each: {' '.join(f'{each:.1f}' for each in took)}", flush=True)


if __name__ == "__main__":
    main()
