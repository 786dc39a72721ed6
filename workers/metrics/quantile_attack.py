"""Quantile-regression attack (Bertran et al., arXiv 2307.03694): membership at a chosen error, without references.

A regressor learns, from features of the record alone (array [m, d], no model output), how high the attacked model's
score of a never-seen record may be: its 1 - alpha quantile, by pinball loss on held-out records. A record that scores
higher is called a member. Where records differ in difficulty or spread that finds more than one threshold for all.

A regressor fits the records it learned from too closely, so its error on others exceeds alpha. Held-out subjects are
therefore dealt into folds, and in turn one fold is tested, one shifts the quantile until alpha of it lies above
(split conformal, Romano et al. 2019), and the rest are fitted: the false-positive rate is alpha whatever the fit.

A model that never saw the forgotten records calls a share near alpha of them members. More is a leak; far fewer says
that they are over-forgotten, which this one-sided attack measures poorly.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.verification.proportions import Proportion
from service.verification.statistics import Array, Clusters, Interval, NotMeasurable, clustering_effect

FOLDS = 5
ALPHA = 0.01
TREES = 1000
"""Fewer held-out records than this are fitted by a line, more by boosted trees."""


@dataclass(frozen=True)
class Examined:
    """Records [n] as the attacked model scores them (larger = more like a member), their features [n, d], subjects."""

    scores: Array
    features: Array
    subjects: Clusters

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class QuantileAttack:
    """Share of forgotten records called members, that of held-out ones (achieved, on folds left out), exact 95 %
    intervals on effective counts, and per record [n] the share of folds that call it one and its mean excess over
    the quantile, in units of the score."""

    rate: float
    ci95: Interval
    false_positive_rate: float
    false_positive_ci95: Interval
    alpha: float
    decisions: Array
    excess: Array


def quantile_attack(
    forget: Examined, held_out: Examined, alpha: float = ALPHA, seed: int = 0
) -> QuantileAttack | NotMeasurable:
    """Membership of forgotten records [n] by the quantile that held-out records [m] of like features stay under.

    Not measurable without forgotten records, with fewer held-out subjects than folds, and where a fold is smaller
    than 1 / alpha, so that no record of it may lie above.
    """
    if len(forget) == 0:
        return NotMeasurable("not measurable: there are no forgotten records")
    folds = _folds(held_out.subjects, seed)
    smallest = min(len(fold) for fold in folds)
    if smallest < math.ceil(1 / alpha):
        return NotMeasurable(
            f"not measurable: a false-positive rate of {alpha:g} takes {math.ceil(1 / alpha)} held-out records in each "
            f"of {FOLDS} parts, the smallest has {smallest}"
        )
    false = np.zeros(len(held_out))
    excess = np.zeros((FOLDS, len(forget)))
    for at, test in enumerate(folds):
        calibrate = folds[(at + 1) % FOLDS]
        fit = np.concatenate([folds[other % FOLDS] for other in range(at + 2, at + FOLDS)])
        quantile = _Quantile(held_out.features[fit], held_out.scores[fit], alpha, seed)
        shift = _shift(held_out.scores[calibrate] - quantile.at(held_out.features[calibrate]), alpha)
        false[test] = held_out.scores[test] - quantile.at(held_out.features[test]) > shift
        excess[at] = forget.scores - quantile.at(forget.features) - shift
    decisions = np.asarray((excess > 0).mean(axis=0), dtype=np.float64)
    return QuantileAttack(
        float(decisions.mean()),
        _bounds(decisions, forget.subjects),
        float(false.mean()),
        _bounds(false, held_out.subjects),
        alpha,
        decisions,
        np.asarray(excess.mean(axis=0), dtype=np.float64),
    )


def _folds(subjects: Clusters, seed: int) -> list[NDArray[np.int64]]:
    """Positions by fold, all of a subject's in one; a fold is empty where there are fewer subjects than folds."""
    names, owner = np.unique(subjects, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(len(names)) % FOLDS
    return [np.flatnonzero(dealt[owner] == fold) for fold in range(FOLDS)]


def _shift(residuals: Array, alpha: float) -> float:
    """The lowest residual such that a further, exchangeable one lies above it with probability alpha at most."""
    rank = math.ceil((1 - alpha) * (len(residuals) + 1) - 1e-9)
    return float(np.sort(residuals)[min(rank, len(residuals)) - 1])


class _Quantile:
    """Regression of the 1 - alpha quantile on standardised features."""

    def __init__(self, features: Array, scores: Array, alpha: float, seed: int) -> None:
        self._mean, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that stops early is a weaker attack, not an error
            self._model = _regressor(len(scores), alpha, seed).fit(self._scaled(features), scores)

    def _scaled(self, features: Array) -> Array:
        return np.asarray((features - self._mean) / self._spread, dtype=np.float64)

    def at(self, features: Array) -> Array:
        return np.asarray(self._model.predict(self._scaled(features)), dtype=np.float64)


def _regressor(size: int, alpha: float, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import QuantileRegressor

    if size < TREES:
        return QuantileRegressor(quantile=1 - alpha, alpha=1e-3, solver="highs")
    # A leaf with fewer than 1 / alpha records has no record above its quantile to learn from.
    leaf = max(20, math.ceil(1 / alpha))
    return HistGradientBoostingRegressor(
        loss="quantile", quantile=1 - alpha, min_samples_leaf=leaf, random_state=seed, early_stopping=False
    )


def _bounds(decisions: Array, subjects: Clusters) -> Interval:
    made = Proportion(float(decisions.sum()), len(decisions))
    return made.effective(clustering_effect(decisions, subjects)).interval()
