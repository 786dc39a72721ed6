"""Power: the smallest AUC that a membership test of so many forgotten records finds, and where this request stands."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from service.reports.canvas import FORGET, HELD_OUT, INK, QUIET, THIRD, new_figure, style, svg_of
from service.verification.quantiles import normal_cdf, normal_quantile, student_quantile
from service.verification.schema import Check
from service.verification.statistics import POWER, auc_design
from service.verification.verdict import CHANCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEWEST, _MOST = 2, 3000


@dataclass(frozen=True)
class Curve:
    """The design of one AUC check: sizes, people, error rate, and how much clustering multiplies the variance."""

    n: int
    m: int
    clusters: tuple[int, int]
    alpha: float
    effect: float

    def smallest(self, people: int) -> tuple[int, float | None]:
        """(forgotten records, distance from 0.5 found with 80 % power) of so many people with as many records each as
        here. The comparison records stay those of this request; None where even 0.5 would not be found.
        """
        n = max(people, round(people * self.n / self.clusters[0]))
        return n, self._at(n, people, self.effect, self.clusters[1])

    def smallest_alone(self, n: int) -> tuple[int, float | None]:
        """The same where every record is of a person of its own."""
        return n, self._at(n, n, 1.0, self.m)

    def _at(self, n: int, people: int, effect: float, others: int) -> float | None:
        return auc_design(n, self.m, (effect, effect), (people, others)).smallest_detectable(self.alpha)


def curve_of(check: Check | None) -> Curve | None:
    """The curve through the check's own smallest detectable effect; None where the check was not measured.

    The effect of clustering is the one that makes the curve meet the check: the standard error is its smallest
    detectable effect over (t + z_.80), the null variance without clustering that of Hanley and McNeil (1982). Where
    nothing could be detected it is not known, and 1 is the most favourable to take.
    """
    if check is None or not check.n or not check.m or check.alpha is None or check.clusters is None:
        return None
    first, second = check.clusters[0], check.clusters[-1]
    effect = 1.0
    if check.smallest_detectable is not None:
        t = student_quantile(1 - check.alpha, min(first, second) - 1)
        se = check.smallest_detectable / (t + normal_quantile(POWER))
        joint = 1 / (12 * check.n * check.m)
        effect = (se**2 - joint) / (1 / (12 * check.n) + 1 / (12 * check.m))
    return Curve(check.n, check.m, (first, second), check.alpha, effect)


def power_curve(people: Check, margins: Mapping[str, float], canaries: Check | None, words: str) -> bytes | None:
    """Smallest detectable AUC against the number of forgotten records, this request marked; `words` in a box.

    `margins`: records at least -> margin, of the policy. None where `people`, the check on the people's records, says
    nothing about its sizes.
    """
    curve = curve_of(people)
    if curve is None:
        return None
    most = max(_MOST, 3 * curve.n, *(2 * int(size) for size in margins))
    with style("power"):
        figure = new_figure(6.8, 3.6)
        axes = figure.subplots()
        _allowed(axes, margins, most)
        _lines(axes, curve, most)
        _mark(axes, curve.n, people.smallest_detectable, "this request", "o", FORGET)
        if canaries is not None and canaries.n:
            _mark(axes, canaries.n, canaries.smallest_detectable, "planted records deleted along", "^", THIRD)
        axes.set(xscale="log", xlim=(_FEWEST, most), ylim=(CHANCE, 1.02))
        axes.set_xlabel("forgotten records")
        axes.set_ylabel(f"smallest detectable AUC\n(power {POWER:.0%})")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.text(0.985, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, linespacing=1.45,
                  bbox={"boxstyle": "round,pad=0.5", "facecolor": "none", "edgecolor": QUIET})  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
        return svg_of(figure)


def _allowed(axes: "Axes", margins: Mapping[str, float], most: int) -> None:
    edges = [*sorted(int(size) for size in margins), most]
    for number, (start, end) in enumerate(pairwise(edges)):
        label = "allowed by the policy's margin" if number == 0 else None
        height = CHANCE + margins[str(start)]
        axes.fill_between([start, end], CHANCE, height, color=QUIET, alpha=0.22, linewidth=0, label=label)


def _lines(axes: "Axes", curve: Curve, most: int) -> None:
    import numpy as np

    sizes = sorted({round(float(size)) for size in np.geomspace(_FEWEST, most, 140)} | {curve.clusters[0], curve.n})
    lines: list[tuple[str, Callable[[int], tuple[int, float | None]], str, str]] = [
        ("as many records a person as here", curve.smallest, FORGET, "-")
    ]
    if curve.clusters[0] < curve.n or curve.effect > 1.0 + 1e-9:
        lines.append(("every record of another person", curve.smallest_alone, HELD_OUT, "--"))
    for label, smallest, colour, line in lines:
        found = [(n, CHANCE + value) for n, value in map(smallest, sizes) if value is not None and n <= most]
        if found:
            axes.plot(*zip(*found, strict=True), color=colour, linestyle=line, linewidth=1.7, label=label)


def _mark(axes: "Axes", n: int, smallest: float | None, name: str, shape: str, colour: str) -> None:
    """A marked point; on the upper edge, and hollow, where no AUC at all would be found."""
    height = CHANCE + smallest if smallest is not None else 1.0
    inside = colour if smallest is not None else "white"
    axes.axvline(n, ymax=(height - CHANCE) / 0.52, color=INK, linewidth=0.7, linestyle=":")
    axes.plot(n, height, shape, color=colour, markerfacecolor=inside, markersize=8, clip_on=False, zorder=5, label=name)


def smallest_words(check: Check) -> str:
    """One line: the effect that this check would have found."""
    if check.smallest_detectable is None:
        return "no AUC at all could have been found"
    return f"AUC {CHANCE + check.smallest_detectable:.2f} or {CHANCE - check.smallest_detectable:.2f}"


def shift_as_auc(shift: float) -> float:
    """AUC of two normal distributions, so many standard deviations apart: Phi(shift / sqrt 2)."""
    return normal_cdf(shift / math.sqrt(2))
