"""The wager over publications: the part of the report, and its figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.reports.canvas import FORGET, HELD_OUT, INK, QUIET, new_figure, style, svg_of
from service.reports.schema import SequencePart, StepPart
from service.verification.sequential import CHANCE, fold

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Published:
    """One publication by measurement: its version, the attempts of its job and the error rate they had between them,
    and how many guesses on planted records it adds, with the sum of their outcomes."""

    version: int
    attempts: int
    alpha_spent: float
    guesses: int
    right: float


def sequence_of(published: Sequence[Published], alpha: float) -> SequencePart | None:
    """The wager after each publication, oldest first; None where nothing was ever guessed at."""
    if not any(one.guesses for one in published):
        return None
    wagers = fold((one.right, one.guesses) for one in published)
    steps = []
    for one, wager in zip(published, wagers, strict=True):
        low, high = wager.interval(alpha)
        steps.append(
            StepPart(
                version=one.version,
                attempts=one.attempts,
                alpha_spent=one.alpha_spent,
                guesses=one.guesses,
                right=one.right,
                log_wealth=wager.log_wealth,
                low=low,
                high=high,
            )
        )
    last = wagers[-1]
    return SequencePart(null=CHANCE, alpha=alpha, steps=steps, peak=last.peak, alarm=last.alarm(alpha))


def draw_sequence(told: SequencePart) -> bytes:
    """E-value and its line of alarm, mean of the guesses with its bounds, attempts and error rate: by publication."""
    with style("sequence"):
        figure = new_figure(6.8, 5.4)
        wealth, mean, spent = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 2]})
        places = list(range(1, len(told.steps) + 1))
        _wealth(wealth, places, told)
        _mean(mean, places, told)
        _spent(spent, places, told)
        spent.set_xticks(places, [f"v{step.version}" for step in told.steps])
        spent.set_xlim(0.5, len(places) + 0.5)
        spent.set_xlabel("publication, by the version it made")
        return svg_of(figure)


def _wealth(axes: "Axes", places: list[int], told: SequencePart) -> None:
    line = -math.log10(told.alpha)
    axes.axhline(line, color=FORGET, linestyle="--", linewidth=1.2, label=f"alarm from {1 / told.alpha:g} on")
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    values = [step.log_wealth / math.log(10) for step in told.steps]
    axes.plot(places, values, "o-", color=HELD_OUT, linewidth=1.4, markersize=5, label="e-value")
    axes.set_ylim(min(*values, 0) - 0.4, max(*values, line) + 0.4)
    axes.set_ylabel("log10 of the e-value")
    axes.legend(loc="best", fontsize=8.5)


def _mean(axes: "Axes", places: list[int], told: SequencePart) -> None:
    right, guesses, means = 0.0, 0, []
    for step in told.steps:
        right, guesses = right + step.right, guesses + step.guesses
        means.append(right / guesses if guesses else told.null)
    for place, step in zip(places, told.steps, strict=True):
        axes.plot([place, place], [step.low, step.high], "_-", color=HELD_OUT, linewidth=1.4, markersize=9)
    axes.plot(places, means, "o", color=HELD_OUT, markersize=6)
    axes.axhline(told.null, color=INK, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of right guesses,\nall so far")


def _spent(axes: "Axes", places: list[int], told: SequencePart) -> None:
    spent = [step.alpha_spent for step in told.steps]
    axes.bar(places, spent, color=QUIET, alpha=0.6, width=0.5)
    for place, step in zip(places, told.steps, strict=True):
        label = f"{step.attempts} attempt{'' if step.attempts == 1 else 's'}"
        axes.text(place, step.alpha_spent, label, ha="center", va="bottom", fontsize=8.5)
    axes.set_ylim(0, 1.5 * max([told.alpha, *spent]))
    axes.set_ylabel("alpha spent")
