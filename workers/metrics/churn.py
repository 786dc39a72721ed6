"""Churn: which records that stay does the candidate answer differently, in which direction and in which class?

Shares of the records that were right before and are wrong now, and the other way round. Equal accuracies can hide
both. Zero is the original itself, not the aim: a retrain with another seed changes answers as well, so read the shares
beside a retrain's. Many newly wrong records of one class: unlearning has damaged that class.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.verification.proportions import Proportion
from service.verification.statistics import Array, Clusters, clustering_effect


@dataclass(frozen=True)
class Churn:
    """Newly wrong and newly right records out of `n`, of so many `subjects`.

    Trials are effective ones, since records of one subject are no independent trials: `interval()` of either is
    Clopper and Pearson's on effective counts (Korn and Graubard 1998).
    """

    newly_wrong: Proportion
    newly_right: Proportion
    n: int
    subjects: int


def churn(before: Array, after: Array, subjects: Clusters) -> Churn:
    """Churn of records [n] from what they were and are, 1 right and 0 wrong. Raises ValueError for other values.

    ValueError too where there are no records.
    """
    if not len(before) or not np.isin(before, (0, 1)).all() or not np.isin(after, (0, 1)).all():
        raise ValueError("churn takes records that are right (1) or wrong (0)")
    wrong, right = (before > after).astype(np.float64), (after > before).astype(np.float64)
    people = len(np.unique(subjects))
    return Churn(_share(wrong, subjects, people), _share(right, subjects, people), len(before), people)


def churn_by_class(before: Array, after: Array, subjects: Clusters, classes: Clusters) -> Mapping[int, Churn]:
    """`churn` of each class [n]. Each interval covers for its own class, not all of them together."""
    return {
        int(label): churn(before[classes == label], after[classes == label], subjects[classes == label])
        for label in np.unique(classes)
    }


def _share(changed: Array, subjects: Clusters, people: int) -> Proportion:
    """Where no or every record changed nothing shows how alike a subject's records are: each subject counts once."""
    share = Proportion(float(changed.sum()), len(changed))
    if np.ptp(changed) == 0.0:
        return share.effective(len(changed) / people)
    return share.effective(clustering_effect(changed, subjects))
