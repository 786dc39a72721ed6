"""Two-version attack (Chen et al., arXiv 2005.02205): what do the old and the new model say together?

Whoever has kept the original can compare it with the candidate: a record that both score alike was not deleted, one
whose score fell was. The attack is a logistic regression on [o, u, u - o], the logit-scaled confidences (or mean
log-likelihoods) of original and candidate, cross-fitted: no record is scored by a fit that saw its subject.

AUC of forgotten against held-out records: 0.5, two versions give nobody away. Above: a leak, and one that an exact
retrain has as well, since the difference of the versions names the deleted. It speaks for retiring the old version
and for deleting several people at once, not against the candidate. The attack learns its direction, so values below
0.5 are noise.

The folds' fits share most of their records, so their errors agree and the plain variance is too small: without a leak
the AUC varies about 1.5 times as much. It is multiplied by 1 + folds x test / fit = 9 / 4 (Nadeau and Bengio 2003),
which is cautious where there is a leak.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.verification.statistics import Array, Auc, Clusters, NotMeasurable, clustered_auc

FOLDS = 5

_INFLATION = math.sqrt(1 + FOLDS / (FOLDS - 1))


@dataclass(frozen=True)
class Versions:
    """Records [n] as the original and as the candidate score them, and their subjects."""

    original: Array
    candidate: Array
    subjects: Clusters

    def __len__(self) -> int:
        return len(self.original)


def two_version_auc(forget: Versions, held_out: Versions, seed: int) -> Auc | NotMeasurable:
    """AUC of out-of-fold predictions, forgotten [n] against held-out [m] records, clustered by subject.

    A subject with records on both sides is in one fold with all of them. Predictions of different folds come from
    different fits, so each is replaced by its rank in its fold. Not measurable with fewer subjects on a side than
    folds, since a fold would then have nobody to tell apart.
    """
    if min(len(set(part.subjects.tolist())) for part in (forget, held_out)) < FOLDS:
        return NotMeasurable(f"not measurable: fewer than {FOLDS} people on one side")
    features = np.concatenate([_features(forget), _features(held_out)])
    member = np.repeat([1, 0], [len(forget), len(held_out)])
    groups = np.concatenate([forget.subjects.astype(str), held_out.subjects.astype(str)])
    ranks = np.full(len(member), 0.5)
    for fit, test in _folds(member, groups, seed):
        if len(set(member[fit].tolist())) == 2 and len(test):
            ranks[test] = _ranks(_predict(features[fit], member[fit], features[test]))
    auc = clustered_auc(ranks[member == 1], ranks[member == 0], forget.subjects, held_out.subjects)
    return replace(auc, se=_INFLATION * auc.se)


def _features(part: Versions) -> Array:
    return np.stack([part.original, part.candidate, part.candidate - part.original], axis=1)


def _folds(
    member: NDArray[np.int64], groups: Clusters, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a class has few members, which the caller has looked at
        yield from StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(member, member, groups)


def _predict(features: Array, member: NDArray[np.int64], at: Array) -> Array:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops early is a weaker attack, not an error
        attack = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")).fit(features, member)
    return np.asarray(attack.decision_function(at), dtype=np.float64)


def _ranks(values: Array) -> Array:
    ordered = np.sort(values)
    left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((left + right) / (2.0 * len(values)), dtype=np.float64)
