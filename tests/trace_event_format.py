"""What a trace file must be: Chrome's format, and beyond that what docs/trace.md says of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

_NUMBER = {"type": "number"}
_IDS = {"pid": {"type": "integer"}, "tid": {"type": "integer"}}
_COMPLETE = {
    "required": ["name", "cat", "ts", "dur", "pid", "tid"],
    "properties": {
        "ph": {"const": "X"},
        "name": {"type": "string"},
        "cat": {"type": "string"},
        "ts": _NUMBER,
        "dur": {"type": "number", "minimum": 0},
        "tts": _NUMBER,
        "tdur": _NUMBER,
        "args": {"type": "object"},
        **_IDS,
    },
}
_INSTANT = {
    "required": ["name", "ts", "pid", "tid"],
    "properties": {"ph": {"const": "i"}, "name": {"type": "string"}, "ts": _NUMBER, "s": {"enum": ["g", "p", "t"]}}
    | _IDS,
}
_NAME = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
_INDEX = {"type": "object", "required": ["sort_index"], "properties": {"sort_index": {"type": "integer"}}}
_LABELS = {"type": "object", "required": ["labels"], "properties": {"labels": {"type": "string"}}}
_METADATA = {
    "required": ["name", "pid", "args"],
    "properties": {"ph": {"const": "M"}, **_IDS},
    "oneOf": [
        {"properties": {"name": {"enum": ["process_name", "thread_name"]}, "args": _NAME}},
        {"properties": {"name": {"enum": ["process_sort_index", "thread_sort_index"]}, "args": _INDEX}},
        {"properties": {"name": {"const": "process_labels"}, "args": _LABELS}},
    ],
}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["traceEvents"],
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "otherData": {"type": "object"},
        "traceEvents": {
            "type": "array",
            "items": {"type": "object", "required": ["ph"], "oneOf": [_COMPLETE, _INSTANT, _METADATA]},
        },
    },
}
"""The JSON object format with the events that we use: complete, instant, metadata. Transcribed from the Trace Event
Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU"""


class Trace:
    """A file, which is checked as it is read."""

    def __init__(self, path: Path) -> None:
        self.document: dict[str, Any] = json.loads(path.read_text(), parse_constant=_reject)
        jsonschema.validate(self.document, SCHEMA)
        self.about: dict[str, Any] = self.document["otherData"]
        assert self.about["format"] == "ray-bootstrap 1"
        for pid in {event["pid"] for event in self._events("X")}:
            phases = self.spans(pid)
            ends = [span["ts"] + span["dur"] for span in phases]
            assert [span["ts"] for span in phases[1:]] == ends[:-1], "phases overlap, or leave a gap"

    def _events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.document["traceEvents"] if event["ph"] == kind]

    def spans(self, rank: int, tid: int = 0) -> list[dict[str, Any]]:
        """Of a node, in order: its phases, or with 1 the steps of its Ray."""
        found = [event for event in self._events("X") if (event["pid"], event["tid"]) == (rank, tid)]
        assert {event["cat"] for event in found} <= {"phase", "ray"}
        return sorted(found, key=lambda event: event["ts"])

    def names(self, rank: int, tid: int = 0) -> list[str]:
        return [span["name"] for span in self.spans(rank, tid)]

    def span(self, rank: int, name: str) -> dict[str, Any]:
        (found,) = (span for tid in (0, 1) for span in self.spans(rank, tid) if span["name"] == name)
        return found

    @property
    def nodes(self) -> dict[int, str]:
        return {e["pid"]: e["args"]["name"] for e in self._events("M") if e["name"] == "process_name"}

    @property
    def marks(self) -> list[dict[str, Any]]:
        return self._events("i")

    @property
    def args(self) -> dict[tuple[int, str], dict[str, Any]]:
        """What is said of spans besides, by rank and name."""
        return {(event["pid"], event["name"]): event["args"] for event in self._events("X") if event["args"]}


def _reject(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
