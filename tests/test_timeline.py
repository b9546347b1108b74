"""The picture of a run without a run: timelines, what nodes say of their time, and the file itself."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rollcall_peers import SECRET, a_head, a_peer, hello, join, looped
from trace_event_format import SCHEMA, Trace

from bootstrap.files import output
from bootstrap.files.output import Output
from bootstrap.model import Phase, Span, Verdict
from bootstrap.process.table import read_process, start_time
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.offset import Offset
from bootstrap.rollcall.trail import LONGEST_NAME, MOST_SPANS, Trail, to_message
from bootstrap.run.timeline import Timeline
from bootstrap.run.trace import Row, events, row_of

DONE = Verdict(0, "the workload ended with status 0")


def drawn(tmp_path: Path, *rows: Row, status: int | None = None, epoch: float = 1e9, now: float = 100.0) -> Trace:
    """The rows as a file, read back."""
    found = [event for row in rows for event in events(row, epoch, now, status)]
    path = tmp_path / "trace"
    path.write_text(json.dumps({"otherData": {"format": "ray-bootstrap 1"}, "traceEvents": found}))
    return Trace(path)


# ------------------------------------------------------------------------------------------------------ the timeline


def test_a_phase_ends_where_the_next_begins_and_the_same_goes_on() -> None:
    timeline = Timeline(time.monotonic() - 10)
    for phase in (Phase.PREPARING, Phase.PREPARING, Phase.RUNNING, Phase.PREPARING):
        timeline.enter(phase)
    assert [span.name for span in timeline.phases] == ["starting", "preparing", "running", "preparing"]
    spent = timeline.seconds(timeline.phases[-1].begin + 5)
    assert list(spent) == ["starting", "preparing", "running"]
    assert spent["starting"] == pytest.approx(10, abs=1)
    assert spent["preparing"] == pytest.approx(5, abs=1)


def test_a_clock_that_is_set_during_the_run_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    timeline = Timeline()
    before = timeline.epoch
    monkeypatch.setattr(time, "time", lambda: 0.0)
    timeline.enter(Phase.PREPARING)
    begun = timeline.phases[-1].begin - timeline.phases[0].begin
    assert (timeline.epoch, 0 <= begun < 5) == (before, True)


def test_who_follows_hears_everything_once_and_in_time() -> None:
    timeline = Timeline()
    timeline.enter(Phase.PREPARING)
    heard: list[list[str]] = []
    timeline.follow(lambda spans: heard.append([span.name for span in spans]))
    timeline.add("import ray", time.monotonic())
    timeline.enter(Phase.SEARCHING)
    timeline.enter(Phase.SEARCHING)
    assert heard == [["starting", "preparing"], ["import ray", "searching"]]


def test_a_step_does_not_end_before_it_begins() -> None:
    timeline = Timeline()
    timeline.add("GCS", 7.0, 5.0)
    assert timeline.steps == [Span("GCS", 7.0, 7.0)]


@pytest.mark.requires("linux")
def test_when_this_process_started() -> None:
    process = read_process(os.getpid())
    assert process is not None
    age = time.monotonic() - start_time(process)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= age < uptime + 1
    assert age == pytest.approx(uptime - process.started / os.sysconf("SC_CLK_TCK"), abs=0.1)


# ---------------------------------------------------------------------------------------------------------- the file


def test_what_goes_on_says_so_and_what_has_ended_does_not(tmp_path: Path) -> None:
    phases = [Span("preparing", 1.0), Span("running", 2.0)]
    goes_on, ended, lost = (
        Row(rank, "x", phases, [], end, last)
        for rank, end, last in ((0, None, {}), (1, 9.0, {}), (2, 9.0, {"lost": "y"}))
    )
    trace = drawn(tmp_path, goes_on, ended, lost)
    assert trace.args == {(0, "running"): {"unfinished": True}, (2, "running"): {"lost": "y"}}
    assert [trace.span(rank, "running")["dur"] for rank in range(3)] == [98_000_000, 7_000_000, 7_000_000]
    assert trace.span(0, "preparing")["ts"] == 1_000_000_001_000_000


def test_no_gap_is_rounded_into_being(tmp_path: Path) -> None:
    times = [number / 7 for number in range(200)]
    drawn(tmp_path, Row(0, "x", [Span(f"p{number}", begin) for number, begin in enumerate(times)], [], None, {}))


def test_the_schema_rejects_what_is_no_trace() -> None:
    good = {"ph": "X", "name": "x", "cat": "c", "ts": 1, "dur": 1, "pid": 0, "tid": 0, "args": {}}
    for bad in ({**good, "dur": -1}, {**good, "ts": "1"}, {**good, "ph": "Q"}, {"ph": "i", "name": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"traceEvents": [good, bad]}, SCHEMA)


# ------------------------------------------------------------------------------------------------ over the roll call


@looped
async def test_a_workers_spans_arrive_on_the_heads_clock() -> None:
    async with a_head(SECRET) as head:
        worker = await join(head.address, hello(1), SECRET)
        now = time.monotonic()
        worker.report_spans(
            [Span("starting", now - 5), Span("preparing", now - 3), Span("import ray", now - 4, now - 2)]
        )
        worker.report(Phase.JOINED)
        await head.until(lambda: head.phase(1) is Phase.JOINED)
        trail = head.call.members[1].trail
        assert trail is not None
        off = trail.clock.uncertainty + 1e-3
        assert [(span.name, span.begin) for span in trail.phases] == [
            ("starting", pytest.approx(now - 5, abs=off)),
            ("preparing", pytest.approx(now - 3, abs=off)),
        ]
        assert [(span.name, span.end) for span in trail.steps] == [("import ray", pytest.approx(now - 2, abs=off))]
        await head.call.deliver(DONE, 5)
        assert trail.ended is None  # its agent still cleans up, and says so
        worker.report_spans([Span("ending", time.monotonic())])
        worker.close()
        await head.call.until_empty(5, clean=True)
        assert [span.name for span in trail.phases] == ["starting", "preparing", "ending"]
        assert trail.ended == pytest.approx(time.monotonic(), abs=2)


@looped
async def test_a_head_that_closes_does_not_say_that_a_node_has_ended() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        await head.call.deliver(DONE, 5)
        head.call.close()
        await asyncio.sleep(0.05)
        member = head.call.members[1]
        row = row_of(member)
        assert row is not None
        assert (row.ended, [span.name for span in row.phases]) == (None, ["waiting", "ending"])
        worker.close()


BAD: list[Any] = [
    None,
    {},
    [None],
    [{}],
    [{"name": "x"}],
    [{"name": "x", "begin": None}],
    [{"name": "x", "begin": True}],
    [{"name": "x", "begin": 1.5}],
    [{"name": "x", "begin": 1 << 53}],
    [{"name": "x", "begin": 0, "end": "1"}],
    [{"name": 7, "begin": 0}],
    [{"name": "a\x1b[2J", "begin": 0}],
    [{"name": "a\nb", "begin": 0}],
    [{"name": "\ud800", "begin": 0}],
]


@pytest.mark.parametrize("spans", BAD, ids=repr)
@looped
async def test_who_sends_what_are_no_spans_is_cut(spans: Any) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        await peer.enrol(hello(1))
        peer.send({"t": "spans", "spans": spans})
        assert await peer.gone()
        assert head.phase(1) is Phase.LOST


@looped
async def test_nothing_that_a_node_says_makes_the_file_long_or_breaks_it(tmp_path: Path) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        await peer.enrol(hello(1, host="h\x1b[2J\n"))
        far = (1 << 53) - 1
        wild = [(-far, far), (far, -far), (0, 0), (-1, 5)]
        rows = [{"name": "n" * 90, "begin": begin, "end": end} for begin, end in wild]
        rows += [{"name": '"\\é' + "x" * 90, "begin": begin} for begin, _ in wild]
        for number in range(40):
            peer.send({"t": "spans", "spans": rows})
            peer.send({"t": "phase", "phase": ("waiting", "starting-ray")[number % 2], "detail": "", "error": ""})
        peer.send({"t": "phase", "phase": "joined", "detail": "", "error": ""})
        await head.until(lambda: head.phase(1) is Phase.JOINED)
        row = row_of(head.call.members[1])
        assert row is not None
        assert len(row.phases) + len(row.steps) <= MOST_SPANS
        now = asyncio.get_running_loop().time()
        trace = drawn(tmp_path, row, epoch=time.time() - now, now=now)
        assert all(len(name) <= LONGEST_NAME for name in (*trace.names(1), *trace.names(1, 1)))
        for span in (*trace.spans(1), *trace.spans(1, 1)):
            assert time.time() - 8 * 86400 < span["ts"] / 1e6 <= (span["ts"] + span["dur"]) / 1e6 < time.time() + 1


def test_what_a_node_says_wins_over_what_the_head_saw() -> None:
    trail = Trail(Offset(0.0), 100.0)
    trail.note(Phase.WAITING, 100.0)
    trail.note(Phase.LEFT, 105.0)
    assert [span.name for span in trail.phases] == ["waiting", "ending"]
    trail.hear(to_message([Span("waiting", 3.0), Span("preparing", 2.0)], 1.0), 110.0)
    assert [(span.name, span.begin) for span in trail.phases] == [("preparing", 101.0), ("waiting", 102.0)]
    assert row_of(Member(hello(1), 1, Phase.REFUSED, 0.0)) is None


def test_the_head_notes_no_more_of_a_node_that_goes_back_and_forth() -> None:
    trail = Trail(Offset(0.0), 100.0)
    for number in range(1000):
        trail.note((Phase.WAITING, Phase.STARTING_RAY)[number % 2], 100.0 + number)
    assert len(trail.phases) == MOST_SPANS


# -------------------------------------------------------------------------------------------- a file that may not be


@looped
async def test_a_file_system_that_hangs_holds_up_nothing_and_is_one_warning(tmp_path: Path) -> None:
    faults: list[str] = []
    go = threading.Event()
    file = Output(tmp_path / "file", faults.append)

    def hang() -> bytes:
        go.wait(20)
        return b"first"

    began = time.monotonic()
    file.put(hang)
    file.put(lambda: b"second")
    file.put(lambda: b"third")
    assert time.monotonic() - began < 5
    assert await file.flush(0.05) is False
    assert await file.flush(0.05) is False
    assert faults == [f"{tmp_path / 'file'} timed out after 0.05 s"]
    go.set()
    assert await file.flush(10) is False  # it has been late
    assert (tmp_path / "file").read_bytes() == b"third"


@looped
async def test_content_that_cannot_be_made_is_one_warning_and_the_next_is_written(tmp_path: Path) -> None:
    faults: list[str] = []
    file = Output(tmp_path / "file", faults.append)
    file.put("\ud800".encode)
    assert await file.flush(10) is False
    file.put(lambda: b"good")
    await file.flush(10)
    assert (len(faults), (tmp_path / "file").read_bytes()) == (1, b"good")


@looped
async def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_beside_it(tmp_path: Path) -> None:
    faults: list[str] = []
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    path.with_name("folder").mkdir()
    for target in (path / "below", path.with_name("folder"), Path("/dev/null")):
        file = Output(target, faults.append)
        for _ in range(3):
            file.put(lambda: b"new")
        assert await file.flush(10) is False
    assert len(faults) == 3
    assert path.read_bytes() == b"earlier"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]  # noqa: PTH208 (pathlib blocks, says ruff)


def test_a_link_of_ones_own_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    assert output.fault(link) == ""
    output.write(link, b"new")
    assert (link.is_symlink(), (tmp_path / "there" / "file").read_bytes()) == (True, b"new")
    output.write(link, b"newer")
    assert link.read_bytes() == b"newer"
