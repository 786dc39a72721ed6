"""Memorization (Feldman 2020; RUM, arXiv 2406.01257): how much of a right answer is owed to the record itself.

mem(i) = accuracy on record i of models that saw it, less that of models that did not; the side tables of a reference
pool have it per record. Near 0: whoever never saw the record answers it as well, and a deletion changes little. Near 1:
it can only be known by heart. It describes the request and not the candidate: no leak in either direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.verification.statistics import Array, Clusters, Mean, NotMeasurable, clustered_mean

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Memorization:
    """Mean over records with its error clustered by subject, quantiles by level, and records without a value.

    The error takes the references as given: with few of them each record's value is coarse (it comes in steps of one
    over their number) and the quantiles lie further out than the truth's.
    """

    mean: Mean
    quantiles: Mapping[float, float]
    unknown: int


def memorization(values: Array, subjects: Clusters) -> Memorization | NotMeasurable:
    """Summary of memorization values [n], -1 to 1; nan where no reference saw the record, or all did."""
    known = np.isfinite(values)
    if not known.any():
        return NotMeasurable("not measurable: no record was seen by some references and not by others")
    levels = np.quantile(values[known], QUANTILES)
    quantiles = {level: float(value) for level, value in zip(QUANTILES, levels, strict=True)}
    return Memorization(clustered_mean(values[known], subjects[known]), quantiles, int(np.count_nonzero(~known)))
