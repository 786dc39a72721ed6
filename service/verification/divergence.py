"""Jensen-Shannon divergence of answers that are probabilities: symmetric, finite, 0 to 1 bit."""

import numpy as np

from service.verification.statistics import Array


def jensen_shannon(first: Array, second: Array) -> Array:
    """Divergence in bits of each pair of distributions [..., C]: 0 for the same, 1 for disjoint ones (Lin 1991).

    Raises ValueError for other shapes, negative values, or rows that do not sum to 1.
    """
    for side in (first, second):
        if side.shape != first.shape or (side < 0).any() or not np.allclose(side.sum(axis=-1), 1.0, atol=1e-4):
            raise ValueError("a divergence takes two arrays of distributions, each summing to 1 along the last axis")
    middle = (first + second) / 2
    found = (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2
    return np.asarray(np.clip(found, 0.0, 1.0), dtype=np.float64)


def _relative_entropy(of: Array, to: Array) -> Array:
    """KL(of || to) in bits; `to` is positive wherever `of` is."""
    ratio = np.where(of > 0, of, 1.0) / np.where(of > 0, to, 1.0)
    return np.asarray((of * np.log2(ratio)).sum(axis=-1), dtype=np.float64)
