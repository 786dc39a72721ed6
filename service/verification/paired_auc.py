"""Two AUCs of the same records under two models: their difference, paired record by record and clustered by subject.

What the two models share (records that are easy or hard, and odd for their group) cancels, so that the difference is
known better than either AUC. Positive: the first model knows the forgotten records better than the second, a leak.
"""

import math
from dataclasses import dataclass

from service.verification.quantiles import regularised_beta, student_quantile
from service.verification.statistics import Array, Auc, Clusters, Interval, clustered_auc, clustered_mean, placements

_EDGE = 0.05


@dataclass(frozen=True)
class AucDifference:
    """The AUC under the first model less that under the second, with its clustered standard error."""

    first: Auc
    second: Auc
    se: float

    @property
    def difference(self) -> float:
        """The estimate: 0 where both models tell members from others equally well."""
        return self.first.auc - self.second.auc

    @property
    def df(self) -> int:
        """Degrees of freedom: those of the side with fewer subjects, which is conservative."""
        return self.first.df

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds by Student's t, never of zero width; (-1, 1) where one side is a single subject.

        Where no record's placement differs from the others', the variance estimate is zero. Then the bound is what so
        many subjects without an exception allow: an exception is rarer than 1 - tail^(1/subjects), and moves the
        difference by no more than 1 + |difference|. Where either AUC is within 0.05 of 0 or 1, that estimate is often
        too small: there it is on each side the wider of this and of what the two AUCs' own intervals make.
        """
        if self.df < 1:
            return -1.0, 1.0
        tail = (1 - confidence) / 2
        if self.se <= 1e-12:
            down = up = (1 + abs(self.difference)) * -math.expm1(math.log(tail) / min(self.first.clusters))
        else:
            down = up = student_quantile(1 - tail, self.df) * self.se
        if min(min(one.auc, 1 - one.auc) for one in (self.first, self.second)) < _EDGE:
            below, above = self._recovered(confidence)
            down, up = max(down, below), max(up, above)
        return max(-1.0, self.difference - down), min(1.0, self.difference + up)

    def _recovered(self, confidence: float) -> Interval:
        """Distances to both bounds by variances recovered from the two intervals (Zou 2007, Psychological Methods 12).

        As a sum of squares less twice the correlation of the two estimates; none is assumed where it is not known.
        """
        (low, high), (other_low, other_high) = self.first.interval(confidence), self.second.interval(confidence)
        spread = self.first.se * self.second.se
        rho = (self.first.se**2 + self.second.se**2 - self.se**2) / (2 * spread) if spread > 1e-24 else 0.0
        rho = min(1.0, max(-1.0, rho))

        def reach(one: float, other: float) -> float:
            return math.sqrt(max(0.0, one**2 + other**2 - 2 * rho * one * other))

        down = reach(self.first.auc - low, other_high - self.second.auc)
        return down, reach(high - self.first.auc, self.second.auc - other_low)

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
    auc, other_auc = (clustered_auc(members[at], others[at], member_clusters, other_clusters) for at in (0, 1))
    of_members = clustered_mean(first[0] - second[0], member_clusters)
    of_others = clustered_mean(first[1] - second[1], other_clusters)
    return AucDifference(auc, other_auc, math.hypot(of_members.se, of_others.se))
