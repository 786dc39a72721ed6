"""Cost against distance for every method, one panel for each world and set, drawn from the kept results.

`python -m benchmarks.methods_plot` writes docs/methods-<world>.svg from benchmarks/results/methods.json.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods_names import BETWEEN, DO_NOTHING, ORACLE, RETRAIN
from benchmarks.record import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
_COLOURS = {"pass": "#1a7f37", "inconclusive": "#8a6d00", "fail": "#b3261e"}
_MARKERS = {"exact": "s", "approximate": "o"}
_HEIGHT, _WIDTH = 4.6, 11.0
_SMALLEST_COST, _SMALLEST_GAP = 0.01, 0.02

Row = Mapping[str, Any]


def draw(measurements: Sequence[Row], world: str, path: Path) -> None:
    """Write the panels of one world as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in measurements if row["world"] == world and "p95" in row]
    kinds = list(dict.fromkeys(row["set"] for row in rows))
    with matplotlib.rc_context({"svg.hashsalt": "lethe", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(len(kinds), 1, figsize=(_WIDTH, _HEIGHT * len(kinds)), squeeze=False)
        for axis, kind in zip(axes[:, 0], kinds, strict=True):
            _panel(axis, [row for row in rows if row["set"] == kind], f"{world}: {kind}")
        _legend(axes[0, 0])
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(axis: Any, rows: Sequence[Row], title: str) -> None:
    by_name = {row["model"]: row for row in rows}
    shown = sorted((row for row in rows if "cost" in row), key=_cost)
    _scales(axis)
    for row in shown:
        colour = _COLOURS[_commonest(row["verdicts"])]
        marker = "D" if row["model"] == ORACLE else _MARKERS[row["kind"]]
        gap = row["p95"]
        axis.plot([_cost(row)] * 2, [max(gap["low"], _SMALLEST_GAP), gap["high"]], color=colour, lw=0.8, alpha=0.4)
        axis.plot(_cost(row), _gap(row), marker, color=colour, ms=5, mfc="white" if row["model"] == ORACLE else colour)
    _label(axis, shown)
    nothing, between = by_name[DO_NOTHING]["p95"]["median"], by_name[BETWEEN]["p95"]["median"]
    for level, name, style in ((nothing, DO_NOTHING, "--"), (between, BETWEEN, ":")):
        axis.axhline(level, color="0.4", ls=style, lw=1)
        axis.annotate(name, (0.004, level), xycoords=("axes fraction", "data"), va="bottom", color="0.3", size=8)
    axis.axvline(by_name[RETRAIN]["cost"]["median"], color="0.8", lw=1, zorder=0)
    axis.set_title(f"{title} ({rows[0]['forgotten']} records)", loc="left")
    axis.set_xlabel("CPU of the attempt / of a retrain")
    axis.set_ylabel("loss gap to retrains,\n95th percentile over records, nats")


def _scales(axis: Any) -> None:
    """Both logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.set_yscale("log")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        each.set_minor_formatter(NullFormatter())


def _label(axis: Any, rows: Sequence[Row]) -> None:
    """Names in a column at the right, in the order of their heights, each with a thin line to its point."""
    import numpy as np

    order = sorted(rows, key=_gap)
    places = np.linspace(0.01, 0.99, len(order)) if len(order) > 1 else [0.5]
    for row, place in zip(order, places, strict=True):
        axis.annotate(
            row["model"],
            (_cost(row), _gap(row)),
            xytext=(1.02, place),
            textcoords="axes fraction",
            va="center",
            size=6.5,
            color=_COLOURS[_commonest(row["verdicts"])],
            arrowprops={"arrowstyle": "-", "color": "0.8", "lw": 0.5, "shrinkB": 2},
            annotation_clip=False,
        )


def _legend(axis: Any) -> None:
    from matplotlib.lines import Line2D

    told = {"pass": "gate: pass", "inconclusive": "inconclusive", "fail": "fail (commonest over seeds)"}
    marks = [Line2D([], [], marker="o", ls="", color=_COLOURS[name], label=text) for name, text in told.items()]
    marks.append(Line2D([], [], marker="s", ls="", color="0.4", label="exact method"))
    marks.append(Line2D([], [], marker="D", ls="", color="0.4", mfc="white", label="given a retrained model"))
    axis.legend(handles=marks, loc="lower left", fontsize=7, ncols=5, frameon=False, bbox_to_anchor=(0.3, 1.0))


def _cost(row: Row) -> float:
    return max(float(row["cost"]["median"]), _SMALLEST_COST)


def _gap(row: Row) -> float:
    return max(float(row["p95"]["median"]), _SMALLEST_GAP)


def _commonest(verdicts: Mapping[str, int]) -> str:
    """The verdict that most seeds have; of two as common the worse."""
    return max(reversed(_COLOURS), key=lambda name: verdicts.get(name, 0))


def main() -> int:
    """Draw every world of the kept results."""
    kept = json.loads((RESULTS / "methods.json").read_text())["measurements"]
    for world in dict.fromkeys(row["world"] for row in kept):
        draw(kept, world, DOCS / f"methods-{world}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
