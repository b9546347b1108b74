"""Which nodes reach each other: the plan of the probes, their results, and what both mean in words.

Pure: :mod:`bootstrap.run.head_probes` sends the plan to the nodes and logs the words.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bootstrap.model import join_host_port
from bootstrap.probe.dialer import SILENT, describe
from bootstrap.probe.messages import GCS, PROBE, Outcome, Target

ALL_PAIRS = 32
"""With up to that many nodes each probes each; with more, the one that joined before it and :data:`MORE` others."""
MORE = 3
_LINES = 8
"""Lines about bad pairs in one report."""
_MOST_REPORTED = 200
"""Bad pairs that are reported in a run; the rest only count."""

_LOOK = "on both nodes `nft list ruleset`, `iptables -S`, the NetworkPolicy; --probe-port=PORT where few ports are open"

Pair = tuple[int, int]
"""The ranks of the node that probes, and of the one that is probed."""
Sample = Callable[[Sequence[int], int], Iterable[int]]


def plan(new: int, earlier: Sequence[int], size: int | None, sample: Sample = random.sample) -> list[Pair]:
    """Return the pairs to probe when a node comes.

    :param new: its rank.
    :param earlier: the ranks that came before it, in that order.
    :param size: nodes in the run, if that is known.
    """
    if not earlier:
        return []
    if max(size or 0, len(earlier) + 1) <= ALL_PAIRS:
        return [pair for other in earlier for pair in ((new, other), (other, new))]
    *others, before = earlier
    chosen = [before, *sample(others, min(MORE, len(others)))]
    pairs = [(before, new), (0, new), *((new, other) for other in chosen)]  # the head dials each node back
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


@dataclass(frozen=True, slots=True)
class Place:
    """What a line says about a node."""

    host: str
    ip: str
    source: str = ""
    """The address that its connection to the head comes from, if that is another one than ``ip``."""
    via: str = ""
    """The interface that has that address."""


@dataclass
class Pairs:
    """The probes of one run: those that are planned, and their results."""

    places: dict[int, Place] = field(default_factory=dict)
    targets: dict[tuple[int, int, str], Target] = field(default_factory=dict)
    """What was planned, by the ranks of the pair and the port's name."""
    outcomes: dict[tuple[int, int, str], Outcome] = field(default_factory=dict)
    _reported: int = 0
    _named: dict[int, int] = field(default_factory=dict)
    """The ranks that were named for what the bad pairs have in common, and how many pairs were bad then."""
    _new: dict[Pair, list[str]] = field(default_factory=dict)
    """Failures that were not reported yet: the names of the ports."""

    def expect(self, rank: int, target: Target) -> None:
        """Note that the node of this rank will probe the target."""
        key = (rank, target.rank, target.name)
        self.targets[key] = target
        if self.outcomes.pop(key, None) is not None:
            self._new.pop(key[:2], None)

    def record(self, rank: int, outcome: Outcome) -> bool:
        """Take a result from the node of this rank; return whether it is new, and a failure.

        A result that was not asked for changes nothing.
        """
        key = (rank, outcome.rank, outcome.name)
        if key not in self.targets or key in self.outcomes:
            return False
        self.outcomes[key] = outcome
        if outcome.error:
            self._new.setdefault((rank, outcome.rank), []).append(outcome.name)
        return bool(outcome.error)

    def suspect(self, rank: int) -> None:
        """Count the head's unanswered probe of a node that has failed, if its connection comes from another address.

        A probe has seconds to be answered; Ray, which announces the same address, may fail before.
        """
        place, key = self.places.get(rank), (0, rank, PROBE)
        if place is not None and place.source and key in self.targets and key not in self.outcomes:
            self.record(0, Outcome(rank, PROBE, "no answer so far"))

    def give_up(self, rank: int) -> None:
        """Forget what the node of this rank, which is lost, has still to probe or to answer."""
        if self.outstanding:  # in a large run each look at all of them takes milliseconds
            for key in [key for key in self.targets if key not in self.outcomes and rank in key[:2]]:
                del self.targets[key]
        self._new = {pair: names for pair, names in self._new.items() if rank not in pair}

    @property
    def outstanding(self) -> int:
        """Return how many results are still to come."""
        return len(self.targets) - len(self.outcomes)

    @property
    def bad(self) -> set[Pair]:
        """Return the pairs with a failure."""
        return {(source, to) for (source, to, _), outcome in self.outcomes.items() if outcome.error}

    def name(self, rank: int) -> str:
        """Return a node as people know it: ``rank 2 (node-2)``, or ``the head (node-0)``."""
        place = self.places.get(rank)
        who = "the head" if rank == 0 else f"rank {rank}"
        return f"{who} ({place.host})" if place else who

    def report(self) -> tuple[list[str], list[tuple[int, str]]]:
        """Return the lines about the failures since the last report, and which rank each finding is about."""
        new, self._new = self._new, {}
        about = [(pair, self._line(pair, names)) for pair, names in sorted(new.items())]
        shown = about[: max(0, min(_LINES, _MOST_REPORTED - self._reported))]
        self._reported += len(about)
        if not shown:
            return [], []
        lines = [line for _, line in shown]
        if more := len(about) - len(shown):
            lines.append(f"and {more} more pairs of nodes that do not reach each other")
        # GCS and a dial-back concern one node; a finding about two may concern either.
        findings = [(pair[0] or pair[1], line) for pair, line in shown if 0 in pair]
        if (culprit := self.culprit()) is not None and self._is_news(culprit[0]):
            lines.append(culprit[1])
            findings.append(culprit)
        elif not any("fix: " in line for line in lines):
            lines[-1] += f"; fix: {_LOOK}"
        return lines, findings

    def _is_news(self, culprit: int) -> bool:
        """Return whether to name this node: once, and again when twice as many pairs are bad."""
        bad = len(self.bad)
        if self._named.get(culprit, 0) * 2 > bad:
            return False
        self._named[culprit] = bad
        return True

    def _line(self, pair: Pair, names: Sequence[str]) -> str:
        targets = [self.targets[pair[0], pair[1], name] for name in names]
        first = self.outcomes[pair[0], pair[1], names[0]]
        to, source = targets[0], self.name(pair[0])
        if GCS in names:
            to = self.targets[pair[0], pair[1], GCS]
            where = join_host_port(to.ip, to.port)
            error = self.outcomes[pair[0], pair[1], GCS].error
            look = f"`nft list ruleset` on both, a NetworkPolicy or --gcs-port; from there: nc -vz {to.ip} {to.port}"
            if "own address" in error:
                look = "--node-ip=ADDRESS or --interface=NAME on all nodes, with one that no two nodes share"
            elif "no route" in error or "unreachable" in error:
                look = f"`ip route get {to.ip}` there; or --node-ip=ADDRESS or --interface=NAME on the head"
            return f"{source} reaches the roll call but not GCS {where} ({error}); fix: {look}"
        if first.stalled:
            look = f"`ip link` on both shows the MTU, `ping -M do -s 1472 {to.ip}` what gets through"
            return f"{source} -> {self.name(pair[1])} at {to.ip}: {first.error}: an MTU black hole? fix: {look}"
        ports = ", ".join(describe(target) for target in targets)
        line = f"{source} does not reach {self.name(pair[1])} at {ports}: {first.error}"
        place = self.places.get(pair[1])
        if pair[0] == 0 and place is not None and place.source:
            line += f"; its connection comes from {place.source}" + (f" ({place.via})" if place.via else "")
            interface = f" or --interface={place.via}" if place.via else ""
            line += f"; fix: --node-ip={place.source}{interface} on {place.host}, or open a firewall towards {place.ip}"
        return line

    def culprit(self) -> tuple[int, str] | None:
        """Return the rank that most bad pairs have in common, and a line about it; None if there is none."""
        bad = self.bad
        counts = Counter(rank for pair in bad for rank in pair)
        if len(bad) < 2 or not counts:
            return None
        (rank, most), *others = counts.most_common(2)
        if others and others[0][1] == most:
            return None
        where = self.places[rank].host if rank in self.places else f"rank {rank}"
        if all(self._is_silent(pair) for pair in bad if pair[1] == rank) and any(pair[1] == rank for pair in bad):
            how = "as the one whose agent does not answer, although its kernel does: stopped, or starved of CPU"
            look = f"on {where}: `ps -eo pid,stat,wchan:20,args`, where T is stopped, and /proc/pressure/cpu"
            return rank, f"{self.name(rank)} is in {most} of {len(bad)} bad pairs, {how}; fix: look {look}"
        if all(pair[1] == rank for pair in bad if rank in pair):
            how, chain = "as the one that is not reached: what is sent to it gets lost", "INPUT"
        elif all(pair[0] == rank for pair in bad if rank in pair):
            how, chain = "as the one that does not reach: what it sends gets lost", "OUTPUT"
        else:
            how, chain = "in both directions", ""
        iptables = f"iptables -S {chain}".rstrip()
        look = f"on {where}: `nft list ruleset`, `{iptables}`, `ip -brief address` (--interface), its NetworkPolicy"
        return rank, f"{self.name(rank)} is in {most} of {len(bad)} bad pairs, {how}; fix: look {look}"

    def _is_silent(self, pair: Pair) -> bool:
        errors = [outcome.error for (*both, _), outcome in self.outcomes.items() if tuple(both) == pair]
        return all(error.startswith(SILENT) for error in errors if error)

    def slow(self) -> list[str]:
        """Return a line for each node whose throughput or round trip is far off the others' median."""
        lines = []
        rates, trips = self._medians(lambda outcome: outcome.rate), self._medians(lambda outcome: outcome.round_trip)
        for rank, rate in rates.items():
            usual = median(other for each, other in rates.items() if each != rank)
            if len(rates) > _FEWEST and rate < usual / _TIMES and rate < _SLOW_RATE:
                what = f"{self.name(rank)} is slow: {_mbit(rate)} with other nodes, whose median is {_mbit(usual)}"
                lines.append(f"{what}; fix: there `ip -s link` shows errors and drops, `ethtool` the link's speed")
        for rank, trip in trips.items():
            usual = median(other for each, other in trips.items() if each != rank)
            if len(trips) > _FEWEST and trip > usual * _TIMES and trip > _SLOW_TRIP:
                what = f"{self.name(rank)} is far: {_ms(trip)} to other nodes, whose median is {_ms(usual)}"
                lines.append(f"{what}; fix: there `traceroute` to another node shows the way; start all in one place")
        return lines

    def _medians(self, measure: Callable[[Outcome], int]) -> Mapping[int, float]:
        """Return each node's median over all its pairs."""
        found: dict[int, list[int]] = {}
        for (source, to, _), outcome in self.outcomes.items():
            if value := measure(outcome):
                for rank in (source, to):
                    found.setdefault(rank, []).append(value)
        return {rank: median(values) for rank, values in sorted(found.items())}

    def summary(self) -> str:
        """Return how many pairs were probed, with the medians of round trip and throughput."""
        good = [outcome for outcome in self.outcomes.values() if not outcome.error]
        probed = len({key[:2] for key in self.outcomes})
        if not probed:
            return "one node: there is nothing to probe" if len(self.places) == 1 else "no pair of nodes was probed"
        trip = median(outcome.round_trip for outcome in good if outcome.round_trip)
        rate = median(outcome.rate for outcome in good if outcome.rate)
        measured = f"; median round trip {_ms(trip)}, throughput {_mbit(rate)}" if trip and rate else ""
        return f"{probed - len(self.bad)} of {probed} pairs reach each other{measured}"


_FEWEST, _TIMES = 4, 10
"""How many other nodes it takes to call one slow, and how far it must be off their median."""
_SLOW_RATE, _SLOW_TRIP = 100e6, 20_000
"""Bits per second and microseconds that no node is called slow for: any network of a cluster is better."""


def median(values: Iterable[float]) -> float:
    """Return the median, the lower of two; 0 without values."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] if ordered else 0


def _mbit(rate: float) -> str:
    return f"{rate / 1e6:.3g} Mbit/s" if rate < 1e9 else f"{rate / 1e9:.3g} Gbit/s"


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.3g} ms"
