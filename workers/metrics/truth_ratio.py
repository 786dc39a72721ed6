"""Truth ratio and forget quality (TOFU, arXiv 2401.06121): does the candidate prefer right answers more than a retrain?

For each question the truth ratio is the probability of wrong answers over that of a paraphrased right one, each to the
power of one over its number of tokens. A model that knows the answer has a low one. Forget quality compares the ratios
on the forgotten questions under candidate and retrain by the two-sample Kolmogorov-Smirnov test. The benchmark reports
its p-value, which says as much about the number of questions as about the model: 40 questions reject only a distance
above 0.30. Here the distance with its bounds is the figure, and the p-value stands beside it. 0: like the retrain.
Larger: a leak, or over-forgetting; which one, the ratios themselves say.

Two readings are in use for several wrong answers: their geometric mean (what the benchmark's forget quality is computed
from, and the default here) or the arithmetic mean of the paper's formula.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.verification.kolmogorov import kolmogorov
from service.verification.statistics import Array, Clusters, Interval, NotMeasurable

DRAWS = 1000


@dataclass(frozen=True)
class ForgetQuality:
    """`distance` 0 to 1 with its 95 % bounds, the benchmark's `p_value`, over `n` questions about so many subjects.

    The bounds are over subjects and take both models as given; None for a single subject.
    """

    distance: float
    ci95: Interval | None
    p_value: float
    n: int
    subjects: int


def truth_ratio(right: Array, wrong: Array, mean: Literal["geometric", "arithmetic"] = "geometric") -> Array:
    """Truth ratio of each question [n] from mean log probabilities per token: of the right paraphrase [n] and of the
    wrong answers [n, w]. inf where it is beyond floating point."""
    with np.errstate(over="ignore"):
        ratios = np.exp(wrong.mean(axis=1) - right if mean == "geometric" else wrong - right[:, None])
    return np.asarray(ratios if mean == "geometric" else ratios.mean(axis=1), dtype=np.float64)


def forget_quality(
    candidate: Array, retrained: Array, subjects: Clusters, seed: int, draws: int = DRAWS
) -> ForgetQuality | NotMeasurable:
    """Distance of the truth ratios [n] of candidate and retrain on the same questions.

    Bounds: subjects are drawn with replacement, both models' ratios together, and 95 % of the draws move the difference
    of the two distribution functions by no more than the bounds' half width anywhere. The distance is the greatest of
    these differences, so the bounds cover it at least as often, at 0 too, where quantiles of redrawn distances do not.
    Not measurable without questions, or where a ratio is nan.
    """
    from scipy.stats import ks_2samp

    if not len(candidate) or np.isnan(candidate).any() or np.isnan(retrained).any():
        return NotMeasurable("not measurable: the distance takes a truth ratio of every question under both models")
    found = kolmogorov(candidate, retrained).distance
    people = len(np.unique(subjects))
    bounds = _bounds(found, candidate, retrained, subjects, seed, draws) if people > 1 else None
    return ForgetQuality(found, bounds, float(ks_2samp(candidate, retrained).pvalue), len(candidate), people)


def _bounds(found: float, candidate: Array, retrained: Array, subjects: Clusters, seed: int, draws: int) -> Interval:
    names, owner = np.unique(subjects, return_inverse=True)
    pooled = np.concatenate([candidate, retrained])
    order = np.argsort(pooled, kind="stable")
    ordered = pooled[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    side = np.where(order < len(candidate), 1.0, -1.0)
    owners = np.concatenate([owner, owner])[order]
    observed = np.cumsum(side) / len(candidate)
    random, chance = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    drawn = np.empty(draws)
    for at in range(draws):
        weights = random.multinomial(len(names), chance)[owners]
        gaps = np.cumsum(side * weights) / (weights.sum() / 2)
        drawn[at] = np.abs(gaps - observed)[last].max()
    reach = float(np.quantile(drawn, 0.95))
    return max(0.0, found - reach), min(1.0, found + reach)
