"""The head's part in the probes: it sends each node its plan, and says which pairs of nodes do not reach each other."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bootstrap import timeouts
from bootstrap.log import Log
from bootstrap.model import Phase
from bootstrap.parsers import host_port
from bootstrap.probe import exchange, messages
from bootstrap.probe.dialer import Prober
from bootstrap.probe.messages import GCS, NODE_MANAGER, OBJECT_MANAGER, PROBE, WORKER, Outcome, Target
from bootstrap.probe.responder import Responder
from bootstrap.raynode.command import RANK_LABEL, RUN_LABEL
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import MOST_FINDINGS, Member
from bootstrap.rollcall.server import RollCall
from bootstrap.rollcall.wire import Message
from bootstrap.run.pairs import ALL_PAIRS, Pairs, Place, plan

_HEADS_AT_ONCE = 32
"""Probes that the head has under way at the same time: it dials every node back."""


class HeadProbes:
    """Plans the probes of a run, runs the head's own, and logs what they find. A finding never ends the run.

    :param stopping: returns whether the run is ending, when nodes leave and connections break.
    """

    def __init__(self, roll_call: RollCall, responder: Responder, log: Log, stopping: Callable[[], bool]) -> None:
        self.pairs = Pairs()
        self.changed = asyncio.Event()
        """Set with each result."""
        self._roll_call, self._responder, self._log, self._stopping = roll_call, responder, log, stopping
        me = roll_call.me
        key = exchange.make_key(roll_call.secret.value, me.run, me.attempt)
        self._prober = Prober(key, 0, self._take_own, _HEADS_AT_ONCE)
        self._joined: list[int] = [0]
        self._registered: list[int] = []
        self._ray: dict[int, list[Target]] = {}
        self._gcs: tuple[str, int] | None = None
        self._report: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None
        self._over = False
        self.pairs.places[0] = Place(me.host, me.ip)
        roll_call.on_probed = self._hear
        responder.begin(key, 0)

    @property
    def ranks(self) -> list[int]:
        """Return the ranks of the nodes that are here."""
        return sorted(self._joined)

    def on_joined(self, member: Member) -> None:
        """Have a node that has joined probe the earlier ones, and the other way round."""
        peer = member.connection.peer if member.connection is not None else member.hello.ip
        source = "" if peer in (member.hello.ip, "?") or peer.startswith("127.") else peer
        if member.rank in self.pairs.places:  # a replacement of one that was lost
            self.pairs.give_up(member.rank)
        self.pairs.places[member.rank] = Place(member.hello.host, member.hello.ip, source, member.hello.via)
        if self._gcs is not None:
            self._expect_gcs(member.rank)
        if self._over:
            self._send({member.rank: []})
            return
        earlier = [rank for rank in self._joined if rank != member.rank]
        self._joined = [*earlier, member.rank]
        self.changed.set()
        self._begin(plan(member.rank, earlier, self._roll_call.me.size), self._answered)

    def on_lost(self, member: Member) -> None:
        """Stop waiting for the results of a node that has gone, and for those about it."""
        if self._over or self._stopping():
            return
        if member.phase is Phase.FAILED:
            self.pairs.suspect(member.rank)
            self.report()  # what was found about it may be why
        for ranks in (self._joined, self._registered):
            if member.rank in ranks:
                ranks.remove(member.rank)
        self._ray.pop(member.rank, None)
        self.pairs.give_up(member.rank)
        self._took()

    def on_released(self, gcs: str) -> None:
        """Note that the members dial GCS at this address now."""
        host, port = host_port(gcs)
        self._gcs = (host, port or 0)
        for rank in self._joined[1:]:
            self._expect_gcs(rank)

    def _expect_gcs(self, rank: int) -> None:
        if self._gcs is not None:
            self.pairs.expect(rank, Target(0, self._gcs[0], GCS, self._gcs[1]))

    def on_nodes(self, nodes: Iterable[Mapping[str, Any]], run_hash: str) -> None:
        """Have the nodes that are new in GCS's table probe Ray's own ports of the others, and the other way round."""
        pairs = []
        for node in nodes:
            rank = node["labels"].get(RANK_LABEL, "")
            if self._over or not node["alive"] or node["labels"].get(RUN_LABEL) != run_hash or not rank.isdecimal():
                continue
            if (number := int(rank)) in self._ray or number not in self._joined:
                continue
            ports = {NODE_MANAGER: node.get("node_manager_port"), OBJECT_MANAGER: node.get("object_manager_port")}
            found = [Target(number, node["ip"], name, port) for name, port in ports.items() if port]
            self._ray[number] = [*found, *self._answered(number, (WORKER,))]
            pairs += plan(number, self._registered, self._roll_call.me.size)
            self._registered.append(number)
        self._begin(pairs, lambda rank: self._ray[rank])

    def probe_workers_range(self) -> None:
        """Have the nodes probe each other's port of the workers' range, in a run without Ray."""
        for number, rank in enumerate(self._joined):
            pairs = plan(rank, self._joined[:number], self._roll_call.me.size) if number else []
            self._begin(pairs, lambda to: self._answered(to, (WORKER,)))

    def _answered(self, rank: int, names: Sequence[str] = (PROBE,)) -> list[Target]:
        """Return a node's ports on which its agent answers, as it has said in its hello."""
        hello = self._hello(rank)
        ports = {PROBE: hello.probe, WORKER: hello.probe_worker}
        return [Target(rank, hello.ip, name, ports[name], name == PROBE) for name in names if ports[name]]

    def _hello(self, rank: int) -> Hello:
        return self._roll_call.members[rank].hello if rank else self._roll_call.me

    def _begin(self, pairs: Iterable[tuple[int, int]], targets_of: Callable[[int], Sequence[Target]]) -> None:
        many = max(self._roll_call.me.size or 0, len(self._joined)) > ALL_PAIRS
        by_source: dict[int, list[Target]] = {}
        for source, to in pairs:
            targets = targets_of(to)
            if many and source == 0:  # the packet test with all nodes would load the head's link
                targets = [Target(t.rank, t.ip, t.name, t.port) for t in targets]
            by_source.setdefault(source, []).extend(targets)
        for source, targets in by_source.items():
            for target in targets:
                self.pairs.expect(source, target)
        self._prober.begin(by_source.pop(0, ()))
        self._send(by_source)

    def _send(self, by_source: Mapping[int, Sequence[Target]]) -> None:
        for rank, targets in by_source.items():
            member = self._roll_call.members.get(rank)
            if member is not None and member.connection is not None:
                for message in [messages.OVER] if self._over else messages.peers(targets):
                    member.connection.send(message)

    def _hear(self, member: Member, message: Message) -> None:
        self._take(member.rank, messages.parse_probed(message))

    def _take_own(self, outcome: Outcome) -> None:
        self._take(0, outcome)

    def _take(self, rank: int, outcome: Outcome) -> None:
        if self._over:
            return  # its target may have stopped answering by then
        if self.pairs.record(rank, outcome) and self._report is None:
            loop = asyncio.get_running_loop()
            self._report = loop.call_later(timeouts.PROBE_COLLECT_S, self.report)
        self._took()

    def _took(self) -> None:
        self.changed.set()
        if self._last is not None and not self.pairs.outstanding:
            self._finish()

    def report(self) -> None:
        """Log the failures since the last report, and keep each with the node that it is about."""
        if self._report is not None:
            self._report.cancel()
            self._report = None
        if self._stopping():
            return
        lines, findings = self.pairs.report()
        for line in lines:
            self._log.warn(line)
        for rank, finding in findings:
            member = self._roll_call.members.get(rank)
            if member is not None and len(member.findings) < MOST_FINDINGS and finding not in member.findings:
                member.findings.append(finding)

    def finish_soon(self) -> None:
        """End the probes once all results are in: the workload starts. Later nodes are not probed."""
        self._last = asyncio.get_running_loop().call_later(timeouts.PROBES_LAST_S, self._finish)
        self._took()

    def _finish(self) -> None:
        if self._over:
            return
        self.report()
        for line in self.pairs.slow():
            self._log.warn(line)
        self._over = True
        self._send(dict.fromkeys(self._joined[1:], ()))
        self.close()

    def close(self) -> None:
        """Stop probing and answering, and report what is left."""
        if self._report is not None:
            self.report()
        if self._last is not None:
            self._last.cancel()
        self._prober.close()
        self._responder.close()
