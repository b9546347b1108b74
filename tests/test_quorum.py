"""Who is ready, who is missing, and when the workload may start."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from bootstrap import timeouts
from bootstrap.errors import QuorumTimeout
from bootstrap.log import Log
from bootstrap.model import Phase
from bootstrap.raynode.command import RANK_LABEL, RUN_LABEL
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import Member
from bootstrap.run import quorum
from bootstrap.run.quorum import Goal
from bootstrap.settings import Settings

RUN = "0123456789abcdef"


def goal(**changes: Any) -> Goal:
    of_the_run: dict[str, Any] = {"run_hash": RUN, "size": 2, "minimum": 2, "listens": ""}
    of_the_run |= {name: changes.pop(name) for name in of_the_run if name in changes}
    changes["quorum_timeout"] = changes.pop("timeout", 0.2)
    return Goal(**of_the_run, settings=Settings(**{"last_call": 0.1, **changes}))


def node(rank: object, *, alive: bool = True, run: str = RUN, gpus: float | None = None) -> dict[str, Any]:
    resources = {"CPU": 1.0} | ({} if gpus is None else {"GPU": gpus})
    labels = {RUN_LABEL: run} | ({} if rank is None else {RANK_LABEL: str(rank)})
    return {"id": "n", "ip": f"10.0.0.{rank}", "alive": alive, "labels": labels, "resources": resources}


def member(rank: int, phase: Phase, since: float, detail: str = "") -> Member:
    hello = Hello("run", 0, rank, 4, f"host{rank}", f"10.0.0.{rank}", "0.1.0", "2.60.0", "3.11.7", 1, 0, "", 0.0)
    return Member(hello, rank, phase, since, detail)


@pytest.mark.parametrize(
    ("nodes", "expect_gpus", "ready", "underprovisioned"),
    [
        ([], None, [], []),
        ([node(0), node(1)], None, [0, 1], []),
        ([node(0), node(1, alive=False)], None, [0], []),
        ([node(1, alive=False), node(1)], None, [1], []),
        ([node(1), node(1, alive=False)], None, [1], []),
        ([node(0), node(1, run="f" * 16)], None, [0], []),
        ([node(0), node(None), node("x"), node("-1"), node("")], None, [0], []),
        ([node(0), node(0)], None, [0], []),
        ([node(0, gpus=8), node(1, gpus=7), node(2)], 8, [0], [1, 2]),
        ([node(0, gpus=8), node(1)], 0, [0, 1], []),
    ],
)
def test_who_counts(
    nodes: list[dict[str, Any]], expect_gpus: int | None, ready: list[int], underprovisioned: list[int]
) -> None:
    found = quorum.count(nodes, goal(expect_gpus=expect_gpus))
    assert (sorted(found.ready), sorted(found.underprovisioned)) == (ready, underprovisioned)


@pytest.mark.parametrize(
    ("options", "head", "lacking"),
    [
        ({"expect_gpus": 8, "head_gpus": 0}, {}, {}),
        ({"expect_gpus": 8, "head_gpus": 2}, {"GPU": 2}, {}),
        ({"expect_gpus": 8, "head_gpus": 2}, {"GPU": 1}, {0: {"GPU": 2}}),
        ({"expect_gpus": 8, "head_gpus": 16}, {"GPU": 8}, {}),
        ({"expect_gpus": 8}, {}, {0: {"GPU": 8}}),
        ({"expect_gpus": 8, "expect_resources": {"NPU": 1}, "head_gpus": 0}, {}, {0: {"NPU": 1}, 1: {"NPU": 1}}),
        ({"expect_resources": {"CPU": 4, "GPU": 8}, "head_cpus": 0, "head_gpus": 0}, {}, {}),
        ({"expect_resources": {"NPU": 0}, "head_resources": {"NPU": 0}}, {}, {}),
    ],
)
def test_of_the_head_no_more_is_expected_than_its_own_options_give_it(
    options: dict[str, Any], head: dict[str, float], lacking: dict[int, dict[str, float]]
) -> None:
    nodes = [{**node(0), "resources": head}, {**node(1), "resources": {"GPU": 8.0, "CPU": 4.0}}]
    found = quorum.count(nodes, goal(**options))
    assert {rank: dict(here.lacking) for rank, here in found.underprovisioned.items()} == lacking


@pytest.mark.parametrize(
    ("size", "minimum", "ready", "expected"),
    [(4, 4, [0, 2], [1, 3]), (4, 2, [0, 1], [2, 3]), (None, 3, [0], [1, 2]), (None, 1, [0, 5], [])],
)
def test_who_is_missing(size: int | None, minimum: int, ready: list[int], expected: list[int]) -> None:
    now = quorum.count([node(rank) for rank in ready], goal(size=size, minimum=minimum))
    assert quorum.missing(goal(size=size, minimum=minimum), now) == expected


def test_the_table_of_members() -> None:
    members = {1: member(1, Phase.STARTING_RAY, 95.0), 2: member(2, Phase.FAILED, 90.5, "no space left")}
    assert quorum.table(members, [1, 2, 3], 100.0) == [
        "rank 1: host1 (10.0.0.1) starting-ray 5 s ago",
        "rank 2: host2 (10.0.0.2) failed 10 s ago: no space left",
        "rank 3: never seen",
    ]


class Cluster:
    """GCS's table, which gets the next row of ``steps`` whenever it is asked."""

    def __init__(self, *steps: Sequence[Mapping[str, Any]]) -> None:
        self.steps = list(steps)
        self.asked = 0
        self.changed = asyncio.Event()
        self.logged = io.StringIO()

    async def ask(self) -> Mapping[str, Any]:
        self.asked += 1
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if self.steps[0] is not step:
            self.changed.set()
        return {"nodes": step}

    async def wait(self, wanted: Goal, members: Mapping[int, Member] | None = None) -> quorum.Count:
        return await quorum.wait(wanted, self.ask, self.changed, members or {}, Log(stream=self.logged))


def during(steps: Sequence[Sequence[Mapping[str, Any]]], body: Callable[[Cluster], Any]) -> Any:
    async def main() -> Any:
        return await body(Cluster(*steps))

    return asyncio.run(main())


def test_the_quorum_is_reached_at_once_when_all_are_ready() -> None:
    async def body(cluster: Cluster) -> None:
        found = await cluster.wait(goal())
        assert sorted(found.ready) == [0, 1]
        assert (cluster.asked, cluster.logged.getvalue()) == (1, "")

    during([[node(0), node(1)]], body)


def test_news_of_the_roll_call_makes_it_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "ASK_GCS_AGAIN_S", 600)

    async def body(cluster: Cluster) -> None:
        await cluster.wait(goal(size=3, minimum=3, timeout=30))
        lines = [line.partition(": ")[2] for line in cluster.logged.getvalue().splitlines()]
        assert lines == [
            "1 of 3 nodes; waiting for rank 1 (not seen), 2 (not seen)",
            "2 of 3 nodes; waiting for rank 2 (not seen)",
        ]

    during([[node(0)], [node(0)], [node(0), node(1)], [node(0), node(1), node(2)]], body)


def test_a_line_is_logged_once() -> None:
    async def body(cluster: Cluster) -> None:
        with pytest.raises(QuorumTimeout):
            await cluster.wait(goal(timeout=0.05))
        assert len(cluster.logged.getvalue().splitlines()) == 1

    during([[node(0)]], body)


@pytest.mark.parametrize(("size", "last_call"), [(4, 0.1), (None, 10), (4, 0)])
def test_the_minimum_waits_for_the_last_call(size: int | None, last_call: float) -> None:
    async def body(cluster: Cluster) -> None:
        begin = asyncio.get_running_loop().time()
        found = await cluster.wait(goal(size=size, minimum=2, last_call=last_call, timeout=30))
        took = asyncio.get_running_loop().time() - begin
        assert sorted(found.ready) == [0, 1]
        assert took >= last_call if size else took < last_call

    during([[node(0), node(1)]], body)


def test_the_last_call_ends_early_when_all_are_ready() -> None:
    async def body(cluster: Cluster) -> None:
        found = await cluster.wait(goal(size=3, minimum=1, last_call=30, timeout=30))
        assert len(found.ready) == 3

    during([[node(0)], [node(0), node(1)], [node(0), node(1), node(2)]], body)


SHORTFALLS = [
    (
        {},
        [node(0)],
        {},
        ["1 of 2 nodes after 0.2 s; joined: rank 0", "rank 1: never seen"],
        "the missing ranks never reached this head",
    ),
    (
        {},
        [],
        {1: member(1, Phase.WAITING, 0.0)},
        ["0 of 2 nodes after 0.2 s; joined: rank none", "rank 0: never seen", "rank 1: host1 (10.0.0.1) waiting"],
        "look at rank [1]; --quorum-timeout waits longer",
    ),
    (
        {"expect_gpus": 8},
        [node(0, gpus=8), node(1, gpus=4)],
        {},
        ["1 of 2 nodes after 0.2 s; joined: rank 0", "rank 1: 10.0.0.1 has 4 GPUs, 8 expected"],
        "lower --expect-gpus",
    ),
    (
        {"expect_resources": {"NPU": 16, "CPU": 2, "memory": 2e10}},
        [{**node(0), "resources": {"NPU": 16.0, "CPU": 2.0, "memory": 2e10}}, node(1)],
        {},
        ["rank 1: 10.0.0.1 has 0 NPU, 16 expected; 1 CPUs, 2 expected; 0 memory, 20000000000 expected"],
        "--resources with NPU on the nodes that are short of it, or lower --expect-resources",
    ),
    (
        {"listens": "no node has joined this head at 10.0.0.1:7"},
        [node(0)],
        {},
        ["rank 1: never seen", "no node has joined this head at 10.0.0.1:7"],
        "--head-address and --rollcall-port",
    ),
    ({"size": 100, "minimum": 100}, [node(0)], {}, ["1 of 100 nodes", "rank 32: never seen"], "--min-nodes"),
]


@pytest.mark.parametrize(("changes", "nodes", "members", "lines", "remedy"), SHORTFALLS)
def test_the_timeout_names_who_is_missing(
    changes: dict[str, Any],
    nodes: list[dict[str, Any]],
    members: dict[int, Member],
    lines: list[str],
    remedy: str,
) -> None:
    async def body(cluster: Cluster) -> None:
        with pytest.raises(QuorumTimeout) as error:
            await cluster.wait(goal(**changes), members)
        assert [line for line in lines if line not in error.value.message] == []
        assert remedy in error.value.hint
        assert len(error.value.message.splitlines()) <= 33

    during([nodes], body)


def test_after_a_minute_it_says_once_how_to_look_at_who_has_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "UNSEEN_S", 0.1)
    monkeypatch.setattr(timeouts, "ASK_GCS_AGAIN_S", 0.02)

    async def body(cluster: Cluster) -> None:
        with pytest.raises(QuorumTimeout):
            await cluster.wait(goal(size=3, timeout=0.4), {1: member(1, Phase.WAITING, 0.0)})
        assert cluster.logged.getvalue().count("rank 2 never seen after 0 s; fix: look at rank [2]\n") == 1

    during([[node(0)]], body)


def test_a_finding_is_shown_once_beside_a_rank_that_is_late_unless_a_node_that_joined_has_it_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "LATE_RANK_S", 0.1)
    monkeypatch.setattr(timeouts, "ASK_GCS_AGAIN_S", 0.02)
    members = {rank: member(rank, phase, 0.0) for rank, phase in ((1, Phase.JOINED), (2, Phase.STARTING_RAY))}
    members[3] = member(3, Phase.STARTING_RAY, 0.0)
    members[1].findings = ["nofile: few"]
    members[2].findings = members[3].findings = ["nofile: few", "secret: open", "temp-dir-disk: full; fix: df"]

    async def body(cluster: Cluster) -> None:
        wanted = goal(size=4, minimum=4, timeout=0.4)
        with pytest.raises(QuorumTimeout) as error:
            await cluster.wait(dataclasses.replace(wanted, own_findings=["secret: open"]), members)
        line = "rank 2 (host2), 3: temp-dir-disk: full; fix: df\n"
        assert cluster.logged.getvalue().count(line) == 1
        assert f"{error.value.message}\n".endswith(line)
        assert "nofile" not in cluster.logged.getvalue() + error.value.message
        assert "secret" not in cluster.logged.getvalue() + error.value.message

    during([[node(0), node(1)]], body)


def test_waiting_is_no_remedy_for_a_node_that_is_gone() -> None:
    members = {1: member(1, Phase.LEFT, 0.0, "Ray's raylet on host1 was killed by SIGKILL")}

    async def body(cluster: Cluster) -> None:
        with pytest.raises(QuorumTimeout) as error:
            await cluster.wait(goal(), members)
        assert "journalctl -k" in error.value.hint
        assert "waits longer" not in error.value.hint

    during([[node(0)]], body)
