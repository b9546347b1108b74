"""What waiting cannot mend: which faults end a run before its quorum, with which error."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

import pytest
from rollcall_peers import PATIENCE, a_head, hello, join, looped

from bootstrap import net
from bootstrap.errors import BootstrapError, QuorumTimeout
from bootstrap.model import NodeIdentity, Phase, Role
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.rejections import Rejections, Standing
from bootstrap.run.dead_end import SecretWatch, all_shut_out, lost_for_good, misnumbered
from bootstrap.run.quorum import with_rejected

SOURCES = {"rank": "SLURM_NODEID", "size": "SLURM_STEP_NUM_NODES"}
SLURM = NodeIdentity("slurm", Role.HEAD, 0, 3, "r", sources=SOURCES, replaced_nodes="none", hosts=("n0", "n1", "n2"))
NAMES = {"n0": ("10.0.0.10",), "n1": ("10.0.0.11", "fe80::b%eth0"), "n2": ("10.0.0.12",)}


def test_a_misnumbered_node_is_named_with_where_the_numbers_are_from() -> None:
    error = misnumbered("rank 1 is claimed by two nodes: ...", SLURM)
    assert (error.status, error.message) == (65, "rank 1 is claimed by two nodes: ...")
    assert "the head has the rank from SLURM_NODEID and the size from SLURM_STEP_NUM_NODES" in error.hint


def test_a_lost_node_ends_the_run_only_where_none_replaces_it() -> None:
    member = Member(hello(1), 1, Phase.LOST, 0.0, "silent for 10 s")
    error = lost_for_good(member, SLURM)
    assert error is not None
    assert (error.status, error.message) == (
        76,
        "rank 1 (host-1) at 10.0.0.11 was lost before the quorum: silent for 10 s",
    )
    assert lost_for_good(member, dataclasses.replace(SLURM, replaced_nodes="all")) is None


@pytest.mark.parametrize("phase", [Phase.LOST, Phase.FAILED, Phase.LEAVING, Phase.LEFT])
def test_of_those_that_only_a_stop_replaces_a_crashed_one_ends_the_run(phase: Phase) -> None:
    """As with ``backoffLimitPerIndex: 0``: the Job replaces a pod that was preempted, and none that crashed."""
    some = dataclasses.replace(SLURM, replaced_nodes="stopped")
    error = lost_for_good(Member(hello(1), 1, phase, 0.0, "why"), some)
    assert (error is None) == (phase in (Phase.LEAVING, Phase.LEFT))
    assert error is None or error.hint.endswith("start the run again: --replaced-nodes=stopped")


@pytest.mark.parametrize(
    ("missing", "rejected", "addresses", "expected"),
    [
        ([1], ["a"], {1: ["a", "b"]}, True),
        ([1, 2], ["a", "c"], {1: ["a"], 2: ["c"]}, True),
        ([1, 2], ["a"], {1: ["a"], 2: ["c"]}, False),  # one may still come
        ([1], ["x"], {1: ["a"]}, False),  # from another address
        ([1], ["a"], {}, False),  # its name does not resolve
        ([], ["a"], {}, False),  # none is missing
    ],
)
def test_who_is_shut_out(
    missing: list[int], rejected: list[str], addresses: Mapping[int, list[str]], expected: bool
) -> None:
    assert all_shut_out(missing, rejected, addresses) is expected


@looped
async def test_the_run_ends_once_each_missing_node_has_shown_another_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "resolve", lambda name, _timeout: NAMES[name])
    stopped: asyncio.Future[BootstrapError] = asyncio.get_running_loop().create_future()
    async with a_head(size=3) as head:
        watch = SecretWatch(SLURM, head.call, stopped.set_result)

        def reject(peer: str, kind: str = "secret") -> None:
            head.call.rejections.add(peer.encode(), peer, "its secret is not the head's", Standing.UNPROVED, 0.0, kind)
            watch.check()

        reject("10.0.0.66")
        reject("10.0.0.11", "identity")
        reject("10.0.0.12")
        await asyncio.sleep(0.2)  # it has resolved the names by then, or it does when it is asked again
        assert not stopped.done()
        worker = await join(head.address, hello(1, size=3))
        watch.check()
        error = await asyncio.wait_for(stopped, PATIENCE)
        assert (error.status, error.message) == (
            77,
            "rank 2 (n2): the secret there is not the head's; no other node is missing",
        )
        worker.close()


@looped
async def test_names_that_do_not_resolve_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(net, "resolve", lambda name, _timeout: asked.append(name) or ())
    stopped: list[BootstrapError] = []
    async with a_head(size=3) as head:
        watch = SecretWatch(SLURM, head.call, stopped.append)
        for peer in ("10.0.0.11", "10.0.0.12", "10.0.0.66", "10.0.0.67"):
            head.call.rejections.add(peer.encode(), peer, "secret", Standing.UNPROVED, 0.0, "secret")
            watch.check()
            await asyncio.sleep(0.05)
        assert sorted(asked) == ["n1", "n2"]  # once: a stranger cannot keep the name server busy
        assert stopped == []


@pytest.mark.parametrize(
    ("groups", "hint"),
    [
        ([], "see"),
        ([("identity", Standing.PROVED)], "see"),
        ([("", Standing.STRANGER)], "first check whether the rejected connections are this run's; then see"),
        ([("secret", Standing.UNPROVED), ("", Standing.STRANGER)], "set the same RAY_BOOTSTRAP_SECRET"),
    ],
)
def test_the_time_out_lists_who_was_rejected(groups: list[tuple[str, Standing]], hint: str) -> None:
    rejections = Rejections(lambda _who: None)
    for n, (kind, standing) in enumerate(groups):
        rejections.add(b"", f"10.0.0.{n}", "cause", standing, 0.0, kind)
    error = with_rejected(QuorumTimeout("1 of 2 nodes", hint="see"), rejections, 3.0)
    assert error.hint.startswith(hint)
    lines = [f"10.0.0.{n}: cause (3 s ago)" for n in range(len(groups))]
    assert error.message.splitlines() == ["1 of 2 nodes", *(["rejected:", *lines] if lines else [])]
