"""The figures of a report, as deterministic SVG: no date, fixed ids, text as paths, colours that colour-blind people
can tell apart (Okabe and Ito 2008). Matplotlib is used without pyplot, so nothing global is left behind but
what `rc_context` restores.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

from service.reports import wording
from service.reports.scores import ModelScores, Scores, auc, roc

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INK = "#1b1e23"
"""Colour of text and axes. The HTML form replaces it by `currentColor`, so that figures follow light and dark."""

FORGET, HELD_OUT, THIRD, QUIET = "#d55e00", "#0072b2", "#009e73", "#7f8791"
_MODEL_STYLE = {"original": (QUIET, "--"), "candidate": (FORGET, "-"), "retrained": (THIRD, "-.")}
RUG_BELOW = 50
MINIMUM = 5
"""Fewer records than this are not drawn: a point would be a person."""


def style(name: str) -> AbstractContextManager[None]:
    """Settings of one figure; `name` salts the ids, which are random otherwise."""
    import matplotlib as mpl

    return mpl.rc_context(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": name,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "path.simplify": True,
        }
    )


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: "Figure") -> bytes:
    """The figure as one <svg> element, without prologue, date or maker."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue().decode()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL).encode()


def score_histograms(scores: Scores, titles: Mapping[str, str]) -> bytes:
    """Forgotten against held-out records under each model, on one axis; a rug below RUG_BELOW forgotten records."""
    import numpy as np

    with style("scores"):
        figure = _figure(6.6, 0.75 + 1.4 * len(scores.models))
        panels = figure.subplots(len(scores.models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        pooled = np.concatenate([part for model in scores.models for part in (model.forget, model.held_out)])
        edges, by_ratio = _edges(pooled, bars=max(8, min(30, round(2 * scores.n**0.5))))
        if by_ratio:
            panels[-1].set_xscale("log")
        for axes, model in zip(panels, scores.models, strict=True):
            _histogram(axes, model, edges, titles.get(model.model, model.model))
        panels[-1].set_xlabel(scores.label)
        panels[-1].set_ylim(bottom=0)  # after the last panel: they share it, and setting it stops the scaling
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        return _svg(figure)


def _edges(values: "NDArray[np.float64]", bars: int) -> "tuple[NDArray[np.float64], bool]":
    """Edges of the bars, and whether they are spaced by ratio: for losses that span more than two decades."""
    import numpy as np

    low, high = np.percentile(values, [0.5, 99.5])
    if low > 0 and high > 100 * low:
        return np.geomspace(low, high, bars + 1), True
    return np.linspace(low, max(high, low + 1e-6), bars + 1), False


def _histogram(axes: "Axes", model: ModelScores, edges: "NDArray[np.float64]", title: str) -> None:
    import numpy as np

    sets = (
        (f"held-out records (m = {len(model.held_out):,})", model.held_out, HELD_OUT, "-", 0.25),
        (f"forgotten records (n = {len(model.forget):,})", model.forget, FORGET, "-", 0.35),
    )
    for label, values, colour, line, alpha in sets:
        shares = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values) * 100
        axes.stairs(shares, edges, fill=True, color=colour, alpha=alpha)
        axes.stairs(shares, edges, color=colour, linewidth=1.4, linestyle=line, label=label)
    if len(model.forget) < RUG_BELOW:
        axes.plot(
            np.clip(model.forget, edges[0], edges[-1]),
            np.full(len(model.forget), -0.06),
            "|",
            transform=axes.get_xaxis_transform(),
            color=FORGET,
            markersize=7,
            clip_on=False,
        )
        axes.tick_params(axis="x", pad=9)
    axes.set_title(title)
    axes.set_ylabel("share (%)")


def roc_curves(scores: Scores, titles: Mapping[str, str]) -> bytes:
    """ROC of the membership attack on log-log axes; left of 3/m the false positive rate is not measurable."""
    with style("roc"):
        figure = _figure(5.4, 4.3)
        axes = figure.subplots()
        floor = min(0.5 / scores.m, 0.5 / scores.n, 1e-2)
        limit = 3 / scores.m
        axes.axvspan(
            floor, limit, color=QUIET, alpha=0.18, linewidth=0, label=f"not measurable (below 3/m = {limit:.2g})"
        )
        axes.plot([floor, 1], [floor, 1], color=QUIET, linewidth=1, linestyle=":", label="guessing")
        for model in scores.models:
            colour, line = _MODEL_STYLE[next(filter(model.model.startswith, _MODEL_STYLE))]
            false, true = roc(model, scores.higher_is_member)
            seen = (false > 0) & (true > 0)
            label = f"{titles.get(model.model, model.model)}: AUC {auc(model, scores.higher_is_member):.3f}"
            axes.step(false[seen], true[seen], where="post", color=colour, linestyle=line, linewidth=1.7, label=label)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.1))
        axes.set_xlabel("false positive rate (held-out records taken for members)")
        axes.set_ylabel("true positive rate (forgotten records found)")
        axes.legend(loc="lower right", fontsize=8.5)
        return _svg(figure)


_CURVE_NAMES = {
    "forget_loss": ("forgotten records", FORGET, "-"),
    "selection_loss": ("held-out records (selection part)", HELD_OUT, "--"),
    "held_out_loss": ("held-out records", HELD_OUT, "--"),
    "retain_loss": ("kept records", THIRD, "-."),
    "loss": ("training loss", THIRD, "-"),
    "train_loss": ("training loss", THIRD, "-"),
    "training_loss": ("training loss", THIRD, "-"),
}


def unlearning_curve(curve: Sequence[Mapping[str, float | None]], method: str) -> bytes | None:
    """Mean losses over the steps of the published attempt; None for fewer than two points."""
    names = [name for name in _CURVE_NAMES if sum(point.get(name) is not None for point in curve) > 1]
    if not names:
        return None
    with style("curve"):
        figure = _figure(6.6, 2.8)
        axes = figure.subplots()
        for name in names:
            label, colour, line = _CURVE_NAMES[name]
            points = [(point["step"], point[name]) for point in curve if point.get(name) is not None]
            steps, losses = zip(*points, strict=True)
            marker = "o" if len(points) <= 25 else None
            axes.plot(
                steps, losses, color=colour, linestyle=line, linewidth=1.6, marker=marker, markersize=3, label=label
            )
        axes.set_title(f"Losses during {method}")
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("mean loss (nats)")
        axes.set_xlim(left=0)
        axes.margins(y=0.08)
        if len(names) > 1:
            axes.legend(loc="best", fontsize=8.5)
        else:
            axes.set_ylabel(f"mean {_CURVE_NAMES[names[0]][0]} (nats)")
        return _svg(figure)


def timeline(moments: Sequence[tuple[str, datetime]]) -> bytes:
    """One row a moment, against days since the first one; the last moment is the deadline."""
    start, due = moments[0][1], moments[-1][1]
    days = [(moment - start).total_seconds() / 86400 for _, moment in moments]
    span = max(*days, 1e-9)
    with style("timeline"):
        figure = _figure(6.6, 0.8 + 0.34 * len(moments))
        axes = figure.subplots()
        axes.axvline(days[-1], color=FORGET, linewidth=1.4, linestyle="--")
        axes.hlines(range(len(moments)), 0, days, color=QUIET, linewidth=1.0)
        for row, (_, moment) in enumerate(moments):
            last = row == len(moments) - 1
            colour = FORGET if last or moment > due else HELD_OUT
            axes.plot(days[row], row, "D" if last else "o", color=colour, markersize=6)
        names = [
            f"{name}   {wording.moment(moment)}" + (f"   after {wording.span(day)}" if day else "")
            for (name, moment), day in zip(moments, days, strict=True)
        ]
        axes.set_yticks(range(len(moments)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(moments) - 0.4, -0.6)
        axes.set_xlim(-0.02 * span, 1.03 * span)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("days since receipt")
        return _svg(figure)
