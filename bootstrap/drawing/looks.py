"""How each step looks: in characters, which differ even without colour, and in an SVG picture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bootstrap.drawing.reading import Span
from bootstrap.model import Phase


@dataclass(frozen=True, slots=True)
class Look:
    """A step's character, its colour on a terminal (SGR), and on a light and on a dark page."""

    glyph: str
    sgr: int
    light: str
    dark: str


_WORK, _REST, _UP, _END = 34, 90, 32, 35

LOOKS: Mapping[str, Look] = {
    "starting": Look("·", _REST, "#cfd6e0", "#4a5361"),
    Phase.PREPARING.value: Look("░", _WORK, "#a9c8ee", "#2f5a8c"),
    Phase.SEARCHING.value: Look("?", 33, "#f3dc9b", "#6e5a1e"),
    Phase.WAITING.value: Look("╌", _REST, "#f7ecce", "#453c22"),
    Phase.STARTING_RAY.value: Look("▓", 36, "#6f9fe0", "#3d6fb5"),
    Phase.WAITING_FOR_DASHBOARD.value: Look("┄", _REST, "#f1e2ee", "#4c3348"),
    Phase.RUNNING.value: Look("█", _UP, "#83c48a", "#2f7a3c"),
    Phase.JOINED.value: Look("━", _UP, "#c9e7cb", "#24482a"),
    Phase.LEAVING.value: Look("▚", _END, "#dcc3ec", "#5c3f73"),
    Phase.ENDING.value: Look("▒", _END, "#c9a7e2", "#75509a"),
    "import ray": Look("i", 36, "#f2b27a", "#8a5220"),
    "GCS": Look("g", 36, "#e58f8f", "#8f3a3a"),
    "raylet": Look("r", 36, "#e6c34f", "#7d6614"),
    "verdict": Look("v", _END, "#a98fd6", "#5f4694"),
}
OTHER = Look("+", 37, "#d9d9d9", "#555555")
"""A step that only a newer version knows."""


def of(step: str) -> Look:
    """Return the look of a step."""
    return LOOKS.get(step, OTHER)


def seen(spans: Iterable[Span]) -> list[tuple[str, Look]]:
    """Return the name and the look of each step among the spans: for a legend."""
    names = {span.name for span in spans}
    known = [(name, look) for name, look in LOOKS.items() if name in names]
    return known + [(name, OTHER) for name in sorted(names - LOOKS.keys())]
