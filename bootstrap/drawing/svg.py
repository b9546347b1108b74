"""The chart as an SVG picture: one file without scripts, fonts or links, for light and dark pages."""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape

from bootstrap.drawing import gantt, looks, steps
from bootstrap.drawing.gantt import Axis, Row
from bootstrap.drawing.reading import Span, Trace

_WIDTH, _EDGE = 1100, 20
_TOP = 86
"""The top of the first row: below the title, and a line each for cuts, marks and ticks."""
_BAR, _RAY, _ROW = 18, 13, 42
_GAP = 16
"""The width of a cut."""
_LINE = 19
_WIDE, _NARROW = "mwMW@%…✗", " ijlrtIf.,:;'|()[]-"
_COLUMNS = (0, 230, 310, 330)
"""Of the table; the middle two are right-aligned."""

_STYLE = """text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.title{font-size:15px;font-weight:600}.in{font-size:11px}.small{font-size:10px}.end{text-anchor:end}
.middle{text-anchor:middle}.bold{font-weight:600}.mark{stroke-dasharray:3 3}"""
_LIGHT = ("#ffffff", "#1f2328", "#656d76", "#e3e7ec", "#cf222e")
_DARK = ("#0d1117", "#e6edf3", "#9198a1", "#2b323b", "#ff7b72")
"""The colours of page, text, lesser text, grid and losses."""


def draw(trace: Trace) -> str:
    """Return the picture, as wide as a page of text, and as high as it takes."""
    rows = gantt.rows(trace)
    left = _EDGE + min(220.0, max(_size(row.label) for row in rows)) + 14
    axis = gantt.axis(trace, _WIDTH - _EDGE - left, _GAP)
    bottom = _TOP + _ROW * len(rows)
    body = [_text(_EDGE, 28, gantt.title(trace), "title", _WIDTH - 2 * _EDGE, 15), *_scale(trace, axis, left, bottom)]
    for number, row in enumerate(rows):
        body += _row(row, axis, left, _TOP + _ROW * number)
    body += _cuts(axis, left, bottom)
    below, y = _below(trace, rows, bottom + 28)
    look = f"<style>{_STYLE}{_colours(_LIGHT, 'light')}@media(prefers-color-scheme:dark){{{_colours(_DARK, 'dark')}}}"
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    first = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    page = f'<rect class="page" width="{_WIDTH}" height="{y}"/>'
    head = [first, f"<title>{escape(gantt.title(trace))}</title>", f"{look}</style>", page]
    text = "\n".join([*head, *body, *below, "</svg>\n"])
    return text.encode("ascii", "xmlcharrefreplace").decode()  # whatever encoding the reader expects


def _colours(of: Sequence[str], page: str) -> str:
    background, text, lesser, grid, loss = of
    rules = [f".page,.cut{{fill:{background}}}text{{fill:{text}}}.lesser{{fill:{lesser}}}.loss{{fill:{loss}}}"]
    rules.append(f".grid,.zigzag{{stroke:{grid};fill:none}}.mark,.zigzag{{stroke:{lesser};fill:none}}")
    rules += [f".s{n}{{fill:{getattr(look, page)}}}" for n, look in enumerate([*looks.LOOKS.values(), looks.OTHER])]
    return "".join(rules)


def _class(step: str) -> str:
    names = list(looks.LOOKS)
    return f"s{names.index(step) if step in names else len(names)}"


def _size(text: str, font: float = 12) -> float:
    """Return about how wide a text is in DejaVu Sans, which is one of the widest fonts."""
    wide = (c in _WIDE or unicodedata.east_asian_width(c) in "WF" for c in text)
    return font * sum(1.02 if w else 0.4 if c in _NARROW else 0.65 for c, w in zip(text, wide, strict=True))


def _text(x: float, y: float, text: str, kind: str = "", room: float = _WIDTH, font: float = 12) -> str:
    """Return a text, shortened to the room that it has."""
    while len(text) > 1 and _size(text, font) > room:
        text = text[:-2] + "…"
    look = f' class="{kind.strip()}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{look}>{escape(text)}</text>'


def _scale(trace: Trace, axis: Axis, left: float, bottom: float) -> Iterator[str]:
    """Yield the ticks with their lines, and the marks."""
    for x, text in axis.ticks(64):
        yield f'<path class="grid" d="M{left + x:.1f} {_TOP - 8}V{bottom}"/>'
        at = min(left + x, _WIDTH - _EDGE - _size(text, 10) / 2)
        yield _text(at, _TOP - 14, text, "small lesser middle")
    free = _WIDTH - 1.0
    for name, seconds in sorted(trace.marks, key=lambda mark: -mark[1]):
        x = left + axis.at(seconds)
        yield f'<path class="mark" d="M{x:.1f} {_TOP - 34}v8M{x:.1f} {_TOP - 8}V{bottom}"/>'
        if x - 4 - _size(name, 10) >= _EDGE and x <= free:
            free = x - 8 - _size(name, 10)
            yield _text(x - 4, _TOP - 28, name, "small end")


def _cuts(axis: Axis, left: float, bottom: float) -> Iterator[str]:
    """Yield what covers the bars where time is left out, and how much that is."""
    free = 0.0
    for x, text in axis.cuts():
        at, top, half = left + x, _TOP - 6, _size(text, 10) / 2
        steps_down = range(top, int(bottom), 6)
        yield f'<rect class="cut" x="{at + 3:.1f}" y="{top}" width="{_GAP - 6}" height="{bottom - top}"/>'
        for edge in (at + 3, at + _GAP - 3):
            points = " ".join(f"{edge + (3 if n % 2 else -3):.1f},{y}" for n, y in enumerate([*steps_down, bottom]))
            yield f'<polyline class="zigzag" points="{points}"/>'
        middle = max(free + half, min(at + _GAP / 2, _WIDTH - _EDGE - half))
        if middle + half <= _WIDTH:
            free = middle + half + 8
            yield _text(middle, _TOP - 42, text, "small bold middle")


def _row(row: Row, axis: Axis, left: float, y: float) -> Iterator[str]:
    yield _text(left - 14, y + 13, row.label, "end", left - 14 - _EDGE)
    for spans, top, height, kind in ((row.phases, y, _BAR, "in"), (row.ray, y + _BAR + 2, _RAY, "small")):
        for span in spans:
            yield from _bar(row, span, axis, left, (top, height, kind))
    last = row.phases[-1]
    if last.lost or last.unfinished:
        sign, kind = ("✗", "loss bold") if last.lost else ("…", "bold")
        yield _text(min(left + axis.at(last.end) + 3, _WIDTH - _EDGE), y + 13, sign, kind)


def _bar(row: Row, span: Span, axis: Axis, left: float, place: tuple[float, float, str]) -> Iterator[str]:
    top, height, kind = place
    of = f"the median of {row.nodes} nodes" if row.nodes > 1 else row.label
    about = f"{span.name} {span.seconds:.2f} s, {of}, from {gantt.clock(span.start, 0.01)}"
    about += f"; lost: {span.lost}" if span.lost else "; unfinished" if span.unfinished else ""
    yield f'<g class="{_class(span.name)}"><title>{escape(about)}</title>'
    pieces = list(axis.stretches(span)) or [(axis.at(span.start), axis.at(span.end))]
    for start, end in pieces:
        box = f'x="{left + start:.1f}" y="{top}" width="{max(0.8, end - start - 0.6):.1f}" height="{height}"'
        yield f'<rect rx="2" {box}/>'
    font = 11 if kind == "in" else 10
    start, end = max(pieces, key=lambda piece: piece[1] - piece[0])
    if end - start > _size(span.name, font) + 4:
        yield _text(left + (start + end) / 2, top + height / 2 + font * 0.36, span.name, f"{kind} middle")
    yield "</g>"


def _below(trace: Trace, rows: Sequence[Row], y: float) -> tuple[list[str], int]:
    """Return the legend, the notes and the table, and the y where they end."""
    found: list[str] = []
    x: float = _EDGE
    for name, _ in looks.seen(span for row in rows for span in (*row.phases, *row.ray)):
        if x + _size(name) + 36 > _WIDTH:
            x, y = _EDGE, y + _LINE
        found.append(f'<rect class="{_class(name)}" rx="2" x="{x:.1f}" y="{y - 10}" width="12" height="12"/>')
        found.append(_text(x + 17, y, name, "lesser"))
        x += _size(name) + 28
    y += 1.7 * _LINE
    for note in (*steps.in_words(trace), *gantt.notes(trace)):
        for line in textwrap.wrap(note, 160):
            found.append(_text(_EDGE, y, line, "", _WIDTH - 2 * _EDGE))
            y += _LINE
    y += 0.7 * _LINE
    for number, cells in enumerate(steps.table(trace)):
        kind = "lesser" if number == 0 else ""
        for at, cell, end in zip(_COLUMNS, cells, ("", " end", " end", ""), strict=True):
            found.append(_text(_EDGE + at, y, cell, kind + end, 190 if at == 0 else 400))
        y += _LINE
    return found, round(y + 4)
