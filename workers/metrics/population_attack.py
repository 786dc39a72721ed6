"""Population attack: one number of one model says member or not, by a threshold for all records or one per class.

Yeom et al. (2018) threshold the loss; Song and Mittal (2021) add correctness, entropy and modified entropy, and choose
the threshold per class by balanced accuracy. Thresholds come from records whose membership is known (a reference
model's own and others, or retained and reserved records), never from those that are judged: a threshold chosen on
them finds an advantage in noise. The AUC of the same scores needs no threshold and is `membership_auc`.

Balanced advantage is the true-positive rate less the false-positive rate: 0 is a model that never saw the forgotten
records. Above: a leak. Below: a leak as well, the forgotten records look less like members than never-seen ones do
(over-forgotten). An average over records that single ones can hide in (Hayes et al., arXiv 2403.01218).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.verification.proportions import Proportion, newcombe
from service.verification.statistics import Array, Clusters, Interval, clustering_effect

SIGNS = {"loss": -1.0, "correct": 1.0, "entropy": -1.0, "modified_entropy": -1.0}
"""Columns of a classifier's score table that the attack uses; times the sign, larger is more like a member."""

FEWEST = 10
"""A class with fewer known members or others than this takes the threshold of all classes."""


def member_score(name: str, column: Array) -> Array:
    """A column of a score table [n] turned so that larger is more like a member; KeyError for a column not in SIGNS."""
    return np.asarray(SIGNS[name] * np.asarray(column, dtype=np.float64), dtype=np.float64)


def best_threshold(members: Array, others: Array) -> float:
    """The t for which "member where score > t" has the best balanced accuracy on known members [n] and others [m].

    It lies halfway between two scores, or beyond the largest, where calling nobody a member is best. Of equally good
    ones the highest, which calls the fewest. ValueError where one side is empty.
    """
    if not len(members) or not len(others):
        raise ValueError("a threshold takes scores of members and of others")
    values = np.unique(np.concatenate([members, others]))
    below = (np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (members, others))
    missed, spared = below
    gain = spared - missed  # balanced accuracy is (1 + gain) / 2 for "score > value"
    at = len(values) - 1 - int(np.argmax(gain[::-1]))
    return float(values[at] + (values[at + 1] - values[at]) / 2) if at + 1 < len(values) else float(values[at])


@dataclass(frozen=True)
class Thresholds:
    """One threshold for all, and those of the classes that have enough known records."""

    overall: float
    by_class: Mapping[int, float]

    def of(self, classes: Clusters) -> Array:
        """The threshold [n] that each record's class [n] takes."""
        return np.asarray([self.by_class.get(int(label), self.overall) for label in classes], dtype=np.float64)


def class_thresholds(
    members: Array, others: Array, member_classes: Clusters, other_classes: Clusters, fewest: int = FEWEST
) -> Thresholds:
    """Thresholds by balanced accuracy within each class of known members [n] and others [m] (Song and Mittal 2021)."""
    chosen: dict[int, float] = {}
    for label in np.intersect1d(member_classes, other_classes):
        ours, theirs = members[member_classes == label], others[other_classes == label]
        if min(len(ours), len(theirs)) >= fewest:
            chosen[int(label)] = best_threshold(ours, theirs)
    return Thresholds(best_threshold(members, others), chosen)


@dataclass(frozen=True)
class Advantage:
    """True- and false-positive decisions of an attack and the difference of their rates.

    Trials are effective ones, since records of one subject are no independent trials; `n`, `m` count forgotten and
    held-out records, `clusters` the subjects of either side.
    """

    true_positives: Proportion
    false_positives: Proportion
    n: int
    m: int
    clusters: tuple[int, int]

    @property
    def estimate(self) -> float:
        """The advantage, -1 to 1."""
        return self.true_positives.rate - self.false_positives.rate

    def interval(self, confidence: float) -> Interval:
        """Two-sided bounds (Newcombe 1998), never of zero width; (-1, 1) where one side is a single subject."""
        if min(self.clusters) < 2:
            return -1.0, 1.0
        return newcombe(self.true_positives, self.false_positives, confidence)


def balanced_advantage(
    forget: Array,
    held_out: Array,
    forget_subjects: Clusters,
    held_out_subjects: Clusters,
    thresholds: tuple[Array | float, Array | float],
) -> Advantage:
    """Advantage of "member where score > threshold" on forgotten [n] and held-out [m] scores, larger = member.

    `thresholds`: one for each side's records [n], [m] (`Thresholds.of` their classes), or one number for all.
    """
    found, false = (np.asarray(part, dtype=np.float64) for part in (forget > thresholds[0], held_out > thresholds[1]))
    clusters = len(np.unique(forget_subjects)), len(np.unique(held_out_subjects))
    return Advantage(
        _effective(found, forget_subjects), _effective(false, held_out_subjects), len(found), len(false), clusters
    )


def _effective(decisions: Array, subjects: Clusters) -> Proportion:
    """Decisions that never differ show nothing of how alike a subject's records are: each subject then counts once."""
    made = Proportion(float(decisions.sum()), len(decisions))
    if np.ptp(decisions) == 0.0:
        return made.effective(len(decisions) / len(np.unique(subjects)))
    return made.effective(clustering_effect(decisions, subjects))
