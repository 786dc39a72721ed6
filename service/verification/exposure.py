"""Exposure of planted strings: in bits, how far a canary stands out among strings of its kind that were never seen.

Carlini et al. (1802.08232), "The Secret Sharer", with ranks among a sample R of references ("interpolation"): log2 |R|
- log2 rank. It is log2 |R| for a canary more likely than every reference, and exponential with mean 1 / ln 2 = 1.44
bits for one that left no trace. More is a leak; a mean well below it is over-forgetting.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.verification.quantiles import regularised_beta, student_quantile

Array = NDArray[np.float64]
Ranks = NDArray[np.int64]
Interval = tuple[float, float]

NULL_MEAN = 1 / math.log(2)
"""Mean exposure in bits of canaries that left no trace, among many references."""


def ranks(losses: Array, reference_losses: Array) -> Ranks:
    """The rank of each canary among all references and itself, 1 for the lowest loss; [canaries] from 1 to |R| + 1.

    Ties go to the references, so that p-values stay valid for a model that finds many strings equally likely. Losses
    are in any unit, as long as it is the same: per string, for strings of the same length. Raises ValueError for nan.
    """
    if np.isnan(losses).any() or np.isnan(reference_losses).any() or len(reference_losses) == 0:
        raise ValueError("ranks take losses that are numbers, and at least one reference")
    below = np.searchsorted(np.sort(reference_losses), losses, side="right")
    return np.asarray(below + 1, dtype=np.int64)


def exposure(rank: Ranks, references: int) -> Array:
    """log2 |R| - log2 rank in bits: at most log2 |R|, and a trifle below 0 for a canary behind every reference."""
    return np.asarray(math.log2(references) - np.log2(rank), dtype=np.float64)


def p_values(rank: Ranks, references: int) -> Array:
    """P-value of "this canary left no trace", for each: rank / (|R| + 1), exact where canary and references were drawn
    from one generator, and 1 / (|R| + 1) at least.
    """
    return np.asarray(rank / (references + 1), dtype=np.float64)


def null_mean(references: int) -> float:
    """Mean exposure without a trace among so many references, exactly: uniform ranks; 1.44 bits for many."""
    return math.log2(references) - math.lgamma(references + 2) / math.log(2) / (references + 1)


@dataclass(frozen=True)
class MeanExposure:
    """Mean exposure in bits of `canaries` ranked among the same `references`; `sd` is that between canaries."""

    mean: float
    sd: float
    canaries: int
    references: int

    @property
    def effective(self) -> float:
        """As many canaries with references of their own would be as uncertain: the shared references' error is in all.

        1 / c + 1 / |R|: the mean of -log2 of an empirical distribution has the same variance per reference as per
        canary, 1 / ln(2)^2.
        """
        return self.canaries * self.references / (self.canaries + self.references)

    def interval(self, confidence: float = 0.95) -> Interval:
        """Two-sided bounds of the mean; of the two below, on each side the wider one.

        Sums of exponential exposures are gamma: exact without a leak, and for exposures that are spread like that
        around another mean. Student's t on the canaries' own spread: where a few are remembered and most are not, they
        vary more than exponential ones. Skewness that neither knows remains: with 20 canaries, one in ten of them
        remembered, the upper bound of 95 % is too low in 7 % of draws, and in 12 % for a model that over-forgot.
        """
        from scipy.stats import gamma

        tail, size = (1 - confidence) / 2, self.effective
        low = self.mean * size / float(gamma.isf(tail, size))
        high = self.mean * size / float(gamma.ppf(tail, size))
        if self.canaries > 1:
            width = student_quantile(1 - tail, self.canaries - 1) * self.sd / math.sqrt(size)
            low, high = min(low, self.mean - width), max(high, self.mean + width)
        return max(0.0, low), high


def mean_exposure(bits: Array, references: int) -> MeanExposure:
    """The mean exposure of canaries ranked among the same references. Raises ValueError for no canary."""
    if len(bits) == 0:
        raise ValueError("no canary has no mean exposure")
    sd = float(bits.std(ddof=1)) if len(bits) > 1 else math.nan
    return MeanExposure(float(bits.mean()), sd, len(bits), references)


def exposure_within(
    losses: Array, references: Array, kinds: NDArray[np.str_], reference_kinds: NDArray[np.str_]
) -> tuple[Array, MeanExposure, float]:
    """(exposure in bits of each canary [c] among the references of its own kind, their mean, that without a trace).

    Kinds differ in how hard they are: ranked together, an easy kind without a trace stands before the hard references,
    and a trace of a hard one is hidden by the easy ones. `references` of the mean are as many as would leave the same
    uncertainty in one list. Raises ValueError as `ranks` does, also for a kind of canary without references.
    """
    bits, null, shared = np.zeros(len(losses)), 0.0, 0.0
    for kind in np.unique(kinds):
        mine, theirs = kinds == kind, references[reference_kinds == kind]
        bits[mine] = exposure(ranks(losses[mine], theirs), len(theirs))
        share = float(mine.mean())
        null += share * null_mean(len(theirs))
        shared += share**2 / len(theirs)
    return bits, mean_exposure(bits, max(1, round(1 / shared)) if shared else 0), null


def rank_one_limit(canaries: int, references: int, level: float = 0.995, shared: bool = True) -> int:
    """How many canaries may rank before every reference: without a trace, there are no more with probability `level`.

    With references of its own each canary ranks first with chance 1 / (|R| + 1), and the number is binomial. With
    `shared` references all canaries are compared with the same best one: the chance that k of c and |R| strings in
    random order come first is c (c - 1) ... / (c + |R|) (c + |R| - 1) ..., which has a longer tail.
    """
    limit, more = 0, _first(1, canaries, references, shared)
    while more > 1 - level:
        limit += 1
        more = _first(limit + 1, canaries, references, shared)
    return limit


def rank_one_bound(canaries: int, references: int, level: float = 0.995) -> int:
    """The largest sum of `rank_one_limit` over two kinds or one, however so many canaries, at least one, are divided.

    `references` as `exposure_within` counts them, 1 / sum of share^2 / |R| rounded: a kind has at least share^2 as
    many. `level` is divided between the kinds.
    """

    def most(count: int) -> int:
        least = max(1, math.ceil((count / canaries) ** 2 * (references - 0.5) - 1e-9))
        return rank_one_limit(count, least, 1 - (1 - level) / 2)

    return max(most(first) + most(canaries - first) for first in range(canaries // 2 + 1))


def _first(count: int, canaries: int, references: int, shared: bool) -> float:
    """P(at least `count` canaries rank first)."""
    if count > canaries:
        return 0.0
    if not shared:
        return regularised_beta(1 / (references + 1), count, canaries - count + 1)
    return math.prod((canaries - at) / (canaries + references - at) for at in range(count))
