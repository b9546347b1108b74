"""Draw results/*.svg from results/*.json: ``python benchmarks/plot.py`` (needs matplotlib, the extra ``bench``)."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
COLOURS = {"ray-bootstrap": "#0b7285", "floor": "#adb5bd", "inline bash": "#f08c00", "symmetric-run": "#862e9c"}


def bars(axes: Axes, groups: dict[str, list[dict[str, Any]]], figure: str) -> None:
    """Per group of samples a bar for each contender: the median, and a line over the range."""
    width = 0.8 / len(COLOURS)
    for place, (name, colour) in enumerate(COLOURS.items()):
        for group, rows in enumerate(groups.values()):
            samples = [row[figure] for row in rows if row["name"] == name and figure in row]
            if not samples:
                continue
            middle, x = statistics.median(samples), group + (place - 1.5) * width
            label = name if group == 0 else None
            axes.bar(x, middle, width * 0.92, color=colour, label=label)
            axes.vlines(x, min(samples), max(samples), color="black", linewidth=1)
            axes.annotate(f"{middle:.1f}", (x, max(samples)), ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel("seconds")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Both pictures."""
    mpl.rcParams["svg.hashsalt"] = "ray-bootstrap"
    ready = json.loads((RESULTS / "ready.json").read_text())
    end = json.loads((RESULTS / "end.json").read_text())
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), width_ratios=(3, 2), layout="constrained")
    sizes = {f"{n} node{'s' * (n > 1)}": [r for r in ready if r["nodes"] == n and not r["late"]] for n in (1, 2, 4)}
    bars(left, sizes, "ready")
    left.set_title("last node's start → workload's start", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    ends = {
        "workload's end →\nlast worker gone": [r for r in end if r["measure"] == "release" and r["nodes"] == 2],
        "head's machine lost →\nlast worker gone": [r for r in end if r["measure"] == "head-loss" and r["nodes"] == 2],
    }
    bars(right, ends, "last worker gone")
    right.set_title("the end, 2 nodes", fontsize=10)
    figure.savefig(RESULTS / "cluster.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
