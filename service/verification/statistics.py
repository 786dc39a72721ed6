"""Intervals clustered by data subject: AUC, means and ratios, and what a design could have found.

All functions are pure. Arrays are one-dimensional, one entry per record; `clusters` names the data subject of each.
Records of one subject resemble each other, so the subject and not the record is the unit that varies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.verification.quantiles import normal_cdf, normal_quantile, student_p, student_quantile

Array = NDArray[np.float64]
Clusters = NDArray[Any]
Interval = tuple[float, float]

POWER = 0.8
"""The power at which the smallest detectable effect is stated."""

_SMALL = 30
_NEAR = 0.1
_EDGE = 0.05
_HALVINGS = 100
_SMALLEST_P = 1e-12


@dataclass(frozen=True)
class NotMeasurable:
    """What a metric answers where these records allow no number."""

    reason: str


@dataclass(frozen=True)
class Auc:
    """An AUC with its clustered standard error. `clusters` counts the subjects of members and of others."""

    auc: float
    se: float
    n: int
    m: int
    clusters: tuple[int, int]

    @property
    def df(self) -> int:
        """Degrees of freedom: those of the side with fewer subjects, which is conservative."""
        return min(self.clusters) - 1

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds, never of zero width; (0, 1) where one side is a single subject.

        Wald with Student's t in the middle, on the logit scale near 0 and 1 or below 30 records. Where the variance
        estimate is zero it is Newcombe's score interval (2006, method 5) with subjects as observations, and within
        0.05 of 0 or 1, where that estimate is too small, the wider of the two on each side.
        """
        if self.df < 1:
            return 0.0, 1.0
        t = student_quantile(0.5 + confidence / 2, self.df)
        edge = min(self.auc, 1.0 - self.auc)
        if self.se <= 1e-12 or edge <= 0.0:
            return _newcombe(self.auc, *self.clusters, t)
        if min(self.n, self.m) >= _SMALL and edge >= _NEAR:
            return max(0.0, self.auc - t * self.se), min(1.0, self.auc + t * self.se)
        low, high = _logit_interval(self.auc, t * self.se)
        if edge < _EDGE:
            least, most = _newcombe(self.auc, *self.clusters, t)
            return min(low, least), max(high, most)
        return low, high

    def p_value(self) -> float:
        """Two-sided p of "the AUC is 0.5": the level at which the interval begins to leave 0.5 out; 1e-12 at least."""
        return max(_SMALLEST_P, student_p(self._distance(), self.df)) if self.df >= 1 else 1.0

    def _distance(self) -> float:
        """Student's t at which the bounds of `interval` meet 0.5."""
        away, edge = abs(self.auc - 0.5), min(self.auc, 1.0 - self.auc)
        score = away / _newcombe_se(0.5, *self.clusters)
        if self.se <= 1e-12 or edge <= 0.0:
            return score
        if min(self.n, self.m) >= _SMALL and edge >= _NEAR:
            return away / self.se
        logit = abs(math.log(self.auc / (1.0 - self.auc))) * self.auc * (1.0 - self.auc) / self.se
        return min(logit, score) if edge < _EDGE else logit


def clustered_auc(members: Array, others: Array, member_clusters: Clusters, other_clusters: Clusters) -> Auc:
    """P(member scores above other), ties one half, with the clustered DeLong variance (Obuchowski 1997).

    Subjects on the two sides count as different ones: a subject with records on both would only narrow the interval.
    """
    member_parts, other_parts = placements(members, others)
    first, subjects = _variance_of_mean(member_parts, member_clusters)
    second, other_subjects = _variance_of_mean(other_parts, other_clusters)
    se = math.sqrt(first + second)
    return Auc(float(member_parts.mean()), se, len(members), len(others), (subjects, other_subjects))


def placements(members: Array, others: Array) -> tuple[Array, Array]:
    """For each member the share of others below it, for each other that of members above it: both average to the AUC.

    They are the influences that DeLong's variance is made of; ties count one half.
    """
    return _share_below(np.sort(others), members), 1.0 - _share_below(np.sort(members), others)


def _share_below(sorted_values: Array, at: Array) -> Array:
    left = np.searchsorted(sorted_values, at, side="left")
    right = np.searchsorted(sorted_values, at, side="right")
    return np.asarray((left + right) / (2.0 * len(sorted_values)), dtype=np.float64)


def _cluster_sums(values: Array, clusters: Clusters) -> Array:
    _, inverse = np.unique(clusters, return_inverse=True)
    return np.asarray(np.bincount(inverse, weights=values), dtype=np.float64)


def _variance_of_sum(values: Array, clusters: Clusters) -> tuple[float, int]:
    """(clustered variance of the sum of values of mean zero, number of clusters); nan for one cluster."""
    sums = _cluster_sums(values, clusters)
    count = len(sums)
    if count < 2:
        return math.nan, count
    return float(count / (count - 1) * np.square(sums).sum()), count


def _variance_of_mean(values: Array, clusters: Clusters) -> tuple[float, int]:
    variance, count = _variance_of_sum(values - values.mean(), clusters)
    return variance / len(values) ** 2, count


def _newcombe_se(x: float, n: int, m: int) -> float:
    spread = 1 + ((n + m) / 2 - 1) * ((1 - x) / (2 - x) + x / (1 + x))
    return math.sqrt(max(x * (1 - x) * spread / (n * m), 0.0))


def _newcombe(auc: float, n: int, m: int, t: float) -> Interval:
    """Bounds where |auc - x| = t sqrt(V(x)), V the exponential-model variance of Hanley and McNeil (1982)."""

    def outside(x: float) -> bool:
        return abs(auc - x) > t * _newcombe_se(x, n, m)

    return _bound(auc, 0.0, outside), _bound(auc, 1.0, outside)


def _bound(inside: float, end: float, outside: Callable[[float], bool]) -> float:
    if not outside(end):
        return end
    for _ in range(_HALVINGS):
        middle = (inside + end) / 2
        if outside(middle):
            end = middle
        else:
            inside = middle
    return inside


def _logit_interval(value: float, width: float) -> Interval:
    middle, scaled = math.log(value / (1 - value)), width / (value * (1 - value))
    return _expit(middle - scaled), _expit(middle + scaled)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


@dataclass(frozen=True)
class Mean:
    """A mean, difference or ratio with its clustered standard error. `clusters` counts subjects."""

    estimate: float
    se: float
    n: int
    clusters: int

    def interval(self, confidence: float) -> Interval | None:
        """Two-sided bounds by Student's t over subjects; None for a single subject."""
        if self.clusters < 2:
            return None
        width = student_quantile(0.5 + confidence / 2, self.clusters - 1) * self.se
        return self.estimate - width, self.estimate + width


def clustered_mean(values: Array, clusters: Clusters) -> Mean:
    """Mean of the values; records weigh alike, subjects are the unit of variance."""
    variance, count = _variance_of_mean(values, clusters)
    return Mean(float(values.mean()), math.sqrt(variance), len(values), count)


def clustered_ratio(numerator: Array, denominator: Array, clusters: Clusters) -> Mean:
    """Sum of the numerators over sum of the denominators, variance by linearisation (Cochran 1977, chapter 6).

    The denominators must not sum to zero.
    """
    total = float(denominator.sum())
    ratio = float(numerator.sum()) / total
    return influenced(ratio, (numerator - ratio * denominator) / total, clusters)


def influenced(estimate: float, influence: Array, clusters: Clusters) -> Mean:
    """An estimate whose error is the sum of the per-record influences, which sum to zero."""
    variance, count = _variance_of_sum(influence, clusters)
    return Mean(estimate, math.sqrt(variance), len(influence), count)


def clustering_effect(values: Array, clusters: Clusters) -> float:
    """How many times the variance of the mean grows because records share subjects; at least 1.

    Computed on mid-ranks within the group, which is what an AUC under the null hypothesis is made of.
    """
    ranks = _share_below(np.sort(values), values)
    clustered, count = _variance_of_mean(ranks, clusters)
    alone = float(np.square(ranks - ranks.mean()).sum()) / max(len(ranks) - 1, 1) / len(ranks)
    if count < 2 or alone <= 0.0:
        return 1.0
    return max(1.0, clustered / alone)


@dataclass(frozen=True)
class AucDesign:
    """What an AUC of so many records and subjects can show, before any score of the candidate is looked at."""

    se: float
    df: int

    def power_at_zero(self, margin: float, alpha: float) -> float:
        """Probability that the 1 - 2 alpha interval lies inside 0.5 +- margin when the true AUC is 0.5."""
        if self.df < 1:
            return 0.0
        return max(0.0, 2 * normal_cdf(margin / self.se - student_quantile(1 - alpha, self.df)) - 1)

    def smallest_detectable(self, alpha: float) -> float | None:
        """Distance from 0.5 that a one-sided test at alpha finds with 80 % power; None where 0.5 is too little."""
        if self.df < 1:
            return None
        size = (student_quantile(1 - alpha, self.df) + normal_quantile(POWER)) * self.se
        return size if size < 0.5 else None


def auc_design(n: int, m: int, effects: tuple[float, float], clusters: tuple[int, int]) -> AucDesign:
    """Null standard error sqrt(e1/12n + e2/12m + 1/12mn); without clustering that is sqrt((m+n+1)/12mn)."""
    variance = effects[0] / (12 * n) + effects[1] / (12 * m) + 1 / (12 * n * m)
    return AucDesign(math.sqrt(variance), min(clusters) - 1)


@dataclass(frozen=True)
class MeanDesign:
    """What a mean difference with this standard error can show."""

    se: float
    df: int

    def power_at_zero(self, margin: float, alpha: float) -> float:
        """Probability that the lower 1 - alpha bound is above -margin when nothing has changed."""
        if self.df < 1:
            return 0.0
        if self.se <= 0.0:
            return 1.0
        return normal_cdf(margin / self.se - student_quantile(1 - alpha, self.df))

    def smallest_detectable(self, alpha: float) -> float | None:
        """The loss that a one-sided test at alpha finds with 80 % power."""
        if self.df < 1:
            return None
        return (student_quantile(1 - alpha, self.df) + normal_quantile(POWER)) * self.se


def threshold_at(others: Array, false_positive_rate: float) -> float:
    """The lowest observed threshold that at most this share of the others lies strictly above."""
    allowed = math.floor(false_positive_rate * len(others) + 1e-9)
    return float(np.sort(others)[::-1][min(allowed, len(others) - 1)])
