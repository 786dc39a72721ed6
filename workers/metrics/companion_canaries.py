"""Companion canaries: made-up records deleted together with people, against others of their kind never trained on.

A coin decided before the training which canaries went in, so the two sides differ in nothing but that (randomised
controls: Zhang et al., arXiv 2409.19798; one-run auditing: Steinke et al., arXiv 2305.08846). What the model still
knows of the deleted ones was left by the very run that also took people. The AUC compares within each kind of canary,
since kinds differ in how hard they are. 0.5: like canaries that were never there. Above: a leak. Below: a leak as well
(over-forgotten). Canaries stand for people's records without being the same.
"""

import math

import numpy as np

from service.verification.proportions import Proportion
from service.verification.statistics import (
    Array,
    Auc,
    AucDesign,
    Clusters,
    auc_design,
    clustered_auc,
    threshold_at,
)

FALSE_POSITIVES = 0.05


def companion_auc(deleted: Array, outside: Array, deleted_kinds: Clusters, outside_kinds: Clusters) -> Auc:
    """AUC of deleted [c] against never-trained [m] canaries, the mean over kinds by their deleted canaries.

    Every canary is a subject of its own. Each kind of a deleted canary must have canaries outside.
    """
    total, auc, variance = len(deleted), 0.0, 0.0
    for kind in np.unique(deleted_kinds):
        ours, theirs = deleted[deleted_kinds == kind], outside[outside_kinds == kind]
        part = clustered_auc(ours, theirs, np.arange(len(ours)), np.arange(len(theirs)))
        share = len(ours) / total
        auc += share * part.auc
        variance += (share * part.se) ** 2 if math.isfinite(part.se) else share**2 / 12
    return Auc(auc, math.sqrt(variance), total, len(outside), (total, len(outside)))


def companion_design(deleted: int, outside: int) -> AucDesign:
    """What so many canaries can show, before any of them is scored."""
    return auc_design(deleted, outside, (1.0, 1.0), (deleted, outside))


def companion_rate(deleted: Array, outside: Array, deleted_kinds: Clusters, outside_kinds: Clusters) -> Proportion:
    """How many deleted canaries lie above the threshold that 5 % of their kind's never-trained ones exceed."""
    found = 0
    for kind in np.unique(deleted_kinds):
        threshold = threshold_at(outside[outside_kinds == kind], FALSE_POSITIVES)
        found += int(np.count_nonzero(deleted[deleted_kinds == kind] > threshold))
    return Proportion(found, len(deleted))
