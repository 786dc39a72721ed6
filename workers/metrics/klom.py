"""KLoM (arXiv 2410.23232): divergence of margins from retrained models, record by record.

The histogram form is the paper's, by the reading of its authors' benchmark code (RoyRin/data-unlearning-bench): margins
clipped to +-100, 20 equal bins over the joint range of both sides, KL(unlearned || retrained) in nats with a retrained
share of 1e-5 at least where the unlearned one is not zero, renormalised. One change: their last bin leaves the largest
margin out, ours is closed. It takes a hundred models a side; below fifty its noise exceeds what it measures, and even
at fifty two sides that are the same score 0.9. So always read it beside `klom_null`, retrained against retrained
models in the same numbers. 11.5 = -ln 1e-5 is its ceiling.

The Gaussian form does with few and is named after what it is, the plug-in
KL(u || r) = ln(s_r / s_u) + (s_u^2 + (m_u - m_r)^2) / (2 s_r^2) - 1/2. One candidate has no spread of its own: it is
given the retrained models', pooled over records, so that what is left is (x - m_r)^2 / (2 s^2). Larger: further from
a retrain.
"""

import numpy as np

from service.verification.statistics import Array, NotMeasurable

BINS = 20
FEWEST = 50
"""Models a side below which the histogram form is noise."""

_FLOOR = 1e-9
_LIMIT = 100.0
_SMALLEST_SHARE = 1e-5


def klom(unlearned: Array, retrained: Array, fewest: int = FEWEST) -> Array | NotMeasurable:
    """Histogram divergence of each record [k], nats, from margins [u, k] of unlearned and [r, k] of retrained models.

    A single candidate, u = 1, is a distribution of one point: its divergence is -ln of the retrained share in its bin,
    and that of a further retrain is no longer near 0. Not measurable with fewer than `fewest` retrained models, or
    with fewer unlearned ones but not one.
    """
    if len(retrained) < fewest or 1 < len(unlearned) < fewest:
        have = min(len(retrained), len(unlearned)) if len(unlearned) > 1 else len(retrained)
        return _too_few(fewest, have)
    return _histogram(unlearned, retrained)


def klom_null(retrained: Array, unlearned: int, seed: int, fewest: int = FEWEST) -> Array | NotMeasurable:
    """What retrained models [r, k] score among themselves in the place of `unlearned` models.

    For one candidate each against the rest, [r, k]. For more, [k]: so many of them, drawn at random, against the
    others, so compare with `klom` on as many retrained models as are left. Not measurable as `klom`.
    """
    if unlearned == 1:
        if len(retrained) < fewest:
            return _too_few(fewest, len(retrained))
        return np.stack(
            [_histogram(retrained[at : at + 1], np.delete(retrained, at, axis=0)) for at in range(len(retrained))]
        )
    order = np.random.default_rng(seed).permutation(len(retrained))
    return klom(retrained[order[:unlearned]], retrained[order[unlearned:]], fewest)


def _too_few(fewest: int, have: int) -> NotMeasurable:
    return NotMeasurable(f"not measurable: a histogram takes {fewest} models a side, there are {have}")


def _histogram(unlearned: Array, retrained: Array) -> Array:
    sides = np.clip(unlearned, -_LIMIT, _LIMIT), np.clip(retrained, -_LIMIT, _LIMIT)
    low = np.minimum(*(side.min(axis=0) for side in sides))
    reach = np.maximum(*(side.max(axis=0) for side in sides)) - low
    p, q = (_shares(side, low, np.where(reach > 0, reach, 1.0)) for side in sides)
    q = np.where(p > 0, np.maximum(q, _SMALLEST_SHARE), q)
    q = q / q.sum(axis=1, keepdims=True)
    inside = p > 0
    terms = np.where(inside, p * np.log(np.where(inside, p, 1.0) / np.where(inside, q, 1.0)), 0.0)
    return np.asarray(terms.sum(axis=1), dtype=np.float64)


def _shares(margins: Array, low: Array, reach: Array) -> Array:
    """Share [k, BINS] of the models [n, k] in each bin of each record."""
    models, records = margins.shape
    bins = np.minimum((margins - low) / reach * BINS, BINS - 1).astype(np.int64)
    counts = np.bincount((bins + BINS * np.arange(records)).ravel(), minlength=records * BINS)
    return np.asarray(counts.reshape(records, BINS) / models, dtype=np.float64)


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
