"""The stdlib distribution functions against SciPy, and the table values of research note 11.6."""

import math

import numpy as np
import pytest
from scipy import stats

from service.verification.quantiles import (
    beta_quantile,
    clopper_pearson,
    negatives_needed,
    normal_cdf,
    normal_quantile,
    regularised_beta,
    student_quantile,
)


@pytest.mark.parametrize("df", [1, 2, 3, 9, 29, 200, 5000])
@pytest.mark.parametrize("probability", [0.0125, 0.2, 0.5, 0.8, 0.95, 0.975, 0.9995])
def test_student_quantile_is_scipys(df: int, probability: float) -> None:
    assert student_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1, 1), (3, 40), (40, 3), (1000.5, 2.25), (0.5, 2500)])
def test_beta_functions_are_scipys(a: float, b: float) -> None:
    for x in (0.0, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0):
        assert regularised_beta(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-9, abs=1e-12)
    for p in (0.0, 0.025, 0.5, 0.975, 1.0):
        assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-8, abs=1e-12)


def test_normal_functions() -> None:
    assert normal_cdf(0) == 0.5
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 50), (1, 50), (25, 50), (50, 50), (487, 999)])
def test_clopper_pearson_is_scipys(successes: int, trials: int) -> None:
    exact = stats.binomtest(successes, trials).proportion_ci(method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(
    ("trials", "bound"), [(1, 0.95), (5, 0.45), (10, 0.26), (50, 0.058), (100, 0.03), (1000, 0.003)]
)
def test_nothing_found_bounds_the_rate_by_about_three_over_n(trials: int, bound: float) -> None:
    one_sided = clopper_pearson(0, trials, confidence=0.90)[1]
    assert one_sided == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
    assert one_sided == pytest.approx(bound, rel=0.02)


def test_non_members_needed_for_a_false_positive_rate() -> None:
    assert [negatives_needed(rate) for rate in (0.001, 0.01, 0.05)] == [2995, 299, 59]


def test_clopper_pearson_covers_at_least_nominally() -> None:
    for trials in (10, 40):
        bounds = [clopper_pearson(found, trials) for found in range(trials + 1)]
        for rate in np.linspace(0.02, 0.98, 25):
            chance = stats.binom.pmf(np.arange(trials + 1), trials, rate)
            covered = sum(p for p, (low, high) in zip(chance, bounds, strict=True) if low <= rate <= high)
            assert covered >= 0.95 - 1e-9


def test_effective_counts_widen_the_interval() -> None:
    narrow, wide = clopper_pearson(20, 100), clopper_pearson(20 / 3.5, 100 / 3.5)
    assert wide[0] < narrow[0] < 0.2 < narrow[1] < wide[1]
    assert not math.isnan(wide[0])
