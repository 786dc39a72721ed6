"""Canaries deleted along with people: how far they stand out among those never trained on, before and after."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.reports.canvas import INK, MINIMUM, model_style, new_figure, style, svg_of, title_of
from service.reports.scores import ModelScores, Scores
from service.reports.wording import number
from service.verification.exposure import MeanExposure, exposure, mean_exposure, null_mean, ranks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def exposures(model: ModelScores, higher_is_member: bool) -> "tuple[NDArray[np.float64], MeanExposure] | None":
    """Exposure in bits [c] of the deleted canaries among those never trained on (1802.08232), and their mean.

    All kinds of canaries are ranked together: a coin chose, so both sides have the same kinds. None where there are
    no canaries, or so few on a side that nothing can be drawn.
    """
    if model.planted is None or min(map(len, model.planted)) < MINIMUM:
        return None
    sign = -1.0 if higher_is_member else 1.0
    deleted, outside = (sign * part for part in model.planted)
    bits = exposure(ranks(deleted, outside), len(outside))
    return bits, mean_exposure(bits, len(outside))


def canary_exposure(scores: Scores, titles: Mapping[str, str]) -> bytes | None:
    """Share of deleted canaries at least so exposed, before and after, against 2^-t of canaries without a trace.

    None where the tables hold no canaries. Retrained models are left out: exact methods take spent canaries in again.
    """
    import numpy as np

    shown = [model for model in scores.models if model.model in ("original", "candidate")]
    found = {model.model: exposures(model, scores.higher_is_member) for model in shown}
    drawn = {name: pair for name, pair in found.items() if pair is not None}
    if not drawn:
        return None
    means = [mean for _, mean in drawn.values()]
    end = float(np.log2(means[0].references)) + 0.35
    floor = 0.5 / means[0].canaries
    with style("canaries"):
        figure = new_figure(6.6, 3.5)
        axes = figure.subplots()
        line = np.linspace(0, end, 60)
        axes.plot(line, np.exp2(-line), color=INK, linewidth=1, linestyle=":",
                  label=f"no trace: mean {null_mean(means[0].references):.2f} bits")  # fmt: skip
        for name, (bits, mean) in drawn.items():
            colour, dashes = model_style(name)
            at = np.concatenate([[0.0], np.sort(np.maximum(bits, 0.0))])
            share = np.concatenate([[1.0], 1.0 - np.arange(len(bits)) / len(bits)])
            label = f"{title_of(titles, name)}: mean {mean.mean:.2f} bits ({_bounds(mean)})"
            axes.step(at, share, where="pre", color=colour, linestyle=dashes, linewidth=1.7, label=label)
        axes.set(yscale="log", xlim=(0, end), ylim=(floor, 1.15))
        axes.set_xlabel("exposure t in bits")
        axes.set_ylabel("share of deleted planted records\nexposed by t or more")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        figure.legend(loc="outside lower center", ncols=1, fontsize=8.5)
        return svg_of(figure)


def _bounds(mean: MeanExposure) -> str:
    low, high = mean.interval()
    return f"95 % interval {number(low, 2)} to {number(high, 2)}"
