"""Distance of distributions: its definition, its critical values, and the coverage of its bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.verification.kolmogorov import Distance, critical_distance, kolmogorov


@pytest.mark.parametrize(("n", "expected"), [(40, 0.304), (200, 0.136), (400, 0.096)])
def test_critical_values(n: int, expected: float) -> None:
    assert critical_distance(n, n) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (200, 100), (400, 400)])
def test_samples_of_one_distribution_exceed_it_with_chance_alpha_at_most(n: int, m: int) -> None:
    random = np.random.default_rng(n)
    found = np.array([kolmogorov(random.random(n), random.random(m)).distance for _ in range(3000)])
    exceeded = (found > critical_distance(n, m)).mean()
    # The distance is a multiple of 1 / n for equal samples, so that small ones exceed it less often.
    assert 0.02 <= exceeded <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)


VALUES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)


@given(VALUES, VALUES)
def test_the_distance_is_that_of_the_definition_also_with_ties(first: list[float], second: list[float]) -> None:
    found = kolmogorov(np.array(first), np.array(second))
    shares = [[sum(value <= at for value in sample) / len(sample) for at in range(10)] for sample in (first, second)]
    expected = max(abs(a - b) for a, b in zip(*shares, strict=True))
    assert found.distance == pytest.approx(expected)
    low, high = found.interval()
    assert 0 <= low <= found.distance <= high <= 1


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_bounds_cover_and_find_a_shift(shift: float) -> None:
    random, held = np.random.default_rng(5), []
    true = 2 * stats.norm.cdf(shift / 2) - 1
    for _ in range(1000):
        low, high = kolmogorov(random.normal(shift, 1, 200), random.normal(0, 1, 200)).interval()
        held.append(low <= true <= high)
    assert np.mean(held) >= 0.95
    assert low > 0.2 or shift < 2


def test_bounds_are_those_of_massart() -> None:
    # Half of the error for each sample: 2 exp(-2 n reach^2) = 0.025.
    low, high = Distance(0.5, 200, 800).interval()
    reach = math.sqrt(math.log(80) / 400) + math.sqrt(math.log(80) / 1600)
    assert (low, high) == pytest.approx((0.5 - reach, 0.5 + reach))


def test_separate_samples_and_none() -> None:
    assert kolmogorov(np.zeros(5), np.ones(7)) == Distance(1.0, 5, 7)
    for wrong in (np.array([]), np.array([math.nan])):
        with pytest.raises(ValueError, match="samples"):
            kolmogorov(wrong, np.ones(3))
    with pytest.raises(ValueError, match="critical"):
        critical_distance(0, 5)
