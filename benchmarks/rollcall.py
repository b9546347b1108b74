"""How many nodes one roll call can hold: simulated workers on this machine against one head.

    python benchmarks/rollcall.py --workers 1000 5000

The head runs in a process of its own; the workers, many to a process, are the real client over loopback TCP. All join
at once, which is the worst case: the head admits them, releases them the moment the last has said hello, is left alone
with their heartbeats, and tells them the verdict. What each column means is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from bootstrap.files.secret import Secret
from bootstrap.model import HeadAddress, Verdict
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.server import RollCall

RUN = "benchmark"
SECRET = Secret(b"0123456789abcdef" * 4, "the benchmark")
HEARTBEAT_TIMEOUT = 10.0
SETTLE = 2.0
"""Seconds between the release and the idle measurement."""
PATIENCE = 120.0
SPARE_FILES = 64
CONNECTIONS_PER_ADDRESS = 20_000
"""Each has a port of its own; the kernel has 28 232 for one pair of addresses by default."""


@dataclass(frozen=True)
class Figures:
    """Of one run; seconds, bytes, and the share of one core."""

    workers: int
    join: float
    """From the first hail to the last admission."""
    released: float
    """From the last hello to the last worker that heard the release."""
    fan_out: float
    """From the release's sending to the last worker that heard it."""
    told: float
    """From the verdict's sending to the last worker that heard it."""
    left: float
    """From the verdict's sending until the head knows that all have left."""
    cpu_join: float
    """Seconds of the head's own processor time until the last was admitted; other than time, it does not depend on what
    else runs on the machine, the simulated workers included."""
    cpu_verdict: float
    """Likewise for the verdict and all good-byes."""
    idle: float
    rss: int
    per_connection: float


def hello(rank: int, size: int) -> Hello:
    """The head's is that of rank 0."""
    address = f"10.{rank >> 16}.{rank >> 8 & 255}.{rank & 255}"
    return Hello(
        RUN,
        0,
        rank,
        size,
        f"node-{rank:05}",
        address,
        "0.1",
        "2.60.0",
        "3.11.7",
        64,
        8,
        "NVIDIA H100 80GB HBM3",
        time.time(),
    )


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def raise_file_limit(needed: int) -> None:
    """To the hard limit. :raises SystemExit: if that is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed + SPARE_FILES:
        sys.exit(f"{needed} connections need `ulimit -Hn` of at least {needed + SPARE_FILES}; it is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """One that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


async def lead(pipe: Pipe, size: int, idle: float) -> None:
    """The head's process."""
    workers = size - 1
    all_here = asyncio.Event()

    def changed(_member: Member, _what: str) -> None:
        if call.present == workers:
            all_here.set()

    call = RollCall(hello(0, size), SECRET, HEARTBEAT_TIMEOUT, on_change=changed)
    port = call.listen([free_port()])
    gc.collect()
    before, began = rss(), time.process_time()
    pipe.send(port)
    await asyncio.wait_for(all_here.wait(), PATIENCE)
    admitted, to_admit = time.monotonic(), time.process_time() - began
    call.release("10.0.0.0:6379")
    await asyncio.sleep(SETTLE)
    begin, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(idle)
    share = (time.process_time() - cpu) / (time.monotonic() - begin)
    held = rss()
    sent, cpu = time.monotonic(), time.process_time()
    await call.deliver(Verdict(0, "the workload ended with status 0"), PATIENCE)
    left, to_tell = time.monotonic() - sent, time.process_time() - cpu
    times = {"admitted": admitted, "sent": sent, "left": left, "cpu": (to_admit, to_tell)}
    pipe.send({**times, "idle": share, "rss": held, "before": before})
    call.close()


async def follow(pipe: Pipe, ranks: Sequence[int], size: int, address: HeadAddress) -> None:
    """A process of workers."""
    times: dict[str, list[float]] = {"hail": [], "hello": [], "released": [], "ended": []}

    def note(what: str) -> None:
        times[what].append(time.monotonic())

    async def work(rank: int) -> Membership:
        membership = Membership(hello(rank, size), SECRET, HEARTBEAT_TIMEOUT)
        membership.released.add_done_callback(lambda _: note("released"))
        membership.ended.add_done_callback(lambda _: note("ended"))
        note("hail")
        await membership.greet(address, PATIENCE)
        note("hello")
        await membership.enrol(PATIENCE)
        await membership.released
        await membership.ended  # which says good-bye
        return membership

    memberships = await asyncio.gather(*map(work, ranks))
    # Only now: a node's own clearing up takes no time from the others, as it would here.
    await asyncio.gather(*(membership.leave("verdict received") for membership in memberships))
    pipe.send({"first": min(times["hail"]), **{what: max(values) for what, values in times.items()}})


def in_process(role: str, files: int, pipe: Pipe, *arguments: Any) -> None:
    """What a child runs."""
    raise_file_limit(files)
    asyncio.run(lead(pipe, *arguments) if role == "head" else follow(pipe, *arguments))


def measure(workers: int, processes: int, idle: float) -> Figures:
    """One run."""
    spawn = multiprocessing.get_context("spawn")
    children: list[multiprocessing.process.BaseProcess] = []

    def start(role: str, files: int, *arguments: Any) -> Pipe:
        ours, theirs = spawn.Pipe()
        child = spawn.Process(target=in_process, args=(role, files, theirs, *arguments), daemon=True)
        child.start()
        theirs.close()
        children.append(child)
        return ours

    def receive(pipe: Pipe) -> Any:
        if not pipe.poll(PATIENCE + idle + SETTLE):
            sys.exit(f"no answer within {PATIENCE + idle + SETTLE:g} s")
        return pipe.recv()  # EOFError: the child has said on standard error what happened

    head = start("head", workers, workers + 1, idle)
    port = receive(head)
    shares = [range(1 + n, workers + 1, processes) for n in range(processes)]
    # An address of the loopback each, so that the ephemeral ports of one do not limit all.
    crowds = [
        start("workers", len(share), share, workers + 1, HeadAddress(f"127.0.0.{1 + n}", port))
        for n, share in enumerate(shares)
    ]
    there = receive(head)
    here = [receive(crowd) for crowd in crowds]
    for child in children:
        child.join()
    last = {what: max(crowd[what] for crowd in here) for what in ("hello", "released", "ended")}
    return Figures(
        workers=workers,
        join=there["admitted"] - min(crowd["first"] for crowd in here),
        released=last["released"] - last["hello"],
        fan_out=last["released"] - there["admitted"],
        told=last["ended"] - there["sent"],
        left=there["left"],
        cpu_join=there["cpu"][0],
        cpu_verdict=there["cpu"][1],
        idle=there["idle"],
        rss=there["rss"],
        per_connection=(there["rss"] - there["before"]) / workers,
    )


HEADING = (
    "| workers | all admitted (s) | admissions/s | last hello → all released (s) | release → all heard (s) "
    "| verdict → all heard (s) | verdict → all left (s) | head CPU: join, verdict (s) | head idle (% of a core) "
    "| head RSS (MB) | per connection (kB) |"
)


def row(f: Figures) -> str:
    """Of the table."""
    return (
        f"| {f.workers} | {f.join:.2f} | {f.workers / f.join:.0f} | {f.released:.3f} | {f.fan_out:.3f} | {f.told:.3f} "
        f"| {f.left:.3f} | {f.cpu_join:.2f}, {f.cpu_verdict:.2f} | {100 * f.idle:.1f} "
        f"| {f.rss / 1e6:.0f} | {f.per_connection / 1e3:.1f} |"
    )


def growth(figures: Sequence[Figures]) -> list[str]:
    """How the costs of the largest run compare with those of the smallest, per worker."""
    small, large = min(figures, key=lambda f: f.workers), max(figures, key=lambda f: f.workers)
    if small is large:
        return []
    lines = [f"growth from {small.workers} to {large.workers} workers, per worker (1.0 is linear, less is better):"]
    for name in ("cpu_join", "cpu_verdict", "idle", "per_connection", "join", "fan_out", "told"):
        one, other = getattr(small, name), getattr(large, name)
        if name != "per_connection":
            one, other = one / small.workers, other / large.workers
        lines.append(f"  {name:15} {other / one:5.2f}" if one > 0 else f"  {name:15} too small to tell")
    return lines


def main() -> None:
    """Prints a table, one row per number of workers."""
    parser = argparse.ArgumentParser(description="How many nodes one roll call can hold.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1000, 5000], metavar="N")
    parser.add_argument("--processes", type=int, default=2, help="that the workers are spread over (2)")
    parser.add_argument("--idle", type=float, default=20.0, metavar="S", help="seconds of the idle measurement (20)")
    options = parser.parse_args()
    if max(options.workers) > options.processes * CONNECTIONS_PER_ADDRESS:
        parser.error(f"--processes: one for each {CONNECTIONS_PER_ADDRESS} workers at least, for their ports")
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}, load before: {load}"
    )
    print(
        f"heartbeat time-out {HEARTBEAT_TIMEOUT:g} s, idle for {options.idle:g} s, {options.processes} worker processes"
    )
    print(HEADING)
    print("|" + "---:|" * (HEADING.count("|") - 1))
    figures = []
    for workers in options.workers:
        figures.append(measure(workers, options.processes, options.idle))
        print(row(figures[-1]), flush=True)
    print(*growth(figures), sep="\n")


if __name__ == "__main__":
    main()
