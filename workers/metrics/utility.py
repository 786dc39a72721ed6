"""Utility on held-out records, candidate against original on the same records (paired), clustered by subject.

Classifiers: difference of accuracies, positive = better. Language models: logarithm of the ratio of perplexities, which
is the difference of mean token losses, positive = worse. Where the two have different tokenizers the losses are
compared per UTF-8 byte and brought back to the original's tokens, so that a margin means the same either way.
"""

import math
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import (
    Array,
    Clusters,
    Mean,
    MeanDesign,
    clustered_mean,
    influenced,
)


@dataclass(frozen=True)
class Likelihood:
    """Texts under one model: negative log-likelihood [m] in nats, and the tokens or bytes [m] it is spread over."""

    nll: Array
    units: Array

    @property
    def per_unit(self) -> float:
        """Mean loss per token or byte."""
        return float(self.nll.sum() / self.units.sum())

    @property
    def influence(self) -> Array:
        """What each text adds to the error of `per_unit`."""
        return np.asarray((self.nll - self.per_unit * self.units) / self.units.sum(), dtype=np.float64)


def accuracy_difference(original: Array, candidate: Array, subjects: Clusters) -> Mean:
    """Mean of candidate minus original over per-record correctness [m], 0 or 1.

    The standard error never falls below that of one record gained and one lost (Agresti and Min 2005): models that
    agree on a small sample are not known to agree everywhere.
    """
    mean = clustered_mean(candidate - original, subjects)
    return Mean(mean.estimate, max(mean.se, math.sqrt(2) / mean.n), mean.n, mean.clusters)


def log_perplexity_ratio(
    original: Likelihood, candidate: Likelihood, subjects: Clusters, units_per_token: float = 1.0
) -> Mean:
    """log(perplexity of candidate / perplexity of original), per token of the original.

    `units_per_token` is 1 where the units are tokens, else the original's bytes per token.
    """
    estimate = (candidate.per_unit - original.per_unit) * units_per_token
    return influenced(estimate, (candidate.influence - original.influence) * units_per_token, subjects)


def utility_design(influence: Array, subjects: Clusters) -> MeanDesign:
    """What the check can find, from the original's per-record influences on its own mean [m].

    The candidate is not looked at: its errors are taken to be correlated 0.5 with the original's, which makes the
    difference as variable as the original's own mean. Candidates near the original do better than this says.
    """
    own = influenced(0.0, influence, subjects)
    return MeanDesign(own.se, own.clusters - 1)
