"""Records one by one: is any forgotten record, or their mean, further from its references than chance allows?

Few forgotten records are too few for a population test. Each has a z instead: how far the model's score lies from
what references that never saw the record say, in their standard deviations (`calibrated_scores` of `reference_auc`,
shrunk variance and Student's t, given as the normal quantile of its probability). Zero: like a model that never saw
it. Above: a leak. Below: a leak as well (over-forgotten). Two questions, with the verdict left to the caller:

- any record: Holm's correction over records of the one-sided p on the member side;
- all records: the mean z with its interval against a margin M, n <= 4: 3, n <= 19: 2, more: 1.5 standard deviations.

Records of one model move together (a seed that makes it surer makes it surer of all), so the variance of the mean is
(1 + (n - 1) rho) / n: with rho = 0.1 not even many records tell less than half a standard deviation from nothing.

References are trained on less than the served model, so z has a bias and a wrong scale. With 1,000 held-out records
under the same model their median, robust standard deviation and tail replace the assumed ones (an empirical null, Efron
2004). With fewer, Student's t is taken at its word. An empirical null forgives what a candidate does to all records
alike: gradient ascent that spreads held-out z eightfold lets a forgotten record lie eight times as far away. So `scale`
stands beside every answer, and `smallest_detectable` grows with it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.verification.multiple import holm
from service.verification.quantiles import normal_cdf, normal_quantile, student_quantile
from service.verification.statistics import POWER, Array, Clusters, Interval, NotMeasurable, clustering_effect

EMPIRICAL = 1000
"""Held-out records from which on they give the null distribution."""

MARGINS = ((4, 3.0), (19, 2.0))
WIDEST_SETS_MARGIN = 1.5

_ROBUST = 1.4826  # median absolute deviation to standard deviation, for a normal distribution
_COUNTED = 10  # null values above a z from which on their share is taken as it is
_TAIL = 0.1  # share of null values that the tail is fitted to
_SHORTEST = 0.1  # mean excess, in standard deviations, below which tied null values would make the tail end at once


@dataclass(frozen=True)
class PerRecord:
    """What n records of one model say together, in standard deviations of the null.

    `estimate` is the mean z, `ci` (level 1 - 2 alpha) for equivalence and `ci95` for failure; `smallest_p` the smallest
    Holm-adjusted p on the member side; `share` of records whose own p is at most 0.05, which is 0.05 without a leak;
    `margin` the M for so many records. From sizes and the null alone: `power_at_zero`, the probability that `ci` lies
    inside (-M, M) without a leak, and `smallest_detectable`, the mean shift in standard deviations between retrained
    models that a one-sided test at alpha finds with 80 % power. `centre` and `scale` of the null are 0 and 1 where it
    is assumed: far from these, the candidate treats never-seen records unlike any reference, which the estimate does
    not show.
    """

    estimate: float
    ci: Interval
    ci95: Interval
    smallest_p: float
    share: float
    margin: float
    power_at_zero: float
    smallest_detectable: float
    n: int
    rho: float
    null: Literal["empirical", "student"]
    centre: float
    scale: float


@dataclass(frozen=True)
class HeldOut:
    """z [m] of held-out records under the same model, and their subjects."""

    z: Array
    subjects: Clusters

    def __len__(self) -> int:
        return len(self.z)


@dataclass(frozen=True)
class _Null:
    centre: float
    scale: float
    spread: float  # standard deviation of a record once centred and scaled
    centre_variance: float
    freedom: float
    tail: Array | None  # centred and scaled null values; None: normal


def margin(n: int) -> float:
    """The largest mean z let pass with n records: few tell little, and 3 excludes near-complete failure only."""
    return next((value for most, value in MARGINS if n <= most), WIDEST_SETS_MARGIN)


def correlation(z: Array, groups: Clusters) -> float | NotMeasurable:
    """rho: mean product of z over pairs of records in one group, over the mean square, 0 at least and 1 at most.

    For records of one model, z [k] of held-out records under several models (each reference in turn judged by the
    others) with the model as group, as they come; for what an empirical null leaves, z under the candidate less its
    median, with a subject or a label as group. Not measurable without two groups that have pairs.
    """
    _, owner, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if np.count_nonzero(sizes > 1) < 2 or not np.any(z):
        return NotMeasurable("not measurable: a correlation takes two groups of two records or more")
    sums, squares = np.bincount(owner, z), np.bincount(owner, np.square(z))
    product = float((np.square(sums) - squares).sum() / (sizes * (sizes - 1)).sum())
    return min(1.0, max(0.0, product / float(np.square(z).mean())))


def per_record(
    z: Array, held_out: HeldOut, references: int, freedom: float, rho: float, alpha: float = 0.05
) -> PerRecord | NotMeasurable:
    """The two questions for forgotten records' z [n], judged by `references` OUT references each.

    `freedom`: degrees of freedom of the Student distribution behind z; `rho`: correlation of two records of one model,
    measured (`correlation`) or assumed; an empirical null has taken the part common to all records out already, so a
    rho between models is cautious there. Not measurable without records, or where held-out z do not vary or are of
    one subject.
    """
    if len(z) == 0:
        return NotMeasurable("not measurable: there are no forgotten records")
    null = _empirical(held_out) if len(held_out) >= EMPIRICAL else _Null(0.0, 1.0, 1.0, 0.0, freedom, None)
    if null is None:
        return NotMeasurable("not measurable: held-out records are of one subject, or lie alike to their references")
    n, widest = len(z), margin(len(z))
    values = (z - null.centre) / null.scale
    p = _upper(values, null.tail)
    estimate = float(values.mean())
    se = math.sqrt(null.spread**2 * (1 + (n - 1) * rho) / n + null.centre_variance)
    one_sided, two_sided = (student_quantile(level, null.freedom) for level in (1 - alpha, 0.975))
    return PerRecord(
        estimate,
        (estimate - one_sided * se, estimate + one_sided * se),
        (estimate - two_sided * se, estimate + two_sided * se),
        smallest_p=float(holm(p).min()),
        share=float(np.mean(p <= 0.05)),
        margin=widest,
        power_at_zero=max(0.0, 2 * normal_cdf(widest / se - one_sided) - 1),
        smallest_detectable=(one_sided + normal_quantile(POWER)) * se * null.scale * math.sqrt(1 + 1 / references),
        n=n,
        rho=rho,
        null="student" if null.tail is None else "empirical",
        centre=null.centre,
        scale=null.scale,
    )


def _empirical(held_out: HeldOut) -> _Null | None:
    """The null that held-out records give; None where half of them or more are equal, or all of one subject."""
    centre = float(np.median(held_out.z))
    scale = _ROBUST * float(np.median(np.abs(held_out.z - centre)))
    subjects = len(np.unique(held_out.subjects))
    if scale <= 0.0 or subjects < 2:
        return None
    values = (held_out.z - centre) / scale
    # The robust scale leaves heavy tails out, and a mean of few records does not.
    spread = max(1.0, float(values.std(ddof=1)))
    counted = len(values) / clustering_effect(held_out.z, held_out.subjects)
    # The variance of a median is pi / 2 times that of a mean.
    return _Null(centre, scale, spread, math.pi / 2 / counted, subjects - 1, values)


def _upper(values: Array, tail: Array | None) -> Array:
    """P(null >= value) [n]: normal, or the share of null values, beyond the tenth largest by a fitted tail.

    A generalised Pareto distribution over the largest tenth (Knijnenburg et al. 2009) by probability-weighted moments
    (Hosking and Wallis 1987), never lighter than exponential, so that a finite sample does not end the distribution.
    """
    from scipy.special import ndtr

    if tail is None:
        return np.asarray(ndtr(-values), dtype=np.float64)
    ordered = np.sort(tail)
    above = len(ordered) - np.searchsorted(ordered, values, side="left")
    share = (1 + above) / (len(ordered) + 1)
    kept = int(_TAIL * len(ordered))
    start = ordered[-kept - 1]
    beyond = _beyond(ordered[-kept:] - start, np.maximum(values - start, 0.0))
    return np.asarray(np.where(above >= _COUNTED, share, kept / len(ordered) * beyond), dtype=np.float64)


def _beyond(excess: Array, at: Array) -> Array:
    """P(excess >= at) [n] of the distribution fitted to `excess` [k], in ascending order."""
    k, mean = len(excess), float(excess.mean())
    weighted = float(((1 - (np.arange(1, k + 1) - 0.35) / k) * excess).mean())
    rest = mean - 2 * weighted
    shape = 2 - mean / rest if rest > 0 and mean > _SHORTEST else 0.0
    if shape <= 0:
        return np.asarray(np.exp(-at / max(mean, _SHORTEST)), dtype=np.float64)
    return np.asarray(np.exp(-np.log1p(shape * at * rest / (2 * mean * weighted)) / shape), dtype=np.float64)
