"""What the probes between the nodes cost: CPU of one probe, and of the head with many nodes.

    python benchmarks/probes.py --nodes 4 32 1000

One process answers, another one dials, over loopback; both are this package's own code. The head's share is that of its
plans, messages and results, with members that have no sockets; its dials are counted as probes without the packet test.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import multiprocessing
import time
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from typing import Any, cast

from bootstrap.files.secret import Secret
from bootstrap.log import Log
from bootstrap.model import Phase
from bootstrap.probe import exchange
from bootstrap.probe.dialer import Prober
from bootstrap.probe.messages import PROBE, Outcome, Target, parse_peers
from bootstrap.probe.responder import Responder
from bootstrap.raynode.command import RANK_LABEL, RUN_LABEL
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.server import RollCall
from bootstrap.rollcall.wire import decode, encode
from bootstrap.run.head_probes import HeadProbes

KEY = exchange.make_key(b"0123456789abcdef" * 4, "benchmark", 0)
ME = Hello("benchmark", 0, 0, None, "head", "127.0.0.1", "0", "0", "0", 1, 0, "", 0.0, probe=7400, probe_worker=19999)


def answer(pipe: Pipe) -> None:
    """Answer until the other end says so; send the port first, the CPU time last."""

    async def main() -> None:
        responder = Responder()
        pipe.send(responder.bind([0]))
        responder.begin(KEY, 1)
        begun = time.process_time()
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send(time.process_time() - begun)
        responder.close()

    asyncio.run(main())


async def dial(port: int, count: int, echo: bool) -> tuple[float, float]:
    """Return the seconds that so many probes take, and their CPU time."""
    done, results = asyncio.Event(), 0

    def take(outcome: Outcome) -> None:
        nonlocal results
        if outcome.error:
            raise RuntimeError(outcome.error)
        results += 1
        if results == count:
            done.set()

    prober, begun, cpu = Prober(KEY, 0, take), time.perf_counter(), time.process_time()
    prober.begin(Target(1, "127.0.0.1", PROBE, port, echo) for _ in range(count))
    await done.wait()
    return time.perf_counter() - begun, time.process_time() - cpu


def one_probe(count: int, echo: bool) -> tuple[float, float, float]:
    """Return the milliseconds that a probe takes, and of CPU at its two ends."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=answer, args=(theirs,))
    process.start()
    port = mine.recv()
    took, dialing = asyncio.run(dial(port, count, echo))
    mine.send("end")
    answering = mine.recv()
    process.join()
    return 1e3 * took / count, 1e3 * dialing / count, 1e3 * answering / count


class Wire:
    """Stands for a member's connection: what is sent to it is encoded as on the wire, and counted."""

    peer = "127.0.0.1"
    open = True

    def __init__(self) -> None:
        self.targets: list[Target] = []
        self.bytes = 0

    def send(self, message: Any) -> None:
        """Take a message."""
        line = encode(message)
        self.bytes += len(line)
        self.targets += parse_peers(decode(line))


async def head(nodes: int) -> tuple[float, int, int, int]:
    """Return the head's CPU seconds, messages of results, and the most packet tests and connections of one node."""
    call = RollCall(replace(ME, size=nodes), Secret(None, "none"), 10.0)
    probes = HeadProbes(call, Responder(), Log(stream=io.StringIO()), lambda: False)
    probes._prober.begin = lambda _targets: None  # type: ignore[method-assign]  # its dials are measured apart
    members = [
        Member(replace(ME, rank=rank, size=nodes), rank, Phase.WAITING, 0.0, connection=cast(Any, Wire()))
        for rank in range(1, nodes)
    ]
    table = [
        {
            "alive": True,
            "ip": "127.0.0.1",
            "labels": {RUN_LABEL: "hash", RANK_LABEL: str(rank)},
            "node_manager_port": 8077,
            "object_manager_port": 8076,
        }
        for rank in range(nodes)
    ]
    cpu = time.process_time()
    for member in members:
        call.members[member.rank] = member
        probes.on_joined(member)
    probes.on_released("127.0.0.1:6379")
    probes.on_nodes(table, "hash")
    messages = 0
    for member in members:
        for target in cast(Any, member.connection).targets:
            outcome = Outcome(target.rank, target.name, "", 100, 10**9)
            probes._hear(member, decode(encode(outcome.message())))
            messages += 1
    spent = time.process_time() - cpu
    dials = [cast(Any, member.connection).targets for member in members]
    return spent, messages, max(sum(t.echo for t in each) for each in dials), max(len(each) for each in dials)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 32, 1000])
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    print("| probe | takes (ms) | CPU of the dialer (ms) | CPU of the listener (ms) |\n|---|---:|---:|---:|")
    for what, echo in (("handshake alone", False), ("with the packet test", True)):
        print(f"| {what} | {' | '.join(f'{value:.2f}' for value in one_probe(given.count, echo))} |")
    print()
    print("| nodes | head CPU (s) | results | packet tests that a node begins, at most | its connections, at most |")
    print("|---:|---:|---:|---:|---:|")
    for nodes in given.nodes:
        spent, messages, echoes, connections = asyncio.run(head(nodes))
        print(f"| {nodes} | {spent:.3f} | {messages} | {echoes} | {connections} |")


if __name__ == "__main__":
    main()
