"""Activation distance and Jensen-Shannon divergence: how far are the answers on forgotten records from a retrain's?

The mean over forgotten records of ||p_u(x) - p_r(x)||_2 between the candidate's and a retrained model's softmax
outputs (as in Chundawat et al., arXiv 2205.08096), 0 to sqrt 2, and the same with the
Jensen-Shannon divergence in bits, 0 to 1. Larger: further from a retrain, whether by a leak or by over-forgetting.
Two retrains differ as well: read both beside their null, and a distance within it as "like a retrain".
"""

from collections.abc import Callable

import numpy as np

from service.verification.divergence import jensen_shannon
from service.verification.statistics import Array, Clusters, Mean, NotMeasurable, clustered_mean

Distance = Callable[[Array, Array], Array]


def euclidean(first: Array, second: Array) -> Array:
    """L2 distance of each pair of probability vectors [..., C]."""
    return np.asarray(np.linalg.norm(first - second, axis=-1), dtype=np.float64)


def activation_distance(candidate: Array, retrained: Array, subjects: Clusters) -> Mean:
    """Mean L2 distance of probabilities [n, C] from those of retrained models [r, n, C], averaged over these.

    The interval is over records, clustered by subject, and takes the models as given.
    """
    return _mean(euclidean, candidate, retrained, subjects)


def divergence(candidate: Array, retrained: Array, subjects: Clusters) -> Mean:
    """The same with the Jensen-Shannon divergence; ValueError where rows are no distributions."""
    return _mean(jensen_shannon, candidate, retrained, subjects)


def activation_distance_null(retrained: Array, subjects: Clusters) -> Mean | NotMeasurable:
    """Mean L2 distance between retrained models [r, n, C], over all pairs; takes two."""
    return _null(euclidean, retrained, subjects)


def divergence_null(retrained: Array, subjects: Clusters) -> Mean | NotMeasurable:
    """Mean Jensen-Shannon divergence between retrained models [r, n, C], over all pairs; takes two."""
    return _null(jensen_shannon, retrained, subjects)


def _mean(distance: Distance, candidate: Array, retrained: Array, subjects: Clusters) -> Mean:
    return clustered_mean(np.mean([distance(candidate, model) for model in retrained], axis=0), subjects)


def _null(distance: Distance, retrained: Array, subjects: Clusters) -> Mean | NotMeasurable:
    if len(retrained) < 2:
        return NotMeasurable("not measurable: a distance between retrained models takes two of them")
    pairs = [distance(one, other) for at, one in enumerate(retrained) for other in retrained[at + 1 :]]
    return clustered_mean(np.mean(pairs, axis=0), subjects)
