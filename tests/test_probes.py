"""The probes' protocol over real sockets, the plan of pairs, and what the results mean in words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rollcall_peers import PATIENCE, SECRET, free_port, looped

from bootstrap import timeouts
from bootstrap.probe import exchange, messages
from bootstrap.probe.dialer import Prober, probe
from bootstrap.probe.messages import GCS, NODE_MANAGER, PROBE, Outcome, Target
from bootstrap.probe.responder import Responder
from bootstrap.run.check_all import matrix
from bootstrap.run.pairs import ALL_PAIRS, MORE, Pairs, Place, plan

RUN = "run/7 of ü"
KEY = exchange.make_key(SECRET, RUN, 0)
HERE = "127.0.0.1"


@contextlib.contextmanager
def a_responder(rank: int = 2, key: bytes = KEY) -> Iterator[int]:
    responder = Responder()
    port = responder.bind([0])
    responder.begin(key, rank)
    try:
        yield port
    finally:
        responder.close()


def target(port: int, rank: int = 2, **changes: Any) -> Target:
    return Target(**{"rank": rank, "ip": HERE, "name": PROBE, "port": port, "echo": True, **changes})


@looped
async def test_a_node_of_the_run_answers_and_echoes() -> None:
    with a_responder() as port:
        outcome = await probe(target(port), KEY, 1)
    assert outcome.error == ""
    assert outcome.rate > 0
    assert 0 < outcome.round_trip < timeouts.PROBE_S * 1e6


@looped
async def test_without_the_packet_test_nothing_is_measured_but_the_round_trip() -> None:
    with a_responder() as port:
        outcome = await probe(target(port, echo=False), KEY, 1)
    assert (outcome.error, outcome.rate) == ("", 0)


@looped
async def test_a_node_that_is_not_ready_yet_keeps_the_dialer_waiting() -> None:
    responder = Responder()
    port = responder.bind([0])
    probing = asyncio.ensure_future(probe(target(port), KEY, 1))
    done, _ = await asyncio.wait([probing], timeout=0.05)
    assert not done
    responder.begin(KEY, 2)
    assert (await probing).error == ""
    responder.close()


@pytest.mark.parametrize(
    ("there", "mine", "says"),
    [
        (3, 1, f"rank 3 answers there: two nodes claim {HERE}"),
        (1, 1, f"this node itself answers there: two nodes claim {HERE}"),
    ],
)
@looped
async def test_another_node_of_the_run_answers(there: int, mine: int, says: str) -> None:
    with a_responder(there) as port:
        assert (await probe(target(port), KEY, mine)).error.startswith(says)


@pytest.mark.parametrize("other", [exchange.make_key(SECRET, RUN, 1), exchange.make_key(None, RUN, 0)])
@looped
async def test_another_run_or_attempt_or_secret_is_no_node_of_this_run(other: bytes) -> None:
    with a_responder(2, other) as port:
        assert (await probe(target(port), KEY, 1)).error == "another program, or a node of another run, answers there"


@looped
async def test_another_program_answers() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    assert (await probe(target(port), KEY, 1)).error == "another program, or a node of another run, answers there"
    server.close()


@looped
async def test_nothing_listens() -> None:
    assert (await probe(target(free_port()), KEY, 1)).error == "connection refused"


@looped
async def test_a_port_that_does_not_speak() -> None:
    """It is enough for a port of Ray's, and too little for an agent's."""
    with socket.create_server((HERE, 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeouts, "PROBE_S", 0.2)
        port = silent.getsockname()[1]
        assert (await probe(target(port, name=NODE_MANAGER), KEY, 1)).error == ""
        assert (await probe(target(port), KEY, 1)).error == "it accepts the connection and says nothing in 0.2 s"


@looped
async def test_large_packets_that_do_not_come_back() -> None:
    """A target that reads the first line only, as behind a link whose MTU is smaller than both ends believe."""
    loop = asyncio.get_running_loop()
    with socket.create_server((HERE, 0)) as listening, pytest.MonkeyPatch.context() as patch:
        listening.setblocking(False)
        patch.setattr(timeouts, "PROBE_S", 0.3)
        probing = asyncio.ensure_future(probe(target(listening.getsockname()[1]), KEY, 1))
        connected, _ = await loop.sock_accept(listening)
        with connected:
            theirs = exchange.read_ask(KEY, await loop.sock_recv(connected, exchange.MAX_LINE))
            await loop.sock_sendall(connected, exchange.answer(KEY, theirs, "ab" * 16, 2))
            outcome = await probing
    assert outcome.stalled
    assert outcome.error.startswith("small packets come through, large ones get lost on the way ")
    assert f"0 of {exchange.PAYLOAD} bytes" in outcome.error


@looped
async def test_a_few_probes_at_a_time() -> None:
    under_way = most = 0

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        writer.close()

    server = await asyncio.start_server(serve, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    outcomes: list[Outcome] = []
    done = asyncio.Event()

    def take(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 12:
            done.set()

    prober = Prober(KEY, 1, take, at_once=3)
    prober.begin(target(port, rank) for rank in range(2, 14))
    await asyncio.wait_for(done.wait(), 10)
    assert most == 3
    assert {outcome.rank for outcome in outcomes} == set(range(2, 14))
    server.close()


@looped
async def test_a_closed_prober_says_nothing_more() -> None:
    outcomes: list[Outcome] = []
    prober = Prober(KEY, 1, outcomes.append)
    prober.begin([target(free_port())])  # which is refused at once
    await asyncio.sleep(0)
    prober.close()
    await asyncio.sleep(0.2)
    assert outcomes == []


def test_messages_survive_the_wire() -> None:
    outcome = Outcome(3, GCS, "no answer in 5 s", 12, 0, stalled=True)
    assert messages.parse_probed(outcome.message()) == outcome
    targets = [Target(rank, f"10.0.0.{rank}", PROBE, 7400, rank % 2 == 0) for rank in range(1, 50)]
    sent = list(messages.peers(targets))
    assert len(sent) == 2
    assert [each for message in sent for each in messages.parse_peers(message)] == targets
    assert messages.is_over(messages.OVER)
    assert messages.parse_peers(messages.OVER) == []


@pytest.mark.parametrize(
    "message",
    [
        {"t": "probed", "rank": 1, "port": "ssh", "error": "", "us": 1, "rate": 1},
        {"t": "probed", "rank": 1, "port": "gcs", "error": "", "us": -1, "rate": 1},
        {"t": "probed", "rank": 1, "port": "gcs", "error": "", "us": 1},
        {"t": "probed", "rank": "1", "port": "gcs", "error": "", "us": 1, "rate": 1},
    ],
)
def test_malformed_results(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="probed"):
        messages.parse_probed(message)


_ROW = {"rank": 1, "ip": "10.0.0.1", "port": "probe", "number": 1}


@pytest.mark.parametrize(
    "rows",
    [None, [1], [{}], [_ROW] * 33, [{**_ROW, "number": 0}], [{**_ROW, "number": 1 << 16}], [{**_ROW, "port": "x"}]],
)
def test_malformed_peers(rows: object) -> None:
    with pytest.raises(ValueError, match="peers"):
        messages.parse_peers({"t": "peers", "peers": rows})


def test_a_long_error_is_cut() -> None:
    assert len(messages.parse_probed(Outcome(1, PROBE, "x" * 10_000).message()).error) == 256


@pytest.mark.parametrize("size", [ALL_PAIRS, None])
def test_few_nodes_probe_all_pairs(size: int | None) -> None:
    joined: list[int] = []
    pairs = []
    for rank in range(ALL_PAIRS):
        pairs += plan(rank, joined, size)
        joined.append(rank)
    assert sorted(pairs) == [(a, b) for a in range(ALL_PAIRS) for b in range(ALL_PAIRS) if a != b]


def test_many_nodes_probe_a_chain_and_a_few_more() -> None:
    joined: list[int] = []
    pairs: list[tuple[int, int]] = []
    for rank in range(1000):
        pairs += plan(rank, joined, 1000)
        joined.append(rank)
    assert len(pairs) == len(set(pairs)) <= 1000 * (MORE + 3)
    assert {(rank, rank - 1) for rank in range(1, 1000)} <= set(pairs)
    assert {(rank - 1, rank) for rank in range(1, 1000)} <= set(pairs)
    assert {(0, rank) for rank in range(1, 1000)} <= set(pairs)  # the head dials every node back


def several(*bad: tuple[int, int], nodes: int = 4, error: str = "no answer in 5 s", **places: Place) -> Pairs:
    pairs = Pairs({rank: Place(f"node-{rank}", f"10.0.0.{rank}") for rank in range(nodes)})
    pairs.places |= {int(name.removeprefix("rank")): place for name, place in places.items()}
    for a in range(nodes):
        for b in range(nodes):
            if a != b:
                pairs.expect(a, Target(b, pairs.places[b].ip, PROBE, 7400))
                trouble = error if (a, b) in bad else ""
                pairs.record(a, Outcome(b, PROBE, trouble, 100, 0 if trouble else 10**9))
    return pairs


def test_one_bad_pair_is_one_line_and_only_once() -> None:
    pairs = several((1, 2))
    ((line,), findings) = pairs.report()
    what, _, fix = line.partition("; fix: ")
    assert what == "rank 1 (node-1) does not reach rank 2 (node-2) at 10.0.0.2:7400 (its probe port): no answer in 5 s"
    assert fix.startswith("on both nodes `nft list ruleset`")
    assert findings == []
    assert pairs.report() == ([], [])


@pytest.mark.parametrize(
    ("bad", "how"),
    [
        ([(0, 2), (1, 2), (3, 2)], "as the one that is not reached: what is sent to it gets lost"),
        ([(2, 0), (2, 1), (2, 3)], "as the one that does not reach: what it sends gets lost"),
        ([(0, 2), (2, 1)], "in both directions"),
    ],
)
def test_the_node_that_bad_pairs_have_in_common(bad: list[tuple[int, int]], how: str) -> None:
    lines, findings = several(*bad).report()
    assert len(lines) == len(bad) + 1
    assert lines[-1].startswith(
        f"rank 2 (node-2) is in {len(bad)} of {len(bad)} bad pairs, {how}; fix: look on node-2: "
    )
    assert (2, lines[-1]) in findings


def test_no_node_is_blamed_for_what_two_share() -> None:
    assert several((1, 2), (2, 1)).culprit() is None
    assert several((0, 1), (2, 3)).culprit() is None


def test_many_bad_pairs_are_few_lines() -> None:
    pairs = several(*((a, b) for a in range(12) for b in range(12) if a != b and a < 6 <= b), nodes=12)
    lines, _ = pairs.report()
    assert len(lines) <= 10
    assert lines[8].startswith("and 28 more pairs of nodes that do not reach each other")


def test_what_was_not_asked_for_changes_nothing() -> None:
    pairs = several()
    assert not pairs.record(1, Outcome(2, GCS, "refused"))
    assert not pairs.record(77, Outcome(2, PROBE, "refused"))
    assert not pairs.record(1, Outcome(2, PROBE, "another result"))
    assert pairs.report() == ([], [])
    assert len(pairs.outcomes) == 12


def test_a_node_that_is_lost_is_not_waited_for() -> None:
    pairs = Pairs()
    pairs.expect(1, Target(2, "10.0.0.2", PROBE, 1))
    pairs.expect(2, Target(1, "10.0.0.1", PROBE, 1))
    pairs.expect(3, Target(1, "10.0.0.1", PROBE, 1))
    pairs.give_up(2)
    assert pairs.outstanding == 1


def test_the_address_that_the_head_cannot_reach() -> None:
    lines, findings = several((0, 2), rank2=Place("node-2", "192.168.50.2", "10.77.1.12", "eth0")).report()
    line = (
        "the head (node-0) does not reach rank 2 (node-2) at 192.168.50.2:7400 (its probe port): no answer in 5 s;"
        " its connection comes from 10.77.1.12 (eth0); fix: --node-ip=10.77.1.12 or --interface=eth0 on node-2,"
        " or open a firewall towards 192.168.50.2"
    )
    assert (lines, findings) == ([line], [(2, line)])


def measured(rates: dict[int, int], trips: dict[int, int]) -> Pairs:
    nodes = sorted(rates)
    pairs = Pairs({rank: Place(f"node-{rank}", f"10.0.0.{rank}") for rank in nodes})
    for a in nodes:
        for b in nodes:
            if a != b:
                pairs.expect(a, Target(b, "10.0.0.1", PROBE, 1))
                pairs.record(a, Outcome(b, PROBE, "", max(trips[a], trips[b]), min(rates[a], rates[b])))
    return pairs


FAST, SLOW, NEAR, FAR = 10**10, 5 * 10**7, 100, 50_000


@pytest.mark.parametrize(
    ("rates", "trips", "said"),
    [
        ([FAST] * 5, [NEAR] * 5, []),
        (
            [FAST] * 4 + [SLOW],
            [NEAR] * 5,
            ["rank 4 (node-4) is slow: 50 Mbit/s with other nodes, whose median is 10 Gbit/s"],
        ),
        ([FAST] * 4 + [FAST // 20], [NEAR] * 5, []),  # far off, but fast
        ([FAST] * 3 + [SLOW], [NEAR] * 4, []),  # too few to compare
        ([SLOW] * 5, [FAR] * 5, []),  # all alike
        ([FAST] * 5, [NEAR] * 4 + [FAR], ["rank 4 (node-4) is far: 50 ms to other nodes, whose median is 0.1 ms"]),
        ([FAST] * 5, [NEAR] * 4 + [NEAR * 50], []),
    ],
)
def test_a_slow_node_is_said_only_when_far_off(rates: list[int], trips: list[int], said: list[str]) -> None:
    lines = measured(dict(enumerate(rates)), dict(enumerate(trips))).slow()
    assert [line.partition("; fix: ")[0] for line in lines] == said
    assert all("; fix: " in line for line in lines)


def test_the_matrix() -> None:
    assert list(matrix(several((1, 2), nodes=3, error="connection refused"), [0, 1, 2])) == [
        "from \\ to  0   1   2",
        "0 node-0   .   ok  ok",
        "1 node-1   ok  .   refused",
        "2 node-2   ok  ok  .",
    ]


def test_the_matrix_of_many_nodes_has_bad_pairs_alone() -> None:
    assert list(matrix(several((1, 2), nodes=20), range(20))) == ["rank 1 (node-1) -> rank 2 (node-2): no answer"]


def test_a_node_that_fails_with_one_after_the_other_is_named_once() -> None:
    pairs = Pairs({rank: Place(f"node-{rank}", f"10.0.0.{rank}") for rank in range(10)})
    said = []
    for other in range(1, 9):
        pairs.expect(9, Target(other, "10.0.0.1", PROBE, 1))
        pairs.record(9, Outcome(other, PROBE, "no answer in 5 s"))
        said += pairs.report()[0]
    assert [line.partition(" bad pairs")[0] for line in said if "bad pairs" in line] == [
        "rank 9 (node-9) is in 2 of 2",
        "rank 9 (node-9) is in 4 of 4",
        "rank 9 (node-9) is in 8 of 8",
    ]


def test_a_failure_that_was_not_said_yet_stays_while_other_ports_are_planned_and_goes_with_its_node() -> None:
    pairs = Pairs()
    pairs.expect(1, Target(2, "10.0.0.2", PROBE, 1))
    pairs.record(1, Outcome(2, PROBE, "connection refused"))
    pairs.expect(1, Target(2, "10.0.0.2", NODE_MANAGER, 2))
    assert len(pairs.report()[0]) == 1
    pairs.record(1, Outcome(2, NODE_MANAGER, "connection refused"))
    pairs.expect(1, Target(2, "10.0.0.3", NODE_MANAGER, 2))  # a replacement
    assert pairs.report() == ([], [])


@pytest.mark.parametrize("ip", ["ü" * 80, "a\0b", "..", ""])
@looped
async def test_an_address_that_is_none_is_a_failure_and_no_exception(ip: str) -> None:
    """A hello may claim anything."""
    outcomes: list[Outcome] = []
    prober = Prober(KEY, 0, outcomes.append)
    prober.begin([Target(1, ip, PROBE, 9)])
    await asyncio.wait([*prober._tasks], timeout=PATIENCE)
    assert [bool(outcome.error) for outcome in outcomes] == [True]


@looped
async def test_a_dialer_that_was_stopped_meanwhile_probes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time-outs are over when it goes on, and the answers lie in its sockets."""
    monkeypatch.setattr(timeouts, "PROBE_S", 0.2)
    outcomes: list[Outcome] = []
    with a_responder() as port:
        prober = Prober(KEY, 1, outcomes.append)
        prober.begin([target(port)])
        await asyncio.sleep(0)  # it connects
        time.sleep(1.0)  # noqa: ASYNC251 (as SIGSTOP does)
        await asyncio.wait([*prober._tasks], timeout=PATIENCE)
    assert [outcome.error for outcome in outcomes] == [""]


def test_a_node_whose_kernel_alone_answers_is_not_blamed_on_the_network() -> None:
    pairs = Pairs({rank: Place(f"node-{rank}", f"10.0.0.{rank}") for rank in range(3)})
    for rank in (0, 1):
        pairs.expect(rank, target(7400))
        pairs.record(rank, Outcome(2, PROBE, "it accepts the connection and says nothing in 5 s"))
    lines, _ = pairs.report()
    assert "rank 2 (node-2) is in 2 of 2 bad pairs, as the one whose agent does not answer" in lines[-1]
    assert "nft" not in lines[-1]
