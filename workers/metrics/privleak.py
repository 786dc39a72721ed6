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

from service.verification.statistics import Array, Clusters, Mean, NotMeasurable, influenced, placements

SMALLEST = 0.1
"""An A_r below which the ratio says more about the retrain than about the candidate: it multiplies errors by ten."""


@dataclass(frozen=True)
class Scores:
    """One model's scores of forgotten [n] and held-out [m] records, larger = more like a member."""

    forget: Array
    held_out: Array


def privleak(
    candidate: Scores, retrained: Scores, forget_subjects: Clusters, held_out_subjects: Clusters
) -> Mean | NotMeasurable:
    """PrivLeak in percent, with an error clustered by subject for the same records scored twice.

    By linearisation: both models' placements of a record vary together. `clusters` counts the side with fewer subjects.
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
    return Mean(100 * (ratio - 1), error, len(candidate.forget), min(side.clusters for side in sides))


def _influence(own: Array, other: Array, ratio: float) -> Array:
    """Of one side's records on A_u - ratio A_r; placements average to the AUC, so A falls as they rise."""
    change = ratio * (other - other.mean()) - (own - own.mean())
    return np.asarray(change / len(own), dtype=np.float64)
