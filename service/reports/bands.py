"""How sure a ROC is: at each threshold both of its rates have exact bounds, and the curve runs between the corners.

A threshold makes a false positive rate of held-out records and a true positive rate of forgotten ones. Clopper-Pearson
bounds (1934) of 97.5 % on each hold together with 95 % at least; those of one threshold say nothing about all others at
once. Records of one person are no independent trials: both are computed on effective counts (Korn and Graubard 1998).
"""

import functools
from typing import TYPE_CHECKING

from service.reports.scores import ModelScores
from service.verification.proportions import Proportion
from service.verification.statistics import clustering_effect

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
_THRESHOLDS = 24
"""At most so many of each set: more bounds than a figure can show."""


def roc_band(
    scores: ModelScores, higher_is_member: bool, rates: "NDArray[np.float64]"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """(lowest, highest) true positive rate [g] at each false positive rate of `rates` [g], increasing, in (0, 1].

    Lowest: the best that a threshold shows which surely makes no more false positives; highest: the least that one
    allows which surely makes no fewer. 0 and 1 where no threshold is sure of it.
    """
    import numpy as np

    sign = 1.0 if higher_is_member else -1.0
    forget, held_out = np.sort(sign * scores.forget), np.sort(sign * scores.held_out)
    thresholds = np.unique(np.concatenate([_upper_quantiles(forget), _upper_quantiles(held_out)]))
    found = _bounds(forget, thresholds, _effect(scores.forget, scores, 0))
    false = _bounds(held_out, thresholds, _effect(scores.held_out, scores, 1))
    sure, possible = false[:, 1, None] <= rates, false[:, 0, None] >= rates
    low = np.where(sure, found[:, 0, None], 0.0).max(axis=0)
    high = np.where(possible, found[:, 1, None], 1.0).min(axis=0)
    return low, high


def _upper_quantiles(ordered: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The k-th largest values for k spaced by ratio, as the axes are."""
    import numpy as np

    ranks = np.unique(np.geomspace(1, len(ordered), _THRESHOLDS).round().astype(int))
    values: NDArray[np.float64] = ordered[-ranks]
    return values


def _effect(values: "NDArray[np.float64]", scores: ModelScores, side: int) -> float:
    """How many times records of the same people widen a rate; 1 where the tables do not say whose they are."""
    return 1.0 if scores.subjects is None else clustering_effect(values, scores.subjects[side])


def _bounds(ordered: "NDArray[np.float64]", thresholds: "NDArray[np.float64]", effect: float) -> "NDArray[np.float64]":
    """Bounds [t, 2] on the share of values that reach each threshold [t]."""
    import numpy as np

    n = len(ordered)
    counts = n - np.searchsorted(ordered, thresholds, side="left")
    return np.array([_interval(float(count), float(n), effect) for count in counts])


@functools.lru_cache(maxsize=4096)
def _interval(found: float, trials: float, effect: float) -> tuple[float, float]:
    # The bound at each end is exceeded with half of what is left, so that two rates together keep to CONFIDENCE.
    return Proportion(found, trials).effective(effect).interval((1 + CONFIDENCE) / 2)
