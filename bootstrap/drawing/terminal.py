"""The chart in characters."""

import itertools
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from bootstrap.drawing import gantt, looks, steps
from bootstrap.drawing.gantt import Axis, Row
from bootstrap.drawing.reading import Span, Trace
from bootstrap.host import Host

_LABEL = 28
_WIDTH, _NARROWEST = 100, 60
_CUT = "╱╱"
_RED = 31
_ASCII = str.maketrans(dict(zip("·░▓╌┄█━▚▒╱│▼├┤─✗…", ".:%-~#=&@/|v|+-x.", strict=True)))


@dataclass(frozen=True, slots=True)
class Paper:
    """What is drawn on: its width in columns, whether it shows colours, and its encoding."""

    width: int = _WIDTH
    colour: bool = False
    encoding: str = "utf-8"


def paper(host: Host, out: TextIO | None) -> Paper:
    """Return what this stream is: colour only on a terminal, and none with NO_COLOR (https://no-color.org)."""
    if out is None:
        return Paper()
    if not out.isatty():
        return Paper(encoding=out.encoding)
    width = os.get_terminal_size(out.fileno()).columns or _WIDTH
    colour = not host.get("NO_COLOR") and host.get("TERM") != "dumb"
    return Paper(max(_NARROWEST, width), colour, out.encoding)


def draw(trace: Trace, on: Paper) -> str:
    """Return the chart, with where the seconds went below it."""
    rows = gantt.rows(trace)
    margin = min(_LABEL, max(len(row.label) for row in rows)) + 2
    axis = gantt.axis(trace, on.width - margin - 2, len(_CUT))
    lines = [gantt.title(trace), "", *_scale(trace, axis, margin, on.width)]
    for row in rows:
        label = row.label if len(row.label) <= _LABEL else row.label[: _LABEL - 1] + "…"
        lines.append(label.ljust(margin) + _phases(row, axis, on))
        if row.ray:
            lines.append(" " * margin + _ray(row, axis, on))
    notes = [*steps.in_words(trace), *gantt.notes(trace, rows)]
    wrapped = [line for note in notes for line in textwrap.wrap(note, on.width, subsequent_indent="  ")]
    lines += ["", *_legend(rows, on), "", *wrapped, "", *_table(trace)]
    text = "".join(f"{line.rstrip()}\n" for line in lines)
    try:
        text.encode(on.encoding)
    except UnicodeError:
        return text.translate(_ASCII).encode(on.encoding, "replace").decode(on.encoding)
    return text


def _scale(trace: Trace, axis: Axis, margin: int, width: int) -> Iterator[str]:
    """Yield the lengths of the cuts, the marks and the ticks, each text where it has room."""
    marks = ((axis.at(at), f"▼{name}") for name, at in trace.marks)
    ticks = ((x, f"│{text}") for x, text in axis.ticks(12))
    for texts, exact in ((axis.cuts(), False), (marks, True), (ticks, True)):
        line = [" "] * width
        for x, text in texts:
            at = margin + round(x)
            if not exact:
                at = min(max(at, len("".join(line).rstrip()) + 1), width - len(text))
            if set(line[at - 1 : at + len(text) + 1]) == {" "} and at + len(text) <= width:
                line[at : at + len(text)] = text
        if any(each != " " for each in line):
            yield "".join(line)


def _phases(row: Row, axis: Axis, on: Paper) -> str:
    cells = [(" ", 0)] * (round(axis.width) + 2)
    for span in row.phases:
        look = looks.of(span.name)
        for left, right in _stretches(axis, span):
            cells[left:right] = [(look.glyph, look.sgr)] * (right - left)
        _label(cells, axis, span, f" {span.name} ")
    for x, _ in axis.cuts():
        if cells[round(x) - 1][0] != " ":
            cells[round(x) : round(x) + len(_CUT)] = [(each, 0) for each in _CUT]
    last = row.phases[-1]
    if last.lost or last.unfinished:
        cells[round(axis.at(last.end))] = ("✗", _RED) if last.lost else ("…", 0)
    return _coloured(cells, on)


def _ray(row: Row, axis: Axis, on: Paper) -> str:
    cells = [(" ", 0)] * (round(axis.width) + 2)
    for span in row.ray:
        look = looks.of(span.name)
        for left, right in _stretches(axis, span):
            edge = "├" if right - left >= len(span.name) + 2 else look.glyph  # with no room for the name
            bar = [edge, *"─" * (right - left - 2), "┤"]
            cells[left:right] = [(each, look.sgr) for each in bar[: right - left]]
        _label(cells, axis, span, span.name)
    return _coloured(cells, on)


def _stretches(axis: Axis, span: Span) -> Iterator[tuple[int, int]]:
    return ((round(left), round(right)) for left, right in axis.stretches(span))


def _label(cells: list[tuple[str, int]], axis: Axis, span: Span, text: str) -> None:
    """Write the text in the middle of the first stretch that has room for it and an edge on each side."""
    for left, right in _stretches(axis, span):
        if right - left >= len(text) + 2:
            at = left + (right - left - len(text)) // 2
            cells[at : at + len(text)] = [(each, looks.of(span.name).sgr) for each in text]
            return


def _coloured(cells: Iterable[tuple[str, int]], on: Paper) -> str:
    parts = ((sgr, "".join(text for text, _ in run)) for sgr, run in itertools.groupby(cells, lambda cell: cell[1]))
    return "".join(f"\x1b[{sgr}m{text}\x1b[0m" if on.colour and sgr else text for sgr, text in parts)


def _legend(rows: Sequence[Row], on: Paper) -> Iterator[str]:
    spans = [span for row in rows for span in (*row.phases, *row.ray)]
    entries = [(look.glyph, look.sgr, name) for name, look in looks.seen(spans)]
    entries += [("✗", _RED, "lost")] * any(span.lost for span in spans)
    entries += [("…", 0, "unfinished")] * any(span.unfinished for span in spans)
    cells: list[tuple[str, int]] = []
    for glyph, sgr, name in entries:
        if cells and len(cells) + len(name) + 2 > on.width:
            yield _coloured(cells, on)
            cells = []
        cells += [(glyph, sgr), *((each, 0) for each in f" {name}  ")]
    yield _coloured(cells, on)


def _table(trace: Trace) -> Iterator[str]:
    for cells in steps.table(trace):
        yield f"{cells[0]:24}{cells[1]:>10}{cells[2]:>10}  {cells[3]}".rstrip()
