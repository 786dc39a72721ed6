"""Canaries deleted along with people: how far they stand out among those never trained on, before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.reports.canvas import INK, MINIMUM, model_style, new_figure, style, svg_of, title_of
from service.reports.scores import ModelScores, Scores
from service.reports.wording import number
from service.verification.exposure import MeanExposure, exposure_within

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Exposures:
    """Exposure in bits [c] of the deleted canaries of one model, their mean, and that mean without a trace."""

    bits: "NDArray[np.float64]"
    mean: MeanExposure
    null: float


def exposures(model: ModelScores, higher_is_member: bool) -> Exposures | None:
    """Exposure of the deleted canaries among those of their kind never trained on (1802.08232).

    Tables that say no kinds have one. None where there are no canaries, so few on a side that nothing can be drawn, or
    a kind of which none stayed outside.
    """
    import numpy as np

    if model.planted is None or min(map(len, model.planted)) < MINIMUM:
        return None
    sign = -1.0 if higher_is_member else 1.0
    deleted, outside = (sign * part for part in model.planted)
    kinds, others = model.kinds or (np.full(len(deleted), ""), np.full(len(outside), ""))
    if not set(kinds.tolist()) <= set(others.tolist()):
        return None
    return Exposures(*exposure_within(deleted, outside, kinds, others))


def canary_exposure(scores: Scores, titles: Mapping[str, str]) -> bytes | None:
    """Share of deleted canaries at least so exposed, before and after, against 2^-t of canaries without a trace.

    None where the tables hold no canaries. Retrained models are left out: exact methods take spent canaries in again.
    """
    import numpy as np

    shown = [model for model in scores.models if model.model in ("original", "candidate")]
    found = {model.model: exposures(model, scores.higher_is_member) for model in shown}
    drawn = {name: told for name, told in found.items() if told is not None}
    if not drawn:
        return None
    first = next(iter(drawn.values()))
    end = max(float(np.log2(first.mean.references)), *(float(told.bits.max()) for told in drawn.values())) + 0.35
    floor = 0.5 / first.mean.canaries
    with style("canaries"):
        figure = new_figure(6.6, 3.5)
        axes = figure.subplots()
        line = np.linspace(0, end, 60)
        axes.plot(line, np.exp2(-line), color=INK, linewidth=1, linestyle=":",
                  label=f"no trace: mean {first.null:.2f} bits")  # fmt: skip
        for name, told in drawn.items():
            colour, dashes = model_style(name)
            at = np.concatenate([[0.0], np.sort(np.maximum(told.bits, 0.0))])
            share = np.concatenate([[1.0], 1.0 - np.arange(len(told.bits)) / len(told.bits)])
            label = f"{title_of(titles, name)}: mean {told.mean.mean:.2f} bits ({_bounds(told.mean)})"
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
