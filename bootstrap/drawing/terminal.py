"""The chart in characters."""

import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

from bootstrap.drawing import gantt, looks, steps
from bootstrap.drawing.gantt import Axis, Row
from bootstrap.drawing.reading import Span, Trace

WIDTH = 100
"""Columns, where there is no terminal."""
_NARROWEST, _LABEL = 60, 28
_CUT = "╱╱"
_RED = 31

_Cell = tuple[str, int]
"""A character and its colour (SGR); 0 is none."""


def draw(trace: Trace, width: int = WIDTH, *, colour: bool = False) -> str:
    """Return the chart, with where the seconds went below it.

    :param width: in columns.
    """
    rows, width = gantt.rows(trace), max(width, _NARROWEST)
    margin = min(_LABEL, max(len(row.label) for row in rows)) + 2
    axis = gantt.axis(trace, width - margin - 2, len(_CUT))
    lines = [gantt.title(trace), "", *_scale(trace, axis, margin, width)]
    for row in rows:
        label = row.label if len(row.label) <= _LABEL else row.label[: _LABEL - 1] + "…"
        lines.append(label.ljust(margin) + _coloured(_phases(row, axis), colour))
        if row.ray:
            lines.append(" " * margin + _coloured(_lane(row.ray, axis, _bracket), colour))
    notes = [*steps.in_words(trace), *gantt.notes(trace)]
    wrapped = [line for note in notes for line in textwrap.wrap(note, width, subsequent_indent="  ")]
    legend = [_coloured(cells, colour) for cells in _legend(rows, width)]
    lines += ["", *legend, "", *wrapped, "", *_table(trace)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


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


def _phases(row: Row, axis: Axis) -> list[_Cell]:
    cells = _lane(row.phases, axis, _bar)
    for x, _ in axis.cuts():
        if cells[round(x) - 1][0] != " ":
            cells[round(x) : round(x) + len(_CUT)] = [(each, 0) for each in _CUT]
    last = row.phases[-1]
    if last.lost or last.unfinished:
        cells[round(axis.at(last.end))] = ("✗", _RED) if last.lost else ("…", 0)
    return cells


def _lane(spans: Iterable[Span], axis: Axis, shape: Callable[[str, str, int], str]) -> list[_Cell]:
    """Return the cells of some spans.

    :param shape: makes a span's characters of its name, its glyph and the number of columns.
    """
    cells = [(" ", 0)] * (round(axis.width) + 2)
    for span in spans:
        look = looks.of(span.name)
        for left, right in axis.stretches(span):
            at, end = round(left), round(right)
            cells[at:end] = [(each, look.sgr) for each in shape(span.name, look.glyph, end - at)]
    return cells


def _bar(name: str, glyph: str, columns: int) -> str:
    text = f" {name} " if columns >= len(name) + 4 else ""
    return f"{text:{glyph}^{columns}}"


def _bracket(name: str, glyph: str, columns: int) -> str:
    return f"├{name:─^{columns - 2}}┤" if columns >= len(name) + 2 else glyph * columns


def _coloured(cells: Iterable[_Cell], colour: bool) -> str:
    parts = ((sgr, "".join(text for text, _ in run)) for sgr, run in itertools.groupby(cells, lambda cell: cell[1]))
    return "".join(f"\x1b[{sgr}m{text}\x1b[0m" if colour and sgr else text for sgr, text in parts)


def _legend(rows: Sequence[Row], width: int) -> Iterator[list[_Cell]]:
    spans = [span for row in rows for span in (*row.phases, *row.ray)]
    entries = [(look.glyph, look.sgr, name) for name, look in looks.seen(spans)]
    entries += [("✗", _RED, "lost")] * any(span.lost for span in spans)
    entries += [("…", 0, "unfinished")] * any(span.unfinished for span in spans)
    cells: list[_Cell] = []
    for glyph, sgr, name in entries:
        if cells and len(cells) + len(name) + 2 > width:
            yield cells
            cells = []
        cells += [(glyph, sgr), *((each, 0) for each in f" {name}  ")]
    yield cells


def _table(trace: Trace) -> Iterator[str]:
    for cells in steps.table(trace):
        yield f"{cells[0]:24}{cells[1]:>10}{cells[2]:>10}  {cells[3]}"
