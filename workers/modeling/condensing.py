"""A few weighted records that stand for many: medoids of clusters of what the head is given."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANY = 2_000_000
"""Records times clusters from which on clusters are found on samples."""


def representatives(
    inputs: NDArray[np.float32], groups: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(rows, weights) of ceil(share * size) records of each group, ascending; weights are sizes of clusters.

    `inputs` [N, width] and `groups` [N]. Within a group k-means finds so many clusters (Lloyd 1982), the record nearest
    to each centre stands for it, and the weights of a group add up to its size. Fewer records where some are equal.
    """
    rows: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        nearest, sizes = _medoids(inputs[members], math.ceil(share * len(members)), seed)
        rows.append(members[nearest])
        weights.append(sizes)
    chosen, counts = np.concatenate(rows), np.concatenate(weights)
    order = np.argsort(chosen, kind="stable")
    return chosen[order], counts[order]


def _medoids(inputs: NDArray[np.float32], count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if count >= len(inputs):
        return np.arange(len(inputs)), np.ones(len(inputs))
    centres, labels = _clusters(inputs, count, seed)
    distances = np.square(inputs - centres[labels]).sum(axis=1)
    # The nearest of each cluster: sorted by cluster and distance, the first of each run.
    order = np.lexsort((distances, labels))
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    return order[first], sizes.astype(np.float64)


def _clusters(inputs: NDArray[np.float32], count: int, seed: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = MiniBatchKMeans if count * len(inputs) > _MANY else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct records than clusters is no fault
        found = kind(n_clusters=count, n_init=1, random_state=seed % 2**32).fit(inputs)
    return found.cluster_centers_, found.labels_.astype(np.int64)
