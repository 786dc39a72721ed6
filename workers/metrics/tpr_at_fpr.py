"""True-positive rate at a low false-positive rate: how many forgotten records an attacker finds who is rarely wrong.

Carlini et al. (2022) ask for it beside the AUC. The threshold is the held-out quantile. A model that never saw the
records gives a rate near the false-positive rate itself; more is a leak.
"""

from dataclasses import dataclass

import numpy as np

from service.verification.proportions import Proportion, trials_needed
from service.verification.statistics import Array, Clusters, Interval, NotMeasurable, clustering_effect, threshold_at


@dataclass(frozen=True)
class OperatingPoint:
    """Share of forgotten records above the threshold, its exact 95 % interval, and what was aimed at."""

    rate: float
    ci95: Interval
    found: int
    false_positive_rate: float


def tpr_at_fpr(
    forget: Array, held_out: Array, forget_subjects: Clusters, false_positive_rate: float = 0.01
) -> OperatingPoint | NotMeasurable:
    """The rate at a threshold that at most this share of held-out records exceeds.

    Clopper-Pearson on effective counts (Korn and Graubard 1998): records of one subject are no independent trials.
    Not measurable where so few held-out records could not show that false-positive rate even with none above.
    """
    needed = trials_needed(false_positive_rate)
    if len(held_out) < needed:
        return NotMeasurable(
            f"not measurable: a false-positive rate of {false_positive_rate:g} takes {needed} held-out records, "
            f"there are {len(held_out)}"
        )
    found = int(np.count_nonzero(forget > threshold_at(held_out, false_positive_rate)))
    effect = clustering_effect(forget, forget_subjects)
    share = Proportion(found, len(forget))
    return OperatingPoint(share.rate, share.effective(effect).interval(), found, false_positive_rate)
