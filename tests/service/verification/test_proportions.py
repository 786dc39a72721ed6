"""Exact bounds against closed forms and SciPy, Newcombe against his own table, and what each of them covers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.verification.proportions import Proportion, newcombe, trials_needed


@pytest.mark.parametrize("trials", [1, 5, 10, 50, 100, 1000])
def test_nothing_found_has_the_closed_form(trials: int) -> None:
    assert Proportion(0, trials).upper() == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-9)
    assert Proportion(trials, trials).lower() == pytest.approx(0.05 ** (1 / trials), rel=1e-9)
    assert (Proportion(0, trials).lower(), Proportion(trials, trials).upper()) == (0.0, 1.0)


@pytest.mark.parametrize(("found", "trials"), [(1, 50), (25, 50), (36, 305), (487, 999)])
def test_one_sided_bounds_are_scipys(found: int, trials: int) -> None:
    exact = stats.binomtest(found, trials, alternative="greater").proportion_ci(0.95, "exact")
    assert Proportion(found, trials).lower() == pytest.approx(exact.low, abs=1e-9)
    exact = stats.binomtest(found, trials, alternative="less").proportion_ci(0.95, "exact")
    assert Proportion(found, trials).upper() == pytest.approx(exact.high, abs=1e-9)
    wilson = stats.binomtest(found, trials).proportion_ci(0.95, "wilson")
    assert Proportion(found, trials).score_interval() == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_non_members_that_a_false_positive_rate_takes() -> None:
    assert [trials_needed(rate) for rate in (0.001, 0.01, 0.05)] == [2995, 299, 59]
    for found in (0, 1, 4):
        needed = trials_needed(0.001, found)
        assert Proportion(found, needed).upper() <= 0.001 < Proportion(found, needed - 1).upper()
    assert trials_needed(0.9) == 2
    for rate, found in ((0.0, 0), (1.0, 0), (0.1, -1)):
        with pytest.raises(ValueError, match="rate"):
            trials_needed(rate, found)


@pytest.mark.parametrize("trials", [1, 7, 10, 40, 200])
def test_exact_bounds_cover_at_least_nominally_and_score_bounds_on_average(trials: int) -> None:
    counts, rates = np.arange(trials + 1), np.linspace(0.01, 0.99, 99)
    every = [Proportion(found, trials) for found in range(trials + 1)]
    chances = stats.binom.pmf(counts, trials, rates[:, None])
    two_sided, score = (np.array([p.interval() for p in every]), np.array([p.score_interval() for p in every]))
    covered = ((two_sided[:, 0] <= rates[:, None]) & (rates[:, None] <= two_sided[:, 1])) * chances
    assert covered.sum(1).min() >= 0.95 - 1e-9
    above = (np.array([p.upper() for p in every]) >= rates[:, None]) * chances
    below = (np.array([p.lower() for p in every]) <= rates[:, None]) * chances
    assert min(above.sum(1).min(), below.sum(1).min()) >= 0.95 - 1e-9
    inside = ((score[:, 0] <= rates[:, None]) & (rates[:, None] <= score[:, 1])) * chances
    assert inside.sum(1).mean() == pytest.approx(0.95, abs=0.03)


# Newcombe (1998), table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_own_examples(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    assert newcombe(Proportion(*first), Proportion(*second)) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("n", "m", "first", "second"), [(40, 40, 0.5, 0.5), (60, 200, 0.05, 0.1), (300, 300, 0.9, 0.8)]
)
def test_newcombe_covers(n: int, m: int, first: float, second: float) -> None:
    inside = 0.0
    weights, other_weights = (stats.binom.pmf(np.arange(k + 1), k, p) for k, p in ((n, first), (m, second)))
    likely, other_likely = np.flatnonzero(weights > 1e-7), np.flatnonzero(other_weights > 1e-7)
    bounds = {k: Proportion(int(k), n) for k in likely}
    for k in likely:
        for j in other_likely:
            low, high = newcombe(bounds[k], Proportion(int(j), m))
            inside += weights[k] * other_weights[j] * (low <= first - second <= high)
    assert 0.935 <= inside <= 0.985


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1, 20))
def test_bounds_hold_the_rate_and_fewer_effective_trials_widen_them(counts: tuple[int, int], effect: float) -> None:
    found = Proportion(*counts)
    fewer = found.effective(effect)
    assert fewer.rate == pytest.approx(found.rate)
    low, high = found.interval()
    assert low <= found.lower() <= found.rate + 1e-12
    assert found.rate - 1e-12 <= found.upper() <= high
    wide = fewer.interval()
    assert wide[0] <= low + 1e-9
    assert wide[1] >= high - 1e-9


@pytest.mark.parametrize("counts", [(-1, 10), (11, 10), (0, 0), (math.nan, 10), (1, math.nan), (1, math.inf)])
def test_impossible_counts_are_refused(counts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        Proportion(*counts)
