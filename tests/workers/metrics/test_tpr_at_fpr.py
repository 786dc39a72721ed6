"""True-positive rate at a low false-positive rate: the closed form, its null, and sizes that do not carry it."""

import numpy as np
import pytest

from service.verification.statistics import NotMeasurable
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr


def measured(leak: float, rate: float, n: int = 20000, m: int = 20000) -> OperatingPoint:
    random = np.random.default_rng(3)
    found = tpr_at_fpr(random.normal(leak, 1, n), random.normal(0, 1, m), np.arange(n), rate)
    assert isinstance(found, OperatingPoint)
    return found


@pytest.mark.parametrize(
    ("leak", "rate", "expected"), [(0, 0.01, 0.01), (1, 0.01, 0.0924), (2, 0.01, 0.3721), (1, 0.001, 0.0183)]
)
def test_gaussian_shifts_give_the_closed_form(leak: float, rate: float, expected: float) -> None:
    # TPR(f) = Phi(z_f + mu); the threshold's own error is part of the tolerance.
    assert measured(leak, rate).rate == pytest.approx(expected, rel=0.12)


def test_the_interval_is_exact_and_clustered() -> None:
    point = measured(1.0, 0.01, n=200)
    assert point.ci95[0] < point.rate < point.ci95[1]
    random = np.random.default_rng(4)
    people = np.repeat(np.arange(20), 10)
    members = np.repeat(random.normal(2, 1, 20), 10)
    held_out = random.normal(0, 1, 1000)
    wide, narrow = tpr_at_fpr(members, held_out, people), tpr_at_fpr(members, held_out, np.arange(200))
    assert isinstance(wide, OperatingPoint)
    assert isinstance(narrow, OperatingPoint)
    assert wide.ci95[1] - wide.ci95[0] > 2 * (narrow.ci95[1] - narrow.ci95[0])


def test_too_few_held_out_records_are_said_so() -> None:
    found = tpr_at_fpr(np.ones(50), np.zeros(298), np.arange(50))
    assert isinstance(found, NotMeasurable)
    assert "299" in found.reason
    assert isinstance(tpr_at_fpr(np.ones(50), np.zeros(299), np.arange(50)), OperatingPoint)


def test_constant_scores_find_nobody() -> None:
    found = tpr_at_fpr(np.ones(50), np.ones(400), np.arange(50))
    assert isinstance(found, OperatingPoint)
    assert (found.rate, found.found) == (0.0, 0)
    assert found.ci95[1] > 0.05
