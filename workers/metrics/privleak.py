"""PrivLeak (MUSE, arXiv 2407.06460): the membership AUC of the candidate relative to a retrain's, in percent.

PrivLeak = 100 (A_u - A_r) / A_r, A the chance that a forgotten record looks less like a member than a held-out one: one
less the membership AUC. MUSE scores records by Min-K%. 0: as hard to tell as after a retrain. Below: a leak, -100 where
every forgotten record looks more like a member than any other. Above: over-forgotten, up to 100 (1 - A_r) / A_r.

The relative form is unstable, since the retrain's A stands below the line: where forgotten records resemble members
even without having been seen (A_r near 0), a small change of A becomes thousands of percent. There it is not
measurable, and the difference of the two AUCs (`service.verification.paired_auc`) is the figure to read.
"""

from dataclasses import dataclass

import numpy as np

from service.verification.statistics import (
    Array,
    Auc,
    Clusters,
    Interval,
    Mean,
    NotMeasurable,
    clustered_auc,
    influenced,
    placements,
)

SMALLEST = 0.1
"""An A_r below which the ratio says more about the retrain than about the candidate: it multiplies errors by ten."""

_EDGE = 0.05


@dataclass(frozen=True)
class PrivLeak:
    """`linear` is the figure in percent with its linearised error, `candidate` the membership AUC, `against` A_r."""

    linear: Mean
    candidate: Auc
    against: float

    @property
    def estimate(self) -> float:
        """PrivLeak in percent: 0 for a retrain, -100 for a complete leak."""
        return self.linear.estimate

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds, never of zero width.

        The linearised error vanishes where the candidate's AUC is 0 or 1, however few records show it. Within 0.05 of
        them it is on each side the wider of that and of what the AUC's own interval makes of A_u alone.
        """
        low, high = self.linear.interval(confidence) or (-np.inf, np.inf)
        if min(self.candidate.auc, 1 - self.candidate.auc) < _EDGE:
            below, above = (100 * ((1 - auc) / self.against - 1) for auc in self.candidate.interval(confidence)[::-1])
            low, high = min(low, below), max(high, above)
        return max(-100.0, low), high


@dataclass(frozen=True)
class Scores:
    """One model's scores of forgotten [n] and held-out [m] records, larger = more like a member."""

    forget: Array
    held_out: Array


def privleak(
    candidate: Scores, retrained: Scores, forget_subjects: Clusters, held_out_subjects: Clusters
) -> PrivLeak | NotMeasurable:
    """PrivLeak in percent, with an error clustered by subject for the same records scored twice.

    By linearisation: both models' placements of a record vary together.
    Not measurable where the retrain's A is below 0.1, or with a single subject on a side.
    """
    parts = [placements(scores.forget, scores.held_out) for scores in (candidate, retrained)]
    own, other = (1 - float(of_forgotten.mean()) for of_forgotten, _ in parts)
    if other < SMALLEST:
        return NotMeasurable(
            f"not measurable: after a retrain the membership AUC is {1 - other:.3f} already, "
            f"which leaves {other:.3f} to divide by; read the difference of the AUCs"
        )
    if min(len(np.unique(forget_subjects)), len(np.unique(held_out_subjects))) < 2:
        return NotMeasurable("not measurable: records of one subject alone have no error")
    ratio = own / other
    sides = [
        influenced(ratio, _influence(first, second, ratio) / other, subjects)
        for first, second, subjects in zip(*parts, (forget_subjects, held_out_subjects), strict=True)
    ]
    error = 100 * float(np.hypot(sides[0].se, sides[1].se))
    linear = Mean(100 * (ratio - 1), error, len(candidate.forget), min(side.clusters for side in sides))
    auc = clustered_auc(candidate.forget, candidate.held_out, forget_subjects, held_out_subjects)
    return PrivLeak(linear, auc, other)


def _influence(own: Array, other: Array, ratio: float) -> Array:
    """Of one side's records on A_u - ratio A_r; placements average to the AUC, so A falls as they rise."""
    change = ratio * (other - other.mean()) - (own - own.mean())
    return np.asarray(change / len(own), dtype=np.float64)
