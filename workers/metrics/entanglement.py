"""Entanglement score (RUM, arXiv 2406.01257): how much forgotten and retained records overlap inside a model.

ES = (mean ||z - mu_R||^2 over retained + the same of forgotten records) over half of (||mu_R - mu||^2 + ||mu_F -
mu||^2), z the embeddings of the original model. By the reading of the authors' code mu is midway between mu_R and
mu_F, so ES = 4 (V_R + V_F) / ||mu_R - mu_F||^2; means are exact here, theirs are of batches. Higher: more entangled,
harder to forget one without hurting the other. It describes the request, not the candidate: no leak either way. Scales
and shifts of all embeddings change nothing.

Few forgotten records put their mean off by chance, by V_F / n on average in squared length, which makes small sets look
less entangled than they are, and a random set, whose ES is infinite, like a finite one. The corrected score takes that
much (and the same of the retained records) off the squared distance. Read its logarithm: ES spans decades.
"""

import math
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import Array, Clusters, NotMeasurable

_NOISE = 2.0


@dataclass(frozen=True)
class Entanglement:
    """`published` is the score as published; `corrected` without what chance adds to the distance of the means."""

    published: float
    corrected: float

    @property
    def log(self) -> float:
        """Natural logarithm of the corrected score."""
        return math.log(self.corrected)


def entanglement(
    forget: Array, retain: Array, forget_subjects: Clusters, retain_subjects: Clusters
) -> Entanglement | NotMeasurable:
    """The score from embeddings [n, d] and [m, d].

    Records of one subject resemble each other, so the error of a mean is that over subjects. Not measurable with a
    single subject on a side, and where the squared distance of the means is not twice what chance alone gives: they
    are then as good as the same, as for a random forget set.
    """
    distance = float(np.square(forget.mean(axis=0) - retain.mean(axis=0)).sum())
    spread, chance = 0.0, 0.0
    for embeddings, subjects in ((forget, forget_subjects), (retain, retain_subjects)):
        residuals = embeddings - embeddings.mean(axis=0)
        names, owner = np.unique(subjects, return_inverse=True)
        people = len(names)
        if people < 2:
            return NotMeasurable("not measurable: records of one subject alone do not tell how far their mean is off")
        sums = np.zeros((people, embeddings.shape[1]))
        np.add.at(sums, owner, residuals)
        spread += float(np.square(residuals).sum()) / len(embeddings)
        chance += float(np.square(sums).sum()) / len(embeddings) ** 2 * people / (people - 1)
    if distance <= _NOISE * chance:
        return NotMeasurable(
            "not measurable: forgotten and retained embeddings have the same mean, as far as one can see"
        )
    return Entanglement(4 * spread / distance, 4 * spread / (distance - chance))
