"""Robust membership inference (RMIA, Zarifzadeh et al., arXiv 2312.03262): useful with one or two references.

A record x is compared with population records z that nobody trained on, each against what references say of it:
LR(x, z) = [p(x) / pbar(x)] / [p(z) / pbar(z)], p the probability that the attacked model gives the true label (of a
text: the mean probability per token). The score of x is the share of z with LR > gamma. References that never saw x
say too little of pbar(x), which is over models with and without it: pbar = ((1 + a) pbar_out + (1 - a)) / 2, with `a`
tuned on a reference in the place of the attacked model.

AUC of the scores, forgotten against held-out records: 0.5 is a model that never saw the forgotten ones. Above: a
leak. Below: a leak as well (over-forgotten). Scores come in steps of 1 / |Z|: a false-positive rate of 0.1 % takes
5,000 population records.
"""

from dataclasses import dataclass

import numpy as np

from service.verification.statistics import Array, Auc, Clusters, NotMeasurable, clustered_auc

FALLBACK = 0.3
"""`a` where no reference can stand in for the attacked model (the authors' value for few references)."""

GRID = tuple(step / 10 for step in range(11))
GAMMA = 1.0
FEWEST = 10
"""Fewer population records than this make no score; fewer members or others of a reference do not tune `a`."""

_FLOOR = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Signals:
    """Records [n]: `log_probability` of the true answer under the attacked model, `out_mean` of its probability (not
    of the logarithm) over those references that never saw the record."""

    log_probability: Array
    out_mean: Array

    def __len__(self) -> int:
        return len(self.log_probability)


def offline_mean(out_mean: Array, a: float) -> Array:
    """pbar [n] from OUT references alone; a = 1 takes their mean as it is, a = 0 half way to certainty."""
    return np.asarray(((1 + a) * out_mean + (1 - a)) / 2, dtype=np.float64)


def log_ratio(signals: Signals, a: float) -> Array:
    """log p(x) - log pbar(x) [n]."""
    return np.asarray(
        signals.log_probability - np.log(np.maximum(offline_mean(signals.out_mean, a), _FLOOR)), dtype=np.float64
    )


def rmia_scores(ratios: Array, population: Array, gamma: float = GAMMA) -> Array:
    """Share of population log-ratios [z] that each log-ratio [n] exceeds by more than log gamma; gamma > 0."""
    below = np.searchsorted(np.sort(population), ratios - np.log(gamma), side="left")
    return np.asarray(below / len(population), dtype=np.float64)


def tune_offline(members: Signals, others: Signals, population: Signals, gamma: float = GAMMA) -> float:
    """The `a` of the grid with the best AUC on a reference that stands in for the attacked model.

    `members` and `others` of that reference, `out_mean` from the references that are left. FALLBACK with too few
    records; the lowest of equally good values. Takes no record whose membership the attack will be asked for.
    """
    if min(len(members), len(others), len(population)) < FEWEST:
        return FALLBACK
    found = [_auc(members, others, population, a, gamma) for a in GRID]
    return GRID[int(np.argmax(found))]


def _auc(members: Signals, others: Signals, population: Signals, a: float, gamma: float) -> float:
    against = log_ratio(population, a)
    ours, theirs = (rmia_scores(log_ratio(part, a), against, gamma) for part in (members, others))
    return clustered_auc(ours, theirs, np.arange(len(ours)), np.arange(len(theirs))).auc


def rmia(
    forget: Signals,
    held_out: Signals,
    population: Signals,
    subjects: tuple[Clusters, Clusters],
    a: float = FALLBACK,
    gamma: float = GAMMA,
) -> Auc | NotMeasurable:
    """AUC of the scores, forgotten [n] against held-out [m] records, clustered by the subjects of either side.

    The population [z] holds neither of them: a held-out record that is its own population cannot lie above itself.
    Not measurable with too few population records, without records on a side, or without references.
    """
    if min(len(forget), len(held_out)) == 0:
        return NotMeasurable("not measurable: there are no forgotten or no held-out records")
    if len(population) < FEWEST:
        return NotMeasurable(f"not measurable: fewer than {FEWEST} population records")
    if not all(np.isfinite(part.out_mean).all() for part in (forget, held_out, population)):
        return NotMeasurable("not measurable: some records have no reference that never saw them")
    against = log_ratio(population, a)
    ours, theirs = (rmia_scores(log_ratio(part, a), against, gamma) for part in (forget, held_out))
    return clustered_auc(ours, theirs, *subjects)
