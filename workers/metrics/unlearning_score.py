"""Score of the NeurIPS 2023 unlearning competition (report: arXiv 2406.09073; google-deepmind/unlearning_evaluation).

For each forgotten record an attack tells margins of unlearned from margins of retrained models by a threshold, and
epsilon = max over thresholds of ln((1 - delta - FPR) / FNR) and ln((1 - delta - FNR) / FPR), delta = 1e-5, says how
well it can. Thresholds with one rate of 0 are dropped, both 0 is infinite, epsilon ends at 50. A record with epsilon
in [j/2, (j+1)/2) earns 2^-j points, none from ceil(ln(N - 1)) on. F, the mean of the points, times the candidate's
accuracy over the retrained models', on retained and on held-out records, is the score.

Two readings. Thresholds are those between any two margins, the positive side is the one with the larger median; the
code's second family, intervals around the narrower side, is left out, and its rule that a side with less than 1 % of
the other's range has epsilon 50 is kept. And since epsilon is a maximum, F of a further retrain is no 1 but 0.3 to 0.4
whatever N: the score here is divided by what retrained models score among themselves. 1: a further retrain. Below:
told apart, in either direction. A ranking, no bound on anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import Array, Clusters, Mean, NotMeasurable, clustered_mean

DELTA = 1e-5
CAP = 50.0
BUCKET = 0.5
FEWEST = 8
"""Models a side below which there are too few thresholds to speak of."""

_NARROWEST = 0.01


@dataclass(frozen=True)
class Score:
    """`quality` is F with its error over records, `null` the same among retrained models, `utility` the accuracies'
    ratios multiplied."""

    quality: Mean
    null: float
    utility: float

    @property
    def estimate(self) -> float:
        """The competition's score over its null: 1 for a further retrain."""
        return self.published / self.null

    @property
    def published(self) -> float:
        """The competition's score as it was published, F times utility."""
        return self.quality.estimate * self.utility


def unlearning_score(
    quality: Mean, null: Sequence[Mean], accuracies: tuple[tuple[float, float], tuple[float, float]]
) -> Score | NotMeasurable:
    """The score of F (`forgetting_quality`) over the mean F of retrained models among themselves (`quality_null`).

    `accuracies`: (own, retrained models') means on retained and on held-out records. Not measurable where retrained
    models are never right or have no F of their own.
    """
    floor = float(np.mean([one.estimate for one in null]))
    if floor <= 0.0 or min(against for _, against in accuracies) <= 0.0:
        return NotMeasurable("not measurable: the retrained models give nothing to divide by")
    return Score(quality, floor, math.prod(own / against for own, against in accuracies))


def forgetting_quality(unlearned: Array, retrained: Array, subjects: Clusters) -> Mean | NotMeasurable:
    """F, 0 to 1, from margins [u, k] of unlearned and [r, k] of retrained models on the records of `subjects` [k].

    Its error is over records; the models are taken as given. Not measurable with fewer than 8 models a side.
    One candidate, u = 1, is told apart perfectly or not at all: F is then the share of records on which it lies within
    the retrained models' range. It meets all but one of them in turn, as each of them does in the null, so a further
    retrain has (r - 2) / r on average.
    """
    have = len(retrained) if len(unlearned) == 1 else min(len(unlearned), len(retrained))
    if have < FEWEST:
        return NotMeasurable(f"not measurable: the score takes {FEWEST} models a side, there are {have}")
    if len(unlearned) > 1:
        return clustered_mean(_earned(unlearned, retrained), subjects)
    left = [_earned(unlearned, np.delete(retrained, at, axis=0)) for at in range(len(retrained))]
    return clustered_mean(np.mean(left, axis=0), subjects)


def quality_null(retrained: Array, unlearned: int, subjects: Clusters, seed: int) -> Sequence[Mean] | NotMeasurable:
    """F of retrained models [r, k] among themselves, in the place of `unlearned` models.

    Each against the rest where there is one candidate; else one half against the other, drawn at random. Not
    measurable with fewer than 8 models, or 16 for two halves.
    """
    needed = FEWEST if unlearned == 1 else 2 * FEWEST
    if len(retrained) < needed:
        return NotMeasurable(f"not measurable: the null takes {needed} retrained models, there are {len(retrained)}")
    order = np.random.default_rng(seed).permutation(len(retrained))
    chosen = np.arange(len(order))[:, None] if unlearned == 1 else order[None, : len(order) // 2]
    return [clustered_mean(_earned(retrained[one], np.delete(retrained, one, axis=0)), subjects) for one in chosen]


def _earned(unlearned: Array, retrained: Array) -> Array:
    models = len(retrained) if len(unlearned) == 1 else min(len(unlearned), len(retrained))
    return points(epsilons(unlearned, retrained), models)


def points(epsilon: Array, models: int) -> Array:
    """Points [k] of each epsilon: 1, a half, a quarter, ... for each half unit, 0 from ceil(ln(models - 1)) on."""
    step = np.floor(np.asarray(epsilon) / BUCKET)
    last = math.ceil(math.log(models - 1)) / BUCKET
    return np.asarray(np.where(step < last, np.exp2(-np.minimum(step, last)), 0.0), dtype=np.float64)


def epsilons(unlearned: Array, retrained: Array) -> Array:
    """Epsilon [k] of each record, 0 to 50, from margins [u, k] of unlearned and [r, k] of retrained models."""
    missed, false = _rates(unlearned, retrained)
    kept = (missed > 0) & (false > 0)
    # A rate within delta of 1 leaves nothing to take a logarithm of; its other direction is below 0 anyway.
    odds = [np.maximum(1 - DELTA - a, b) / np.where(kept, b, 1.0) for a, b in ((false, missed), (missed, false))]
    best = np.where(kept, np.log(np.maximum(np.maximum(*odds), 1.0)), 0.0).max(axis=0)
    separate = np.any((missed == 0) & (false == 0), axis=0)
    narrow, wide = (f(np.ptp(unlearned, axis=0), np.ptp(retrained, axis=0)) for f in (np.minimum, np.maximum))
    collapsed = (narrow < _NARROWEST * wide) & (len(unlearned) > 1)
    return np.asarray(np.where(separate | collapsed, CAP, np.minimum(best, CAP)), dtype=np.float64)


def _rates(unlearned: Array, retrained: Array) -> tuple[Array, Array]:
    """(share of the upper side missed, share of the lower side taken for it) [u + r, k], "upper where >= threshold".

    Thresholds are the margins in ascending order; those equal to the one before are nan, and neither above 0 nor 0.
    """
    pooled = np.concatenate([unlearned, retrained])
    order = np.argsort(pooled, axis=0, kind="stable")
    ordered = np.take_along_axis(pooled, order, axis=0)
    own_above = np.median(unlearned, axis=0) >= np.median(retrained, axis=0)
    upper = (order < len(unlearned)) == own_above
    missed, below = np.cumsum(upper, axis=0) - upper, np.cumsum(~upper, axis=0) - ~upper
    repeated = np.concatenate([np.zeros((1, pooled.shape[1]), dtype=bool), ordered[1:] == ordered[:-1]])
    above, rest = upper.sum(axis=0), (~upper).sum(axis=0)
    return np.where(repeated, np.nan, missed / above), np.where(repeated, np.nan, 1 - below / rest)
