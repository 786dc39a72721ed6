"""Calibrated membership AUC: is the model surer of forgotten records than models that never saw them explain?

Each record's score is held against those of its OUT references: models of the same recipe trained without it, whose
mean says how hard the record is by itself (offline LiRA, Carlini et al. 2022). Few references give a poor variance per
record, so it is shrunk to the pooled one and judged by Student's t (normal-inverse-gamma prior, arXiv 2603.11799).

References saw half of the data and are less sure than the served model, most of all in the tail where mislabelled
records lie: an affine correction there calls a true retrain over-forgotten. So the served model's score is explained
by a monotone function of the reference mean fitted on held-out records, and what is left of a forgotten record is
compared with the held-out records of its stratum (the label) that are nearest in reference mean: a model retrained
without a class knows neither its forgotten nor its held-out records. 0.5: like never-seen records equally hard. Above:
a leak. Below: a leak as well (over-forgotten). Forgotten and held-out records must have equally many OUT references.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.verification.statistics import Array, Auc, AucDesign, Clusters, NotMeasurable, influenced

PRIOR_WEIGHT = 4.0
"""Degrees of freedom that the pooled variance counts for beside a record's own."""

NEIGHBOURS = 25
FEWEST = 10
"""A stratum with fewer held-out records than this is compared with all of them."""

DRAWS = 8
"""Models without a leak that are drawn to know beforehand what the attack can show."""

_LARGEST_Z = 37.0  # beyond it the normal tail is no longer a double


@dataclass(frozen=True)
class Judged:
    """Records [n] as one model scores them (larger = more like a member), beside what their OUT references say.

    `mean` and `variance` (with n - 1) of the scores of `count` references each; `subjects` clusters the records;
    `strata` (labels of a classifier's records) says which are compared with each other, None: all.
    """

    scores: Array
    mean: Array
    variance: Array
    count: Array
    subjects: Clusters
    strata: Clusters | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class ReferenceAuc:
    """The AUC, its clustered error, and what it rests on.

    `references`: OUT references per record. `outside`: share of forgotten records harder or easier by reference mean
    than every held-out record they could be compared with; what is said of these is an extrapolation. `ranks` [n]:
    share of its comparison records that each forgotten record lies above.
    """

    auc: Auc
    references: int
    outside: float
    ranks: Array


def pooled_variance(variance: Array, count: Array) -> float:
    """Mean of per-record variances, weighted by their degrees of freedom; zero where no record has two references."""
    freedom = np.maximum(count - 1, 0)
    total = float(freedom.sum())
    known = freedom > 0
    return float((freedom[known] * variance[known]).sum()) / total if total else 0.0


def calibrated_scores(
    scores: Array, mean: Array, variance: Array, count: Array, pooled: float, prior_weight: float = PRIOR_WEIGHT
) -> tuple[Array, Array]:
    """(one-sided probability, z) of each score [n] under its references' predictive Student distribution.

    t = (score - mean) / sqrt(s^2 (1 + 1/k)) with s^2 = (w pooled + (k - 1) variance) / (w + k - 1) and w + k - 1
    degrees of freedom; z is the normal quantile of the probability. Large for a record the model knows too well.
    """
    from scipy.special import ndtri, stdtr

    freedom = prior_weight + count - 1
    shrunk = (prior_weight * pooled + (count - 1) * np.where(count > 1, variance, 0.0)) / freedom
    t = (scores - mean) / np.sqrt(np.maximum(shrunk, np.finfo(np.float64).tiny) * (1 + 1 / count))
    tail = np.clip(-ndtri(stdtr(freedom, -np.abs(t))), 0.0, _LARGEST_Z)
    return np.asarray(stdtr(freedom, t), dtype=np.float64), np.asarray(np.copysign(tail, t), dtype=np.float64)


def monotone_correction(reference: Array, served: Array, at: Array) -> Array:
    """What the served model is expected to score where the references say `at` [n], for records it never saw.

    Isotonic least squares of served scores on reference means of held-out records [m], constant beyond their range.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(reference, served)
    return np.asarray(fitted.predict(at), dtype=np.float64)


def nearest(reference: Array, at: Array, neighbours: int = NEIGHBOURS) -> NDArray[np.int64]:
    """Positions [n, neighbours] of those of `reference` [m] that lie nearest to each of `at` [n]; m >= neighbours."""
    order = np.argsort(reference, kind="stable")
    values = reference[order]
    start = np.clip(np.searchsorted(values, at) - neighbours, 0, max(len(values) - 2 * neighbours, 0))
    window = start[:, None] + np.arange(min(2 * neighbours, len(values)))
    distance = np.abs(values[window] - at[:, None])
    chosen = np.argpartition(distance, neighbours - 1, axis=1)[:, :neighbours]
    return np.asarray(order[np.take_along_axis(window, chosen, axis=1)], dtype=np.int64)


def reference_auc(forget: Judged, held_out: Judged, neighbours: int = NEIGHBOURS) -> ReferenceAuc | NotMeasurable:
    """AUC of what the references leave unexplained, forgotten [n] against matched held-out [m] records, by subject.

    Not measurable without forgotten records, with fewer held-out records than one neighbourhood takes, with fewer
    than two OUT references, and where the numbers of references differ: their noise would tell the sets apart.
    """
    if len(forget) == 0:
        return NotMeasurable("not measurable: there are no forgotten records")
    if len(held_out) < neighbours:
        return NotMeasurable(f"not measurable: matching takes {neighbours} held-out records, there are {len(held_out)}")
    counts = np.unique(np.concatenate([forget.count, held_out.count]))
    if len(counts) > 1 or counts[0] < 2:
        told = "fewer than two OUT references" if len(counts) == 1 else "unequal numbers of OUT references"
        return NotMeasurable(f"not measurable: the records have {told}")
    # From held-out records alone: what the references say of the forgotten ones must not set the scale.
    pooled = pooled_variance(held_out.variance, held_out.count)
    left, others = (unexplained(part, held_out, pooled) for part in (forget, held_out))
    matched = _matched(forget, held_out, neighbours)
    against = others[matched.rows]
    wins = np.asarray((left[:, None] > against) + 0.5 * (left[:, None] == against), dtype=np.float64)
    return ReferenceAuc(
        _matched_auc(wins, matched, forget.subjects, held_out.subjects),
        references=int(counts[0]),
        outside=float(matched.beyond.mean()),
        ranks=np.asarray((wins * matched.weights).sum(axis=1), dtype=np.float64),
    )


@dataclass(frozen=True)
class _Matched:
    """Held-out `rows` [n, k] that each forgotten record is compared with, their `weights` (summing to 1 for each), and
    whether its reference mean lies `beyond` those of all it could be compared with."""

    rows: NDArray[np.int64]
    weights: Array
    beyond: NDArray[np.bool_]


def _matched(forget: Judged, held_out: Judged, neighbours: int) -> _Matched:
    rows = np.zeros((len(forget), neighbours), dtype=np.int64)
    weights, beyond = np.zeros(rows.shape), np.zeros(len(forget), dtype=bool)
    strata, others = _strata(forget, held_out)
    for stratum in np.unique(strata):
        ours, theirs = np.flatnonzero(strata == stratum), np.flatnonzero(others == stratum)
        theirs = theirs if len(theirs) >= min(FEWEST, neighbours) else np.arange(len(held_out))
        size = min(neighbours, len(theirs))
        at, reference = forget.mean[ours], held_out.mean[theirs]
        rows[ours, :size] = theirs[nearest(reference, at, size)]
        weights[ours, :size] = 1 / size
        beyond[ours] = (at < reference.min()) | (at > reference.max())
    return _Matched(rows, weights, beyond)


def _strata(forget: Judged, held_out: Judged) -> tuple[Clusters, Clusters]:
    if forget.strata is None or held_out.strata is None:
        return np.zeros(len(forget), dtype=np.int64), np.zeros(len(held_out), dtype=np.int64)
    return forget.strata, held_out.strata


def unexplained(part: Judged, held_out: Judged, pooled: float) -> Array:
    """z [n] of what references and the monotone correction leave of each score; `pooled` variance of held-out ones."""
    expected = monotone_correction(held_out.mean, held_out.scores, part.mean)
    return calibrated_scores(part.scores, expected, part.variance, part.count, pooled)[1]


def _matched_auc(wins: Array, matched: _Matched, subjects: Clusters, other_subjects: Clusters) -> Auc:
    """Weighted mean of comparisons [n, k], with the variance of both sides as in DeLong et al. (1988), by subject.

    A held-out record is in many neighbourhoods, so its influence is summed over all comparisons it takes part in.
    """
    ranks = (wins * matched.weights).sum(axis=1)
    auc = float(ranks.mean())
    own = influenced(auc, (ranks - auc) / len(ranks), subjects)
    share = (matched.weights * (wins - auc)).ravel() / len(ranks)
    influence = np.asarray(np.bincount(matched.rows.ravel(), share, len(other_subjects)), dtype=np.float64)
    used = np.unique(matched.rows[matched.weights > 0])
    other = influenced(auc, influence[used], other_subjects[used])
    return Auc(auc, float(np.hypot(own.se, other.se)), len(wins), len(used), (own.clusters, other.clusters))


def reference_design(forget: Judged, held_out: Judged, draw: np.random.Generator) -> AucDesign | None:
    """What the attack on forgotten [n] and held-out [m] records can find: its root mean square standard error over
    `DRAWS` models that are nothing but their references and noise. None where it cannot be measured.

    Scores are not looked at, so that this is known before any candidate is.
    """
    pooled = pooled_variance(held_out.variance, held_out.count)
    variances, subjects = [], 0
    for _ in range(DRAWS):
        drawn = [replace(part, scores=noise(part, pooled, draw)) for part in (forget, held_out)]
        found = reference_auc(drawn[0], drawn[1])
        if isinstance(found, NotMeasurable):
            return None
        variances.append(found.auc.se**2)
        subjects = min(found.auc.clusters)
    variance = float(np.mean(variances))
    return AucDesign(math.sqrt(variance), subjects - 1) if variance > 0 else None


def noise(part: Judged, pooled: float, draw: np.random.Generator, shift: float = 0.0) -> Array:
    """Scores [n] as models that never saw the records give them, `shift` predictive standard deviations higher."""
    return np.asarray(part.mean + _predictive(part, pooled) * (draw.normal(size=len(part)) + shift), dtype=np.float64)


def _predictive(part: Judged, pooled: float) -> Array:
    freedom = part.count - 1
    shrunk = (PRIOR_WEIGHT * pooled + freedom * part.variance) / (PRIOR_WEIGHT + freedom)
    return np.asarray(np.sqrt(shrunk * (1 + 1 / part.count)), dtype=np.float64)
