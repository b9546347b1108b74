"""What the head logs of its nodes' own reports."""

from __future__ import annotations

from rollcall_peers import hello, looped

from bootstrap.model import Phase
from bootstrap.rollcall.member import Member
from bootstrap.run.notices import _LENGTH, _OF_ONE, GroupedReports


@looped
async def test_a_talkative_node_does_not_fill_the_log() -> None:
    """In an open run whoever knows its id may be a node."""
    said: list[str] = []
    reports = GroupedReports(said.append)
    one, other = (Member(hello(rank), rank, Phase.STARTING_RAY, 0.0) for rank in (1, 2))
    for number in range(1000):
        reports.add(one, f"{number} " + "A" * 6000)
    reports.add(other, "importing Ray for 10 s")
    reports.flush()
    assert len(said) == _OF_ONE + 1
    assert max(map(len, said)) < _LENGTH + 100
    assert said[-1] == "rank 2 (host-2): importing Ray for 10 s"
