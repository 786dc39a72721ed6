"""Figures of scores, of the run and of the deadline. What decides has figures of its own: forest.py, power.py."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from service.reports import wording
from service.reports.bands import CONFIDENCE, roc_band
from service.reports.canvas import (
    FORGET,
    HELD_OUT,
    QUIET,
    RUG_BELOW,
    THIRD,
    by_ratio,
    model_style,
    new_figure,
    style,
    svg_of,
    title_of,
)
from service.reports.scores import REFERENCES, ModelScores, Scores, auc, roc

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LOWEST_RATE = 1e-4
"""Left end of the false positive rates of a ROC."""

BANDED = ("original", "candidate")
"""Models whose ROC has a band: those of retrained ones would hide each other."""

_STEPS, _PALE = 200, 0.13


def score_histograms(scores: Scores, titles: Mapping[str, str]) -> bytes:
    """Forgotten against held-out records under each model, on one axis; a rug below RUG_BELOW forgotten records."""
    import numpy as np

    with style("scores"):
        figure = new_figure(6.6, 0.75 + 1.4 * len(scores.models))
        panels = figure.subplots(len(scores.models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        pooled = np.concatenate([part for model in scores.models for part in (model.forget, model.held_out)])
        edges = _edges(pooled, bars=max(8, min(30, round(2 * scores.n**0.5))))
        if by_ratio(pooled):
            panels[-1].set_xscale("log")
        for axes, model in zip(panels, scores.models, strict=True):
            _histogram(axes, model, edges, title_of(titles, model.model))
        panels[-1].set_xlabel(scores.label)
        panels[-1].set_ylim(bottom=0)  # after the last panel: they share it, and setting it stops the scaling
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        return svg_of(figure)


def _edges(values: "NDArray[np.float64]", bars: int) -> "NDArray[np.float64]":
    """Edges of the bars [bars + 1]; what lies beyond them is counted in the outermost ones."""
    import numpy as np

    low, high = np.percentile(values, [0.5, 99.5])
    if by_ratio(values):
        return np.geomspace(low, high, bars + 1)
    return np.linspace(low, max(high, low + 1e-6), bars + 1)


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
    """ROC of the membership attack on log-log axes; left of 3/m the false positive rate is not measurable.

    Bands: pointwise bounds of the versions before and after, see `roc_band`.
    """
    from matplotlib.patches import Patch

    with style("roc"):
        figure = new_figure(5.4, 4.3)
        axes = figure.subplots()
        limit, floor = min(1.0, 3 / scores.m), min(0.5 / scores.n, 1e-2)
        told = f"not measurable (below 3/m = {limit:.2g})"
        axes.axvspan(LOWEST_RATE, limit, color=QUIET, alpha=0.18, linewidth=0, label=told)
        axes.plot([LOWEST_RATE, 1], [LOWEST_RATE, 1], color=QUIET, linewidth=1, linestyle=":", label="guessing")
        for model in (model for model in scores.models if model.model != REFERENCES):
            colour, line = model_style(model.model)
            false, true = roc(model, scores.higher_is_member)
            seen = (false > 0) & (true > 0)
            label = f"{title_of(titles, model.model)}: AUC {auc(model, scores.higher_is_member):.3f}"
            axes.step(false[seen], true[seen], where="post", color=colour, linestyle=line, linewidth=1.7, label=label)
            if model.model in BANDED:
                _band(axes, model, scores.higher_is_member, floor)
        axes.set(xscale="log", yscale="log", xlim=(LOWEST_RATE, 1), ylim=(floor, 1.1))
        axes.set_xlabel("false positive rate (held-out records taken for members)")
        axes.set_ylabel("true positive rate (forgotten records found)")
        handles, _ = axes.get_legend_handles_labels()
        told = f"{100 * CONFIDENCE:g} % bounds, pointwise"
        handles.append(Patch(color=FORGET, alpha=_PALE, linewidth=0, label=told))
        figure.legend(handles=handles, loc="outside lower center", fontsize=8.5, ncols=2)
        return svg_of(figure)


def _band(axes: "Axes", model: ModelScores, higher_is_member: bool, floor: float) -> None:
    """What the rates of a model may be, with its own edges, since bands lie over each other."""
    import numpy as np

    colour, line = model_style(model.model)
    rates = np.geomspace(LOWEST_RATE, 1, _STEPS)
    low, high = roc_band(model, higher_is_member, rates)
    low = np.maximum(low, floor)
    axes.fill_between(rates, low, high, color=colour, alpha=_PALE, linewidth=0, step="mid")
    for edge in (low, high):
        axes.step(rates, edge, where="mid", color=colour, linestyle=line, linewidth=0.6, alpha=0.7)


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
        figure = new_figure(6.6, 2.8)
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
        return svg_of(figure)


def timeline(moments: Sequence[tuple[str, datetime]]) -> bytes:
    """One row a moment, against days since the first one; the last moment is the deadline."""
    start, due = moments[0][1], moments[-1][1]
    days = [(moment - start).total_seconds() / 86400 for _, moment in moments]
    span = max(*days, 1e-9)
    with style("timeline"):
        figure = new_figure(6.6, 0.8 + 0.34 * len(moments))
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
        return svg_of(figure)
