"""Forgetting rates under two explicit names; neither gates, and a retrain does not reach 1 either.

`forgetting_rate_mia` = (AF - BF) / BT of Ma et al. (Forsaken, arXiv 2003.10933): BT and BF count forgotten records that
are called member and non-member before, AF those called non-member after. Membership is called at a threshold
calibrated for each model on held-out records. 0: nothing changed. 1: none of them is called a member any more.

`forgetting_rate_accuracy` = drop of accuracy on the forgotten records over the drop that a model shows which never saw
them. 1: like such a model. Above 1: over-forgotten. (arXiv 2401.04385 names a rate built on performance; its exact
formula is another matter, hence the name.)
"""

import numpy as np

from service.verification.quantiles import negatives_needed
from service.verification.statistics import (
    Array,
    Clusters,
    Mean,
    NotMeasurable,
    clustered_mean,
    clustered_ratio,
    threshold_at,
)

FALSE_POSITIVE_RATE = 0.05
SMALLEST_DROP = 0.01
"""Below this difference between seen and never seen, a rate of it is noise."""


def forgetting_rate_mia(
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    subjects: Clusters,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
) -> Mean | NotMeasurable:
    """The rate from (forget [n], held-out [m]) scores, larger = more like a member, of the model before and after."""
    needed = negatives_needed(false_positive_rate)
    if len(before[1]) < needed:
        return NotMeasurable(f"not measurable: calibration takes {needed} held-out records, there are {len(before[1])}")
    was = (before[0] > threshold_at(before[1], false_positive_rate)).astype(np.float64)
    still = (after[0] > threshold_at(after[1], false_positive_rate)).astype(np.float64)
    if not was.any():
        return NotMeasurable("not measurable: the original calls none of the forgotten records a member")
    return clustered_ratio(was - still, was, subjects)


def forgetting_rate_accuracy(
    before: Array, after: Array, never_seen: float, subjects: Clusters
) -> Mean | NotMeasurable:
    """The rate from per-record accuracies [n] on the forgotten records and the mean accuracy of a model without them.

    Clipped at 0. The interval takes `never_seen` and the original's accuracy as given.
    """
    drop = float(before.mean()) - never_seen
    if drop < SMALLEST_DROP:
        return NotMeasurable("not measurable: the original knows the forgotten records no better than unseen ones")
    rate = clustered_mean((before - after) / drop, subjects)
    return Mean(max(0.0, rate.estimate), rate.se, rate.n, rate.clusters)
