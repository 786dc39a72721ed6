"""Two AUCs of the same records under two models: their difference, paired record by record and clustered by subject.

What the two models share (records that are easy or hard, and odd for their group) cancels, so that the difference is
known better than either AUC. Positive: the first model knows the forgotten records better than the second, a leak.
"""

import math
from dataclasses import dataclass

from service.verification.quantiles import regularised_beta, student_quantile
from service.verification.statistics import Array, Clusters, Interval, clustered_mean, placements


@dataclass(frozen=True)
class AucDifference:
    """auc - other_auc with its clustered standard error. `clusters` counts the subjects of members and of others."""

    auc: float
    other_auc: float
    se: float
    n: int
    m: int
    clusters: tuple[int, int]

    @property
    def difference(self) -> float:
        """The estimate: 0 where both models tell members from others equally well."""
        return self.auc - self.other_auc

    @property
    def df(self) -> int:
        """Degrees of freedom: those of the side with fewer subjects, which is conservative."""
        return min(self.clusters) - 1

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds by Student's t, never of zero width; (-1, 1) where one side is a single subject.

        Where no record's placement differs from the others', the variance estimate is zero. Then the bound is what so
        many subjects without an exception allow: an exception is rarer than 1 - tail^(1/subjects), and moves the
        difference by no more than 1 + |difference|.
        """
        if self.df < 1:
            return -1.0, 1.0
        tail = (1 - confidence) / 2
        if self.se <= 1e-12:
            width = (1 + abs(self.difference)) * -math.expm1(math.log(tail) / min(self.clusters))
        else:
            width = student_quantile(1 - tail, self.df) * self.se
        return max(-1.0, self.difference - width), min(1.0, self.difference + width)

    def p_value(self) -> float:
        """Two-sided p of "the two AUCs are the same", by Student's t; 1 where the difference or its error is nothing.

        nan never: a single subject on a side, or placements that do not vary, refute nothing.
        """
        if self.df < 1 or self.se <= 1e-12:
            return 1.0
        t = self.difference / self.se
        return regularised_beta(self.df / (self.df + t * t), self.df / 2, 0.5)


def paired_auc(
    members: tuple[Array, Array], others: tuple[Array, Array], member_clusters: Clusters, other_clusters: Clusters
) -> AucDifference:
    """AUC under the first model less that under the second: (scores by the first, scores by the second) of each side.

    DeLong, DeLong and Clarke-Pearson (1988) with the clustered variance of Obuchowski (1997): the variance of the
    differences of placements, subject by subject. Subjects on the two sides count as different ones, as in
    `clustered_auc`. Raises ValueError where the two models did not score the same records.
    """
    if members[0].shape != members[1].shape or others[0].shape != others[1].shape:
        raise ValueError("a paired difference takes the same records under both models")
    first, second = (placements(inside, outside) for inside, outside in zip(members, others, strict=True))
    of_members = clustered_mean(first[0] - second[0], member_clusters)
    of_others = clustered_mean(first[1] - second[1], other_clusters)
    auc, other_auc = float(first[0].mean()), float(second[0].mean())
    counts = (of_members.clusters, of_others.clusters)
    return AucDifference(auc, other_auc, math.hypot(of_members.se, of_others.se), of_members.n, of_others.n, counts)
