"""KLoM in its Gaussian form (after arXiv 2410.23232): divergence of margins from retrained models, record by record.

The paper's histogram form needs a hundred models a side; below fifty its noise exceeds what it measures. This plug-in
KL(u || r) = ln(s_r / s_u) + (s_u^2 + (m_u - m_r)^2) / (2 s_r^2) - 1/2 does with few and is named after what it is. One
candidate has no spread of its own: it is given the retrained models', pooled over records, so that what is left is
(x - m_r)^2 / (2 s^2). Larger: further from a retrain. Always read it beside the value between retrains.
"""

import numpy as np

from service.verification.statistics import Array

_FLOOR = 1e-9


def gaussian_kl(mean: Array, deviation: Array, reference_mean: Array, reference_deviation: Array) -> Array:
    """KL divergence of normal distributions, elementwise, in nats."""
    ratio = np.square(deviation) + np.square(mean - reference_mean)
    return np.asarray(
        np.log(reference_deviation / deviation) + ratio / (2 * np.square(reference_deviation)) - 0.5, dtype=np.float64
    )


def klom_gaussian(unlearned: Array, retrained: Array) -> Array:
    """Divergence of each record [k] from margins [u, k] of unlearned and [r, k] of retrained models, r >= 2.

    With u = 1 the spread is pooled and the squared distance is divided by 1 + 1/r, the share that comes from
    estimating the mean: a further retrain then has mean 1/2 for every r.
    """
    mean, spread = retrained.mean(axis=0), retrained.std(axis=0, ddof=1)
    if len(unlearned) == 1:
        return _pooled(unlearned[0], mean, pooled_variance(retrained), len(retrained))
    own = np.maximum(unlearned.std(axis=0, ddof=1), _FLOOR)
    return gaussian_kl(unlearned.mean(axis=0), own, mean, np.maximum(spread, _FLOOR))


def klom_gaussian_null(retrained: Array) -> Array:
    """What retrained models [r, k] score against each other: each against the rest, [r, k], r >= 2."""
    variance = pooled_variance(retrained)
    rows = [
        _pooled(retrained[at], np.delete(retrained, at, axis=0).mean(axis=0), variance, len(retrained) - 1)
        for at in range(len(retrained))
    ]
    return np.stack(rows)


def pooled_variance(retrained: Array) -> float:
    """Variance between retrained models [r, k] on one record, averaged over records."""
    return max(float(retrained.var(axis=0, ddof=1).mean()), _FLOOR)


def _pooled(margins: Array, mean: Array, variance: float, references: int) -> Array:
    return np.asarray(np.square(margins - mean) / (2 * variance * (1 + 1 / references)), dtype=np.float64)
