"""Intervals for the gate: clustered by person, never of zero width, with their power. scipy is loaded when called.

Sources: DeLong et al. 1988 and its clustered form Obuchowski 1997 (Biometrics 53, 567); Hanley and McNeil 1982;
Clopper and Pearson 1934.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Interval = tuple[float, float]
_NORMAL = NormalDist()
_FEW_RECORDS = 30
_NEAR_EDGE = 0.05


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and degrees of freedom; `logit` intervals are formed on the log-odds scale."""

    value: float
    se: float
    df: float
    clusters: tuple[int, int]
    logit: bool = False
    edge: int | None = None

    def interval(self, alpha_each_side: float) -> Interval:
        """The two-sided interval that leaves `alpha_each_side` on each side."""
        if self.edge is not None:
            return _edge_interval(self.value, self.edge, alpha_each_side)
        from scipy import stats

        reach = float(stats.t.ppf(1 - alpha_each_side, self.df)) * self.se
        if not self.logit:
            return self.value - reach, self.value + reach
        odds, reach = math.log(self.value / (1 - self.value)), reach / (self.value * (1 - self.value))
        return _expit(odds - reach), _expit(odds + reach)


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _edge_interval(value: float, clusters: int, alpha: float) -> Interval:
    # Complete separation: as in Clopper-Pearson with every one of the people on one side.
    bound = alpha ** (1 / clusters)
    return (bound, 1.0) if value > 0.5 else (0.0, 1 - bound)


def auc(members: "NDArray[np.float64]", others: "NDArray[np.float64]") -> float:
    """Chance that a score of `members` [n] exceeds one of `others` [m]; ties count one half."""
    return float(_placements(members, others).mean())


def _placements(scores: "NDArray[np.float64]", against: "NDArray[np.float64]") -> "NDArray[np.float64]":
    import numpy as np

    ordered = np.sort(against)
    below = np.searchsorted(ordered, scores, side="left")
    at_most = np.searchsorted(ordered, scores, side="right")
    placements: NDArray[np.float64] = (below + at_most) / (2.0 * len(ordered))
    return placements


def clustered_auc(
    members: "NDArray[np.float64]",
    others: "NDArray[np.float64]",
    member_clusters: "NDArray[np.str_]",
    other_clusters: "NDArray[np.str_]",
) -> Estimate:
    """AUC of `members` [n] over `others` [m] with the clustered DeLong variance (Obuchowski 1997, equation 2).

    Clusters are disjoint between the two sides, so the cross term vanishes. Degrees of freedom by Welch-Satterthwaite.
    Scores that separate the sides completely, or that are all equal, still get an interval: by the number of people.
    """
    first, second = _placements(members, others), 1 - _placements(others, members)
    value = float(first.mean())
    variance_1, people_1 = _cluster_variance(first, member_clusters)
    variance_2, people_2 = _cluster_variance(second, other_clusters)
    clusters = (people_1, people_2)
    if min(clusters) < 2:
        return Estimate(value, math.inf, 1.0, clusters)
    total = variance_1 + variance_2
    if value in (0.0, 1.0):
        return Estimate(value, 0.0, 1.0, clusters, edge=min(clusters))
    if total <= 0:  # constant scores: as uncertain as chance among so many people
        total = (people_1 + people_2 + 1) / (12 * people_1 * people_2)
        return Estimate(value, math.sqrt(total), min(clusters) - 1, clusters)
    df = total**2 / (variance_1**2 / (people_1 - 1) + variance_2**2 / (people_2 - 1))
    logit = min(len(members), len(others)) < _FEW_RECORDS or min(value, 1 - value) < _NEAR_EDGE
    return Estimate(value, math.sqrt(total), df, clusters, logit=logit)


def _cluster_variance(values: "NDArray[np.float64]", clusters: "NDArray[np.str_]") -> tuple[float, int]:
    """Variance of the mean of `values` [n] when whole clusters are drawn, and the number of clusters."""
    import numpy as np

    _, index = np.unique(clusters, return_inverse=True)
    people = int(index.max()) + 1
    sums = np.bincount(index, weights=values - values.mean(), minlength=people)
    spread = people / (people - 1) if people > 1 else math.inf
    return float(spread * np.sum(sums**2)) / len(values) ** 2, people


def clustered_ratio(
    numerator: "NDArray[np.float64]", denominator: "NDArray[np.float64]", clusters: "NDArray[np.str_]"
) -> Estimate:
    """sum(numerator) / sum(denominator) over records [n], linearised variance by cluster (Cochran 1977, chapter 6)."""
    import numpy as np

    total = float(denominator.sum())
    value = float(numerator.sum()) / total
    _, index = np.unique(clusters, return_inverse=True)
    people = int(index.max()) + 1
    if people < 2:
        return Estimate(value, math.inf, 1.0, (people, people))
    residuals = np.bincount(index, weights=numerator - value * denominator, minlength=people)
    variance = people / (people - 1) * float(np.sum(residuals**2)) / total**2
    return Estimate(value, math.sqrt(variance), people - 1, (people, people))


def null_auc_se(n: int, m: int) -> float:
    """Standard error of the AUC of n and m independent records without any difference: sqrt((m+n+1) / 12mn)."""
    return math.sqrt((m + n + 1) / (12 * m * n))


def equivalence_power(se: float, margin: float, alpha: float) -> float:
    """Chance that two one-sided tests pass when the true difference is zero."""
    reach = margin - _NORMAL.inv_cdf(1 - alpha) * se
    return max(0.0, 2 * _NORMAL.cdf(reach / se) - 1) if se > 0 else 1.0


def smallest_detectable(se: float, alpha: float, power: float = 0.8) -> float:
    """The effect that a one-sided test at `alpha` finds with this power."""
    return (_NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)) * se


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval of a proportion."""
    from scipy import stats

    interval = stats.binomtest(successes, trials).proportion_ci(confidence, "exact")
    return float(interval.low), float(interval.high)


def records_for_fpr(fpr: float, alpha: float = 0.05) -> int:
    """Held-out records needed to support a false-positive rate with none observed: ln(alpha) / ln(1 - fpr)."""
    return math.ceil(math.log(alpha) / math.log(1 - fpr))
