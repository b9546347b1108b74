"""``ray-bootstrap trace``: what is read, where it is drawn, and the two forms."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import traces
from hypothesis import given
from hypothesis import strategies as st
from traces import HEAD, HEAD_RAY, node, trace, worker

from bootstrap.drawing import gantt, reading, steps, svg, terminal
from bootstrap.drawing.reading import Trace
from bootstrap.errors import UsageError
from bootstrap.model import TRACE_FORMAT

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]


def parsed(raw: bytes) -> Trace:
    return reading.parse(raw, "a.json")


def chart(raw: bytes, width: int = 100, *, colour: bool = False) -> str:
    return terminal.draw(parsed(raw), width, colour=colour)


# Reading


def test_a_trace_is_read() -> None:
    found = parsed(traces.usual())
    assert (found.run, found.launcher, found.size, found.status) == ("job-1", "slurm", 3, 0)
    assert [each.label for each in found.nodes] == ["rank 0 (node-0), head", "rank 1 (node-1)", "rank 2 (node-2)"]
    assert [(span.name, round(span.start, 3), round(span.end, 3)) for span in found.nodes[0].ray] == [
        ("import ray", 0.6, 2.4),
        ("GCS", 2.4, 3.4),
        ("raylet", 3.4, 5),
    ]
    assert [(name, round(at, 3)) for name, at in found.marks] == [("quorum", 7.9)]
    assert found.nodes[1].uncertainty == 0.0004


def test_what_a_newer_version_adds_is_left_alone() -> None:
    extra = [
        {"ph": "C", "name": "nodes", "pid": 0, "ts": 1, "args": {"n": 1}},
        {"ph": "X", "name": "x", "cat": "new", "pid": 0, "tid": 9, "ts": 1, "dur": 1},
        {"ph": "X", "name": "x", "cat": ["new"], "pid": 0, "tid": 9, "ts": 1, "dur": 1},
    ]
    assert parsed(trace(node(0, HEAD), events=extra, more=[1])) == parsed(trace(node(0, HEAD)))


def without(raw: bytes, *keys: str) -> bytes:
    document = json.loads(raw)
    for event in document["traceEvents"]:
        for key in keys:
            event.pop(key, None)
    return json.dumps(document).encode()


TIMELINE = json.dumps([{"cat": "task", "ph": "X", "name": "f", "pid": "node", "tid": "w", "ts": 1, "dur": 2}]).encode()
"""As ``ray timeline`` writes it."""
BAD = {
    "empty": (b"", ["not JSON", "its 0 bytes begin with ''", "ray-bootstrap --trace FILE"]),
    "text": (b"hello there", ["not JSON", "begin with 'hello there'"]),
    "binary": (b"\x89PNG\xff\xfe", ["not JSON", "PNG"]),
    "truncated": (
        traces.usual()[:-40],
        ["not JSON", f"its {len(traces.usual()) - 40} bytes begin with '{{\"displayTimeUnit"],
    ),
    "deep": (b"[" * 100_000 + b"]" * 100_000, ["not JSON", "[[["]),
    "ray timeline": (
        TIMELINE,
        ["a list of 1 without otherData.format", "`ray timeline`", "'ray-bootstrap 1'", "perfetto"],
    ),
    "another object": (b'{"traceEvents": []}', ["JSON without otherData.format", "'ray-bootstrap 1'"]),
    "a number": (b"7", ["without otherData.format"]),
    "version": (trace(node(0, HEAD), format="ray-bootstrap 2"), ["'ray-bootstrap 2'", "by ray-bootstrap 0.1.0", "pip"]),
    "no events": (trace(), ["none of its 0 events is a phase of the head", "pid 0"]),
    "no head": (trace(node(1, HEAD)), ["is a phase of the head"]),
    "no ts": (without(traces.usual(), "ts"), ["traceEvents[1]: ts is 'null'; expected microseconds"]),
    "a pid in words": (trace(events=[{"ph": "X", "pid": "w"}]), ["traceEvents[0]: pid is '\"w\"'; expected int"]),
    "an event in words": (trace(events=["x"]), ["traceEvents[0]: ph is 'null'; expected str"]),  # type: ignore[list-item]
    "rank below 0": (
        trace(events=[{"ph": "X", "pid": -1, "name": "x"}]),
        ["traceEvents[0]: pid is '-1'; expected a rank"],
    ),
    "not a number": (traces.usual().replace(b'"dur": 600000', b'"dur": NaN'), ["dur is 'NaN'; expected microseconds"]),
    "nodes in words": (trace(node(0, HEAD), nodes="4"), ["nodes is '\"4\"'; expected int"]),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_refused_with_what_was_found(name: str) -> None:
    raw, expected = BAD[name]
    with pytest.raises(UsageError) as caught:
        parsed(raw)
    text = f"{caught.value.message}\nfix: {caught.value.hint}"
    assert [each for each in expected if each not in text] == []
    assert text.startswith("a.json: ")
    assert len(text) < 500


# What is drawn where


def assert_drawn_well(found: Trace) -> None:
    rows, axis = gantt.rows(found), gantt.axis(found, 800, 16)
    assert sum(row.nodes for row in rows) == len(found.nodes)
    for row in rows:
        for lane in (row.phases, row.ray):
            edges = [axis.at(moment) for span in lane for moment in (span.start, span.end)]
            assert edges == sorted(edges)  # in order, and none over another
            assert all(-1e-6 <= x <= 800 + 1e-6 for x in edges)
    assert all(0 <= x <= 800 for x, _ in axis.cuts())
    ticks = [x for x, _ in axis.ticks(50)]
    assert all(after - before >= 49 for before, after in itertools.pairwise(ticks))
    assert len(ticks) <= 17


def test_a_long_workload_leaves_the_ways_in_and_out_their_room() -> None:
    found = parsed(traces.usual())
    axis = gantt.axis(found, 100, 2)
    assert axis.at(8) > 70
    assert 100 - axis.at(308) > 8
    assert [text for _, text in axis.cuts()] == ["4:59 cut"]
    (cut, _), scale = next(axis.cuts()), axis.at(1) - axis.at(0)
    assert axis.at(8) < cut < axis.at(308) - 2
    assert axis.at(309) - axis.at(308) == pytest.approx(scale)


def test_a_short_workload_is_drawn_whole() -> None:
    head = [("preparing", 4.0), ("running", 8.0), ("ending", 9.0)]
    assert list(gantt.axis(parsed(trace(node(0, head))), 100, 2).cuts()) == []


def test_what_a_node_does_in_the_midst_of_the_workload_is_not_cut() -> None:
    found = parsed(trace(node(0, HEAD, HEAD_RAY), node(1, *worker(7)), node(2, *worker(106, late=100))))
    axis = gantt.axis(found, 100, 2)
    assert [text for _, text in axis.cuts()] == ["90 s cut", "3:20 cut"]
    assert axis.at(106) - axis.at(100) == pytest.approx(6 * (axis.at(1) - axis.at(0)))


def test_a_workload_in_which_much_happens_has_one_cut() -> None:
    lost = [
        node(rank, [*worker(7)[0][:-2], ("joined", 20.0 + 25 * rank)], lost="silent for 10 s") for rank in range(1, 9)
    ]
    axis = gantt.axis(parsed(trace(node(0, HEAD), *lost)), 100, 2)
    assert len(list(axis.cuts())) == 1
    assert_drawn_well(parsed(trace(node(0, HEAD), *lost)))


@pytest.mark.parametrize(("seconds", "step", "text"), [
    (0, 2, "0 s"), (1.5, 0.5, "1.5 s"), (119, 1, "119 s"), (120, 1, "2:00"), (308.25, 0.05, "5:08.25"),
    (3599.99, 0.1, "1:00:00.0"), (7384, 1, "2:03:04"),
])  # fmt: skip
def test_a_moment_in_words(seconds: float, step: float, text: str) -> None:
    assert gantt.clock(seconds, step) == text


def many(count: int, *others: list[dict[str, Any]]) -> Trace:
    alike = [node(rank, *worker(7 + rank % 10 * 0.01)) for rank in range(1, count - len(others))]
    return parsed(trace(node(0, HEAD, HEAD_RAY), *alike, *others))


def test_few_nodes_have_a_row_each_and_many_share_one() -> None:
    assert [row.nodes for row in gantt.rows(many(16))] == [1] * 16
    slow, lost = node(1998, *worker(7.8)), node(1999, worker(7)[0][:-1], lost="its connection broke")
    found = many(2000, slow, lost)
    rows = gantt.rows(found)
    assert [(row.label, row.nodes) for row in rows] == [
        ("rank 0 (node-0), head", 1),
        ("ranks 1-1997, median", 1997),
        ("rank 1998 (node-1998)", 1),
        ("rank 1999 (node-1999)", 1),
    ]
    joined = next(span for span in rows[1].phases if span.name == "joined")
    assert joined.start == pytest.approx(7.04, abs=0.02)
    assert list(gantt.notes(found)) == ["rank 1999 (node-1999): lost at 5:08.1: its connection broke"]
    assert_drawn_well(found)


def test_of_many_lost_nodes_some_are_listed_and_the_rest_is_counted() -> None:
    lost = [node(rank, worker(7)[0][:-1], lost=f"{rank} is gone") for rank in range(30, 40)]
    found = many(40, *lost)
    assert [row.label for row in gantt.rows(found)][1:] == [
        "28 of ranks 1-29, median",
        "rank 9 (node-9)",
        "ranks 30-39, median",
    ]
    assert list(gantt.notes(found))[5:] == ["rank 35 (node-35): lost at 5:08.1: 35 is gone", "and 4 more nodes lost"]


# Where the seconds went


def test_the_longest_of_each_step_and_who_took_it() -> None:
    found = {step.name: step for step in steps.longest(parsed(traces.usual()))}
    assert (found["raylet"].rank, round(found["raylet"].seconds, 3)) == (2, 2.7)
    assert round(found["raylet"].median, 3) == 1.8
    assert (found["GCS"].rank, found["starting-ray"].rank) == (0, 0)
    assert "joined" not in found


def path(found: Trace) -> list[tuple[str, float, int]]:
    return [(step.name, round(step.seconds, 2), step.rank) for step in steps.to_ready(found) if step.seconds > 0.11]


def test_the_start_of_the_workload_waited_for_the_head_and_then_for_the_last_worker() -> None:
    found = parsed(traces.usual())
    assert path(found) == [
        ("starting", 0.4, 0),
        ("preparing", 0.6, 0),
        ("import ray", 1.4, 0),
        ("GCS", 1.0, 0),
        ("raylet", 1.6, 0),
        ("raylet", 2.7, 2),
        ("quorum", 0.2, 0),
    ]
    assert sum(step.seconds for step in steps.to_ready(found)) == pytest.approx(8)


def test_the_start_of_the_workload_waited_for_a_node_that_came_late() -> None:
    head = [("starting", 0.4), ("preparing", 1.0), ("starting-ray", 5.0), ("waiting", 17.0), ("running", 308.0)]
    found = parsed(trace(node(0, head, HEAD_RAY), node(1, *worker(7)), node(2, *worker(16.8, late=10))))
    assert path(found) == [
        ("began late", 10.0, 2),
        ("starting", 0.5, 2),
        ("preparing", 0.6, 2),
        ("import ray", 2.7, 2),
        ("raylet", 2.8, 2),
        ("quorum", 0.2, 0),
    ]


def test_the_start_of_the_workload_did_not_wait_for_a_node_that_joined_after_it() -> None:
    nodes = [node(0, HEAD, HEAD_RAY), node(1, *worker(6.9)), node(2, *worker(7.8))]
    assert path(parsed(trace(*nodes, node(3, *worker(106, late=100))))) == path(parsed(traces.usual()))


def test_the_start_of_the_workload_waited_for_a_late_head() -> None:
    late = [
        ("", 20.0),
        ("starting", 20.4),
        ("preparing", 21.0),
        ("starting-ray", 25.0),
        ("waiting", 27.0),
        ("running", 99.0),
    ]
    searching = [("starting", 0.4), ("preparing", 1.0), ("searching", 21.0), ("waiting", 25.0), ("starting-ray", 26.8)]
    found = parsed(trace(node(0, late), node(1, [*searching, ("joined", 99.0)])))
    assert path(found)[:3] == [("began late", 20.0, 0), ("starting", 0.4, 0), ("preparing", 0.6, 0)]
    assert path(found)[-2:] == [("starting-ray", 1.8, 1), ("quorum", 0.2, 0)]


def test_a_run_that_is_not_ready_says_what_it_waited_for() -> None:
    yet = parsed(trace(node(0, HEAD[:4], unfinished=True), node(1, worker(6.9)[0][:-1], unfinished=True), status=None))
    assert next(steps.in_words(yet)).startswith("not ready yet after 8.0 s: starting 0.4 s, preparing 0.6 s, ")
    never = parsed(trace(node(0, [*HEAD[:3], ("waiting", 65.0), ("ending", 66.0)]), node(1, worker(6.9)[0]), status=75))
    assert next(steps.in_words(never)).startswith("never ready, over after 66.0 s: ")
    assert next(steps.in_words(never)).endswith("waiting 58.1 s, ending 1.0 s")


def test_doubtful_clocks_and_missing_nodes_are_named() -> None:
    clocks = {"1": {"offset_s": 3.0, "uncertainty_s": 0.08}}
    found = parsed(trace(node(0, HEAD), node(1, *worker(7)), clocks=clocks, nodes=4))
    assert list(gantt.notes(found)) == [
        "2 of 4 nodes are in the trace; the head never saw the others",
        "clocks: rank 1 (node-1) may be off by 0.08 s, the others by less",
    ]


# In characters

GOLDEN = """\
run job-1 (slurm), 3 nodes: the workload ended with status 0

                                                                                     4:59 cut
                                                                                 ▼quorum
                       │0 s           │2 s          │4 s           │6 s           │8 s
rank 0 (node-0), head  ···░░░░▓▓▓▓▓▓▓▓ starting-ray ▓▓▓▓▓▓▓▓╌╌╌╌╌╌ waiting ╌╌╌╌╌╌╌███╱╱████▒▒▒▒▒▒▒
                           ├─import ray─┤├─GCS─┤├──raylet──┤
rank 1 (node-1)         ···░░░░?╌╌╌╌╌╌╌╌╌╌ waiting ╌╌╌╌╌╌╌╌╌╌▓▓▓▓▓▓▓▓▓▓▓▓▓━ joined ━━╱╱━━━━▒▒▒▒
                           ├──────import ray───────┤         ├──raylet───┤
rank 2 (node-2)         ···░░░░?╌╌╌╌╌╌╌╌╌╌ waiting ╌╌╌╌╌╌╌╌╌╌▓▓▓ starting-ray ▓▓▓━━━━╱╱━━━━▒▒▒▒▒▒
                           ├──────import ray───────┤         ├──────raylet──────┤

· starting  ░ preparing  ? searching  ╌ waiting  ▓ starting-ray  █ running  ━ joined  ▒ ending
i import ray  g GCS  r raylet

ready after 8.0 s: starting 0.4 s, preparing 0.6 s, import ray 1.4 s, GCS 1.0 s, raylet 1.6 s,
  waiting 0.1 s (rank 2), raylet 2.7 s (rank 2), quorum 0.2 s
the workload took 300.0 s; 1.0 s later the last node was gone (rank 0)

where the seconds went     longest    median  on
starting                    0.40 s    0.30 s  rank 0 (node-0), head
preparing                   0.60 s    0.60 s  rank 0 (node-0), head
import ray                  3.40 s    3.40 s  rank 1 (node-1)
starting-ray                4.00 s    2.70 s  rank 0 (node-0), head
searching                   0.10 s    0.10 s  rank 1 (node-1)
waiting                     3.90 s    3.90 s  rank 1 (node-1)
GCS                         1.00 s    1.00 s  rank 0 (node-0), head
raylet                      2.70 s    1.80 s  rank 2 (node-2)
workload                  300.00 s  300.00 s  rank 0 (node-0), head
ending                      1.00 s    0.80 s  rank 0 (node-0), head
"""


def test_the_chart_in_characters() -> None:
    assert chart(traces.usual()) == GOLDEN


def test_a_lost_node_and_an_unfinished_one_are_marked() -> None:
    lost = node(1, worker(7)[0][:-1], lost="silent for 10 s")
    text = chart(trace(node(0, HEAD[:-1], unfinished=True), lost, status=None, reason=""))
    assert text.startswith("run job-1 (slurm), 2 nodes: still running when this was written\n")
    rows = {line[:6]: line for line in text.split("\n\n")[1].splitlines()}
    assert rows["rank 0"].endswith("█…")
    assert rows["rank 1"].endswith("━✗")
    assert "rank 1 (node-1): lost at 5:08.1: silent for 10 s" in text


def test_a_long_name_is_cut() -> None:
    row = chart(trace(node(0, HEAD, name="rank 0 (a-name-that-is-longer-than-most-names), head"))).splitlines()[4]
    assert row.startswith("rank 0 (a-name-that-is-long…  ···")


def test_without_colour_there_is_no_escape_sequence_and_with_it_the_same_text() -> None:
    plain, coloured = chart(traces.usual()), chart(traces.usual(), colour=True)
    assert "\x1b" not in plain
    assert coloured != plain
    assert "".join(part.partition("m")[2] if n else part for n, part in enumerate(coloured.split("\x1b["))) == plain


@pytest.mark.parametrize("width", [60, 80, 100, 250])
def test_the_chart_is_as_wide_as_asked(width: int) -> None:
    drawn = chart(traces.usual(), width).split("\n\n")[1].splitlines()
    assert width - 3 <= max(map(len, drawn)) <= width


# As a picture

SVG = "{http://www.w3.org/2000/svg}"


def picture(raw: bytes) -> ET.Element:
    return ET.fromstring(svg.draw(parsed(raw)))


def titles(root: ET.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}title")]


def extents(root: ET.Element) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every box, and the place of every text."""
    for box in root.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        yield x, y, x + float(box.get("width", 0)), y + float(box.get("height", 0))
    for text in root.iter(f"{SVG}text"):
        x, y, size = float(text.get("x", 0)), float(text.get("y", 0)), 7.0 * len(text.text or "")
        if "small" in text.get("class", ""):
            size *= 0.85
        before = {"end": 1.0, "middle": 0.5}.get(text.get("class", "").rpartition(" ")[2], 0.0)
        yield x - before * size, y - 12, x + (1 - before) * size * 0.9, y + 3


def assert_inside(root: ET.Element) -> None:
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert [each for each in extents(root) if min(each) < -1 or each[2] > width + 1 or each[3] > height + 1] == []


def test_the_picture_has_every_node_and_every_span() -> None:
    root, found = picture(traces.usual()), parsed(traces.usual())
    texts = [each.text for each in root.iter(f"{SVG}text")]
    for each in found.nodes:
        assert each.label in texts
        for span in (*each.phases, *each.ray):
            told = f"{span.name} {span.seconds:.2f} s, {each.label}, from"
            assert len([title for title in titles(root) if title.startswith(told)]) == 1
    assert {"quorum", "4:59 cut", "where the seconds went"} <= set(texts)
    assert_inside(root)


def test_the_picture_stands_alone_on_light_and_dark_pages() -> None:
    text = svg.draw(parsed(traces.usual()))
    assert "prefers-color-scheme:dark" in text
    assert [word for word in ("<script", "href", "url(", "@import", "<image", "<foreignObject") if word in text] == []
    assert text.count("http") == 1  # the namespace


def test_texts_of_the_picture_do_not_overlap() -> None:
    lost = node(2, [*worker(7)[0][:-2], ("joined", 50.0)], lost="silent for 10 s")
    marks = [traces.quorum(7.9), traces.quorum(7.95, "another moment"), traces.quorum(3, "a third")]
    root = picture(trace(node(0, HEAD, HEAD_RAY), node(1, *worker(7.8)), lost, events=marks))
    lines: dict[str, list[tuple[float, float]]] = {}
    for text in root.iter(f"{SVG}text"):
        x, size = float(text.get("x", 0)), 5.2 * len(text.text or "")
        left = x - {"end": size, "middle": size / 2}.get(text.get("class", "").rpartition(" ")[2], 0)
        lines.setdefault(text.get("y", ""), []).append((left, left + size))
    for places in map(sorted, lines.values()):
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))


HOSTILE = "<script>alert(1)</script>\x1b]0;x\x07\"&'\u202e\ud800"


def test_hostile_names_are_text() -> None:
    hostile = [("starting", 1.0), (HOSTILE, 2.0), ("running", 9.0)]
    raw = trace(node(0, hostile, name=HOSTILE, lost=HOSTILE), run=HOSTILE, reason=HOSTILE, launcher=HOSTILE)
    root = picture(raw)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "g", "path", "polyline",
    }  # fmt: skip
    assert "<script>alert(1)</script>\\x1b]0;x\\x07\"&'\\u202e\\ud800" in [
        each.text for each in root.iter(f"{SVG}text")
    ]
    assert all(each.isprintable() or each == "\n" for each in chart(raw))
    assert_inside(root)


# Anything

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_NAMES = st.sampled_from([*dict(HEAD), "searching", "joined", "GCS", "import ray", "new"])
_SECONDS = st.floats(0, 1e17, allow_nan=False) | st.integers(0, 20).map(lambda n: n * 1e6)
_EVENT = st.fixed_dictionaries(
    {
        "ph": st.sampled_from("XXXXXXi"),
        "name": _NAMES | st.text(),
        "pid": st.integers(0, 40),
        "ts": _SECONDS,
        "dur": _SECONDS,
        "cat": st.sampled_from(["phase", "phase", "ray"]),
    },
    optional={"args": st.fixed_dictionaries({}, optional={"lost": _ANY, "unfinished": _ANY, "name": st.text()})},
)
_NUMBER = st.none() | st.integers(0, 255)
_FACTS = st.fixed_dictionaries(
    {}, optional={"run": _ANY, "nodes": _NUMBER, "status": _NUMBER, "reason": _ANY, "clocks": _ANY, "attempt": _NUMBER}
)


@given(_ANY | st.lists(_ANY), st.dictionaries(st.text(), _ANY))
def test_any_json_is_drawn_or_refused(events: Any, other: dict[str, Any]) -> None:
    document = {"otherData": {**other, "format": TRACE_FORMAT}, "traceEvents": events}
    try:
        found = parsed(json.dumps(document).encode())
    except UsageError:
        return
    terminal.draw(found)


@given(st.binary())
def test_any_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(UsageError):
        parsed(raw)


@given(st.lists(_EVENT, min_size=1, max_size=60), st.text(), _FACTS, st.integers(60, 200))
def test_any_spans_are_drawn_well(events: list[dict[str, Any]], name: str, facts: dict[str, Any], width: int) -> None:
    first = {"ph": "X", "name": "starting", "cat": "phase", "pid": 0, "ts": 0, "dur": 1e6}
    named = {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": name}}
    found = parsed(trace(events=[first, named, *events], **facts))
    assert_drawn_well(found)
    drawn = terminal.draw(found, width).split("\n\n")[1].splitlines()
    assert max(map(len, drawn)) <= width
    root = ET.fromstring(svg.draw(found))
    _, _, across, down = map(float, root.get("viewBox", "").split())
    boxes = list(itertools.islice(extents(root), len(list(root.iter(f"{SVG}rect")))))
    assert [each for each in boxes if min(each) < 0 or each[2] > across + 1 or each[3] > down] == []


# The command


@pytest.mark.requires("linux")
@pytest.mark.parametrize("by", ["name", "standard input"])
def test_the_command_draws_a_file(site: Site, by: str) -> None:
    file = site.folder / "trace.json"
    file.write_bytes(traces.usual())
    for more in ([], ["--svg"]):
        with file.open("rb") as stdin:
            node = site.run("trace", str(file) if by == "name" else "-", *more, stdin=stdin)
        assert node.wait() == 0, node.err
        assert node.out == (svg.draw(parsed(traces.usual())) if more else GOLDEN)
        assert node.err == ""


@pytest.mark.requires("linux")
def test_the_chart_can_be_printed_in_any_encoding(site: Site) -> None:
    file = site.folder / "trace.json"
    file.write_bytes(traces.usual())
    node = site.run("trace", str(file), env={"PYTHONIOENCODING": "ascii"})
    assert node.wait() == 0, node.err
    assert " starting-ray ??" in node.out


@pytest.mark.requires("linux")
@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "no FILE: ray-bootstrap trace FILE"),
        (["a", "b"], "unexpected 'b'; trace takes one FILE"),
        (["--no-such", "a"], "no such option: --no-such"),
        ([""], "FILE='': expected some text, but it is empty"),
        (["none.json"], "none.json: No such file or directory"),
        (["/"], "/: Is a directory"),
        (["/dev/null"], "/dev/null: not JSON"),
        (["a", "--", "true"], "trace runs nothing: omit `-- true`"),
        (["a", "--json"], "--json goes with"),
    ],
)
def test_the_command_says_what_it_needs(site: Site, args: list[str], told: str) -> None:
    node = site.run("trace", *args)
    assert node.wait() == 64
    assert told in node.err
    assert "fix: " in node.err
    assert node.out == ""


@pytest.mark.requires("linux")
def test_other_commands_take_no_file(site: Site) -> None:
    for args, told in (
        (["status", "a"], "unexpected 'a'; status takes options only"),
        (["detect", "--svg"], "--svg goes with trace: ray-bootstrap trace --svg"),
        (["trase", "a"], "did you mean ray-bootstrap trace a"),
    ):
        node = site.run(*args)
        assert node.wait() == 64
        assert told in node.err
    shown = site.run("--help")
    assert shown.wait() == 0
    assert re.search(r"FILE +The trace to draw", shown.out)
