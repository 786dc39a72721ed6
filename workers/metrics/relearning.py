"""Excess recovery: after a few training steps on other forgotten records, does the model know more than a retrain?

What was hidden and not removed comes back from little: fine-tuning on related text restores what had been unlearned
(Hu et al., arXiv 2406.13356), and 88 % of the lost accuracy came back from other facts (Deeb and Roger, 2410.08827).
The candidate and models that never saw the records are taught one half of the forgotten people's records, and asked
about the other half, which neither is shown:

    excess = mean over the other half of (right answer of the candidate - mean right answer of the references)

The levels after the steps are compared and not the gains: an over-forgotten model gains by coming back to what every
model knows, and one that was left untouched gains nothing, having lost nothing. So the excess after no step at all is
what can be seen without relearning, and what exceeds that came back. Near 0 is best; above: a leak; below: the
candidate learns worse than a retrain.

Two trainings on the same records answer differently, all records together a little better or worse. From two
references on, the spread between them is part of the error, with degrees of freedom by Satterthwaite (1946); measured
on 30 people, 95 % intervals cover 89 to 98 % of the time with two, and 93 % or more from three on. With a single one
the spread is not known: the interval is then over people alone, and the luck of one training can carry it past 0.
"""

import math
from dataclasses import dataclass

import numpy as np

from service.verification.quantiles import student_quantile
from service.verification.statistics import Array, Clusters, Interval, NotMeasurable, clustered_mean

FEWEST = 2
"""People in the half that is asked about: fewer give no interval."""


@dataclass(frozen=True)
class Excess:
    """The excess with its standard error over people and, from two references on, over trainings."""

    estimate: float
    se: float
    df: float
    n: int
    clusters: int
    references: int

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds by Student's t, within the possible -1 to 1."""
        width = student_quantile(0.5 + confidence / 2, self.df) * self.se
        return max(-1.0, self.estimate - width), min(1.0, self.estimate + width)


def relearning_excess(candidate: Array, references: Array, subjects: Clusters) -> Excess | NotMeasurable:
    """Excess of right answers of the candidate [N] over references [K, N] on the same records, clustered by subject.

    The error over people never falls below that of one record more and one less (Agresti and Min 2005): answers that
    agree on a small half are not known to agree everywhere. Not measurable without references or with one person.
    Raises ValueError where the shapes do not fit.
    """
    if references.ndim != 2 or candidate.shape != references.shape[1:] or candidate.shape != subjects.shape:
        raise ValueError(f"{candidate.shape} answers do not fit {references.shape} of references")
    if not len(references):
        return NotMeasurable("not measurable: there is no model that never saw the records")
    if len(np.unique(subjects)) < FEWEST:
        return NotMeasurable(f"not measurable: fewer than {FEWEST} people in the half that is asked about")
    mean = clustered_mean(candidate - references.mean(axis=0), subjects)
    people, trainings = max(mean.se, math.sqrt(2) / mean.n) ** 2, _between(references)
    df = (people + trainings) ** 2 / (people**2 / (mean.clusters - 1) + trainings**2 / max(len(references) - 1, 1))
    se = math.sqrt(people + trainings)
    return Excess(mean.estimate, se, df, mean.n, mean.clusters, len(references))


def _between(references: Array) -> float:
    """Variance of one more training's mean less that of the references [K, N]; 0 where one alone shows none."""
    count = len(references)
    return float(references.mean(axis=1).var(ddof=1)) * (1 + 1 / count) if count > 1 else 0.0
