"""Did the deletion expose those who stay? Planted canaries that were not deleted, before and after.

Deleting some records can make others stand out (the privacy onion, Carlini et al., arXiv 2206.10469; retained records,
Hayes et al., arXiv 2403.01218). Canaries that stay planted are compared with ones of their kind that no training saw,
under the original and under the candidate: 0 is best; above, the candidate gives records that stay away more than the
original did; below, less. Any model that fits its training data tells the two sides apart, so the AUC itself is no
leak, and only its increase is read.
"""

import math
from dataclasses import dataclass

import numpy as np

from service.verification.paired_auc import AucDifference, paired_auc
from service.verification.statistics import Array, Clusters, Interval

Pair = tuple[Array, Array]


@dataclass(frozen=True)
class RetainedHarm:
    """AUC under the candidate less that under the original, within each kind of canary, `n` that stay against `m`
    outside; the kinds weigh by their canaries that stay."""

    kinds: tuple[tuple[float, AucDifference], ...]
    n: int
    m: int

    @property
    def increase(self) -> float:
        """The estimate: 0 where nothing has changed for those that stay."""
        return sum(share * part.difference for share, part in self.kinds)

    @property
    def before(self) -> float:
        """AUC under the original."""
        return sum(share * part.second.auc for share, part in self.kinds)

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds, from those of the kinds by variances recovered (Zou 2007, Psychological Methods 12)."""
        down = up = 0.0
        for share, part in self.kinds:
            low, high = part.interval(confidence)
            down += (share * (part.difference - low)) ** 2
            up += (share * (high - part.difference)) ** 2
        return max(-1.0, self.increase - math.sqrt(down)), min(1.0, self.increase + math.sqrt(up))


def retained_harm(kept: Pair, outside: Pair, kept_kinds: Clusters, outside_kinds: Clusters) -> RetainedHarm:
    """Membership scores (candidate, original) of canaries that stay [c] and of ones never trained on [m].

    Every canary is a subject of its own. Each kind of a canary that stays must have canaries outside.
    """
    parts = []
    for kind in np.unique(kept_kinds):
        ours, theirs = kept_kinds == kind, outside_kinds == kind
        members, others = (kept[0][ours], kept[1][ours]), (outside[0][theirs], outside[1][theirs])
        found = paired_auc(members, others, np.arange(ours.sum()), np.arange(theirs.sum()))
        parts.append((float(ours.mean()), found))
    return RetainedHarm(tuple(parts), len(kept_kinds), len(outside_kinds))
