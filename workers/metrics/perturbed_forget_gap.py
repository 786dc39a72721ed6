"""Perturbed forget gap: how much worse than before does the model answer forgotten records that were slightly changed?

Zuo et al. 2025 (arXiv 2401.04385, read from its abstract) shift the distribution of the forgotten data subtly and take
the difference of the model's performance on it before and after unlearning as the degree of unlearning:

    gap = mean over x' of (right answer of the original - right answer of the candidate)

A model that still holds a record answers its changed version better than one that never saw it. Near what a retrain
loses is best: 0 is doing nothing, and more than a retrain loses is over-forgetting. Without a retrain's value beside it
the figure says little, so that it never gates. Two ways of changing records stand in workers/robustness/perturbed.py:
augmentation, and a small generator after the paper's SPD-GAN.
"""

import math

from service.verification.statistics import Array, Clusters, Mean, clustered_mean


def perturbed_forget_gap(original: Array, candidate: Array, subjects: Clusters) -> Mean:
    """Mean of right answers [n] of the original less those of the candidate, on the same changed records.

    Clustered by subject. The error never falls below that of one record gained and one lost (Agresti and Min 2005).
    Raises ValueError where the shapes differ.
    """
    if original.shape != candidate.shape or original.shape != subjects.shape:
        raise ValueError(f"{original.shape}, {candidate.shape} and {subjects.shape} do not fit each other")
    mean = clustered_mean(original - candidate, subjects)
    return Mean(mean.estimate, max(mean.se, math.sqrt(2) / mean.n), mean.n, mean.clusters)
