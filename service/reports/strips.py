"""Record by record: the scores of forgotten records before and after, over the range of records never trained on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.reports.canvas import (
    FORGET,
    HELD_OUT,
    QUIET,
    RUG_BELOW,
    by_ratio,
    new_figure,
    style,
    svg_of,
    title_of,
)
from service.reports.scores import ModelScores, Scores

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LANES = 5
_THICK, _THIN, _ABOVE, _BELOW = 9.0, 3.0, 0.14, -0.24


def strip(scores: Scores, titles: Mapping[str, str]) -> bytes:
    """One row for each model. Fewer than RUG_BELOW forgotten records are points, joined from model to model; more of
    them are quantiles, as the held-out records always are.
    """
    import numpy as np

    with style("strip"):
        figure = new_figure(6.8, 1.0 + 0.78 * len(scores.models))
        axes = figure.subplots()
        pooled = np.concatenate([part for model in scores.models for part in (model.forget, model.held_out)])
        if by_ratio(pooled):
            axes.set_xscale("log")
        single = scores.n < RUG_BELOW
        if single and scores.paired is not None:
            heights = [place - _lanes(scores.n) for place in range(len(scores.models))]
            axes.plot(scores.paired, np.stack(heights), color=QUIET, linewidth=0.5, alpha=0.5, zorder=1)
        for place, model in enumerate(scores.models):
            _row(axes, place, model, scores.paired[place] if single and scores.paired is not None else None)
        axes.set_yticks(range(len(scores.models)), [title_of(titles, model.model) for model in scores.models])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(scores.models) - 0.45, -0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(scores.label)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8.5)
        return svg_of(figure)


def _lanes(n: int) -> "NDArray[np.float64]":
    """Heights [n] over the row's middle, by rank alone, so that neighbours do not cover each other."""
    import numpy as np

    return np.asarray(_ABOVE + 0.05 * (np.arange(n) * 2 % _LANES - _LANES // 2), dtype=np.float64)


def _row(axes: "Axes", place: int, model: ModelScores, paired: "NDArray[np.float64] | None") -> None:
    import numpy as np

    first = place == 0
    held_out = f"held-out records (m = {len(model.held_out):,})" if first else None
    forgotten = f"forgotten records (n = {len(model.forget):,})" if first else None
    _quantiles(axes, place - _BELOW, model.held_out, HELD_OUT, held_out)
    if len(model.forget) >= RUG_BELOW:
        _quantiles(axes, place - _ABOVE, model.forget, FORGET, forgotten)
        return
    values = np.sort(model.forget) if paired is None else paired
    heights = place - _lanes(len(values))
    axes.plot(values, heights, "o", color=FORGET, markersize=3.6, alpha=0.85, label=forgotten, zorder=2)


def _quantiles(axes: "Axes", height: float, values: "NDArray[np.float64]", colour: str, label: str | None) -> None:
    """A thin line from 5 to 95 %, a thick one over the middle half, a stroke at the median."""
    import numpy as np

    least, low, middle, high, most = np.quantile(values, QUANTILES)
    axes.plot([least, most], [height] * 2, color=colour, linewidth=_THIN / 2, alpha=0.8)
    axes.plot(
        [low, high], [height] * 2, color=colour, linewidth=_THICK / 1.5, alpha=0.5, solid_capstyle="butt", label=label
    )
    axes.plot(middle, height, "|", color=colour, markersize=11, markeredgewidth=2)
