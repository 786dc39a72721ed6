"""Epistemic efficacy (Becker and Liebig, arXiv 2208.10836): how little the weights say about the forgotten records.

i(theta; D_f) = mean over forgotten records of ||grad log p(y|x)||^2, the trace of the empirical Fisher information.
Efficacy is 1 / i, at most 1 / ||mean gradient||^2 (their lemma 1, Jensen's inequality). Efficiency is the speed: a
retrain's seconds over those of the unlearning. Higher is better by the paper.

Do not read it that way alone. A model that knows the records by heart has gradients near zero on them, so its efficacy
is near infinite: doing nothing can score far above a retrain. So does one that is flatly sure of anything. What says
something is the ratio to a retrain: 1 is the same; above: a leak or a collapse, below: over-forgotten. And efficacy
is of no use across architectures, since more weights have more squared gradients to add up.
"""

import math
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import (
    Array,
    Clusters,
    Interval,
    Mean,
    NotMeasurable,
    clustered_mean,
    clustered_ratio,
)


@dataclass(frozen=True)
class Efficacy:
    """`information` is i with its error over records, clustered by subject."""

    information: Mean

    @property
    def estimate(self) -> float:
        """1 / i, in the inverse units of a squared gradient."""
        return 1 / self.information.estimate

    def interval(self, confidence: float) -> Interval | None:
        """The information's bounds inverted; infinite where its lower bound is not above 0, None for one subject."""
        bounds = self.information.interval(confidence)
        if bounds is None:
            return None
        return 1 / bounds[1], 1 / bounds[0] if bounds[0] > 0 else math.inf


def epistemic_efficacy(squared_gradients: Array, subjects: Clusters) -> Efficacy | NotMeasurable:
    """Efficacy from squared gradients [n, p] of each forgotten record's log probability, by weight or summed [n, 1].

    Not measurable where every gradient is zero: that is a model that is certain, not one that has forgotten. Raises
    ValueError for a negative one.
    """
    information = _information(squared_gradients)
    if not information.any():
        return NotMeasurable("not measurable: all gradients are zero, as in a model that is certain of these records")
    return Efficacy(clustered_mean(information, subjects))


def efficacy_ratio(candidate: Array, retrained: Array, subjects: Clusters) -> Mean | NotMeasurable:
    """Efficacy of the candidate over a retrain's, from squared gradients [n, p] of the same records: 1 is a retrain."""
    own, other = _information(candidate), _information(retrained)
    if not own.any() or not other.any():
        return NotMeasurable("not measurable: all gradients are zero, as in a model that is certain of these records")
    return clustered_ratio(other, own, subjects)


def efficacy_bound(mean_gradient: Array) -> float:
    """The most that efficacy can be, 1 / ||g||^2, from the mean gradient [p] of the records' loss; inf for zero."""
    squared = float(np.square(mean_gradient).sum())
    return 1 / squared if squared > 0 else math.inf


def efficiency(unlearning_seconds: float, retraining_seconds: float) -> float:
    """How many times faster than a retrain. Raises ValueError for times that are not above 0."""
    if unlearning_seconds <= 0 or retraining_seconds <= 0:
        raise ValueError("efficiency takes times above 0 seconds")
    return retraining_seconds / unlearning_seconds


def _information(squared_gradients: Array) -> Array:
    if (squared_gradients < 0).any():
        raise ValueError("squares of gradients are not negative")
    return np.asarray(squared_gradients.sum(axis=1), dtype=np.float64)
