"""Clustered intervals: closed forms, coverage by simulation, and the cases where a variance estimate breaks down."""

import math
import time

import numpy as np
import pytest

from service.verification.quantiles import normal_cdf
from service.verification.statistics import (
    Auc,
    auc_design,
    clustered_auc,
    clustered_mean,
    clustered_ratio,
    clustering_effect,
    influenced,
    threshold_at,
)


def alone(size: int) -> np.ndarray:
    return np.arange(size)


def draw(random: np.random.Generator, people: int, each: int, rho: float) -> np.ndarray:
    """Scores of unit variance, correlated `rho` within each person."""
    shared = np.repeat(random.normal(size=people), each)
    return math.sqrt(rho) * shared + math.sqrt(1 - rho) * random.normal(size=people * each)


def coverage(random: np.random.Generator, shape: tuple[int, int, int, float], shift: float, draws: int) -> float:
    """Share of 95 % intervals that hold the true AUC; shape = people on both sides, records each, rho."""
    first, second, each, rho = shape
    groups = np.repeat(np.arange(first), each), np.repeat(np.arange(second), each)
    true, held = normal_cdf(shift / math.sqrt(2)), 0
    for _ in range(draws):
        auc = clustered_auc(shift + draw(random, first, each, rho), draw(random, second, each, rho), *groups)
        low, high = auc.interval(0.95)
        held += low <= true <= high
    return held / draws


def test_auc_of_a_small_example_by_hand() -> None:
    auc = clustered_auc(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0]), alone(2), alone(3))
    assert auc.auc == pytest.approx((1 + 0.5 + 0 + 3) / 6)
    # DeLong 1988: var = s10 / n + s01 / m of the placements (0.5, 1) and (1, 0.75, 0.5).
    assert auc.se == pytest.approx(math.sqrt(np.var([0.5, 1], ddof=1) / 2 + np.var([1, 0.75, 0.5], ddof=1) / 3))


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 0.5), (1.0, 0.7602), (2.0, 0.9214), (-1.0, 0.2398)])
def test_auc_of_gaussian_scores_is_the_closed_form(shift: float, expected: float) -> None:
    random = np.random.default_rng(1)
    auc = clustered_auc(random.normal(shift, 1, 8000), random.normal(0, 1, 8000), alone(8000), alone(8000))
    assert auc.auc == pytest.approx(expected, abs=3 * auc.se)
    assert auc.se < 0.006


def test_standard_error_under_the_null_is_that_of_hanley() -> None:
    random = np.random.default_rng(2)
    for n, m in ((60, 60), (100, 500)):
        found = [clustered_auc(random.normal(size=n), random.normal(size=m), alone(n), alone(m)) for _ in range(2000)]
        expected = math.sqrt((m + n + 1) / (12 * m * n))
        assert np.std([auc.auc for auc in found]) == pytest.approx(expected, rel=0.05)
        assert np.sqrt(np.mean([auc.se**2 for auc in found])) == pytest.approx(expected, rel=0.03)
        assert auc_design(n, m, (1.0, 1.0), (n, m)).se == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m", "shift"), [(50, 200, 0.0), (50, 2000, 0.5), (100, 100, 1.0), (300, 300, 0.5)])
def test_coverage_without_clusters(n: int, m: int, shift: float) -> None:
    random = np.random.default_rng(10)
    draws = 5000 if m < 1000 else 2000
    assert 0.94 <= coverage(random, (n, m, 1, 0.0), shift, draws) <= 0.96


@pytest.mark.parametrize(("first", "second", "shift"), [(10, 10, 0.0), (10, 200, 0.5), (20, 20, 1.0), (30, 100, 0.0)])
def test_coverage_with_clusters_is_near_nominal(first: int, second: int, shift: float) -> None:
    # Seen over 2,000 draws, rho 0.3, eight records each, shifts 0, 0.5, 1: 0.941 to 0.965.
    random = np.random.default_rng(11)
    assert 0.925 <= coverage(random, (first, second, 8, 0.3), shift, 1500) <= 0.98


def test_ignoring_clusters_would_cover_too_little() -> None:
    random = np.random.default_rng(12)
    held = 0
    for _ in range(500):
        auc = clustered_auc(draw(random, 15, 8, 0.3), draw(random, 15, 8, 0.3), alone(120), alone(120))
        low, high = auc.interval(0.95)
        held += low <= 0.5 <= high
    assert held / 500 < 0.85


@pytest.mark.parametrize("shift", [2.0, 3.0, 4.0])
def test_coverage_near_one_is_not_too_small(shift: float) -> None:
    assert coverage(np.random.default_rng(13), (50, 200, 1, 0.0), shift, 1000) >= 0.94


@pytest.mark.parametrize(("member", "other"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_a_zero_variance_still_has_a_wide_interval(member: float, other: float) -> None:
    auc = clustered_auc(np.full(40, member), np.full(60, other), alone(40), alone(60))
    assert auc.se == 0
    low, high = auc.interval(0.95)
    assert low <= auc.auc <= high
    assert high - low > 0.03
    # The width hangs on people, not on records.
    fewer = Auc(auc.auc, 0.0, 40, 60, (10, 12)).interval(0.95)
    assert fewer[1] - fewer[0] > high - low


def test_one_subject_says_nothing() -> None:
    auc = clustered_auc(np.arange(50.0), np.arange(50.0), np.zeros(50), alone(50))
    assert auc.interval(0.95) == (0.0, 1.0)
    assert auc_design(50, 50, (1.0, 1.0), (1, 50)).power_at_zero(0.15, 0.05) == 0
    assert auc_design(50, 50, (1.0, 1.0), (1, 50)).smallest_detectable(0.05) is None


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.5, 1.0, 4.0])
@pytest.mark.parametrize(("n", "people"), [(12, 12), (200, 40)])
def test_p_is_below_a_level_where_the_interval_of_that_level_leaves_one_half_out(
    shift: float, n: int, people: int
) -> None:
    random = np.random.default_rng(int(10 * shift) + 100)
    auc = clustered_auc(random.normal(shift, 1, n), random.normal(0, 1, 300), np.arange(n) % people, alone(300))
    p = auc.p_value()
    for level in (0.5, 0.1, 0.05, 0.01, 0.001, 1e-6):
        low, high = auc.interval(1 - level)
        assert (low <= 0.5 <= high) == (p > level)


def test_p_is_uniform_without_a_leak_and_one_person_gives_none() -> None:
    random = np.random.default_rng(5)
    drawn = [
        clustered_auc(random.normal(size=80), random.normal(size=200), alone(80), alone(200)).p_value()
        for _ in range(1000)
    ]
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(drawn) < level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 1000))
    assert clustered_auc(np.ones(9), np.zeros(9), np.zeros(9), alone(9)).p_value() == 1.0
    apart = clustered_auc(np.ones(900) + random.random(900), random.random(900), alone(900), alone(900))
    assert apart.p_value() == pytest.approx(1e-12, rel=0.01)


@pytest.mark.parametrize(("margin", "records"), [(0.02, 1785), (0.03, 794), (0.05, 286), (0.10, 72), (0.15, 32)])
def test_a_clean_model_passes_with_80_percent_at_the_sizes_of_the_note(margin: float, records: int) -> None:
    design = auc_design(records, 10**7, (1.0, 1.0), (10**6, 10**6))
    assert design.power_at_zero(margin, 0.05) == pytest.approx(0.80, abs=0.02)


@pytest.mark.parametrize(("n", "expected"), [(5, 0.82), (10, 0.73), (50, 0.60), (200, 0.55), (1000, 0.53)])
def test_smallest_detectable_auc_of_the_note(n: int, expected: float) -> None:
    found = auc_design(n, 2000, (1.0, 1.0), (10**6, 10**6)).smallest_detectable(0.05)
    assert found is not None
    assert 0.5 + found == pytest.approx(expected, abs=0.006)
    assert auc_design(1, 2000, (1.0, 1.0), (10**6, 10**6)).smallest_detectable(0.05) is None


def test_clustering_effect_is_one_without_and_grows_with_resemblance() -> None:
    random = np.random.default_rng(3)
    assert clustering_effect(random.normal(size=500), alone(500)) == pytest.approx(1.0)
    scores = draw(random, 400, 10, 0.4)
    assert clustering_effect(scores, np.repeat(alone(400), 10)) == pytest.approx(1 + 9 * 0.4, rel=0.15)
    assert clustering_effect(np.ones(20), np.repeat(alone(4), 5)) == 1.0


def test_clustered_mean_and_ratio_cover() -> None:
    random = np.random.default_rng(4)
    groups, held = np.repeat(alone(40), 5), np.zeros(2)
    for _ in range(1500):
        values, weights = draw(random, 40, 5, 0.4), random.uniform(1, 3, 200)
        for at, found in enumerate(
            (clustered_mean(values, groups), clustered_ratio(weights * 2 + values, weights, groups))
        ):
            bounds = found.interval(0.95)
            assert bounds is not None
            held[at] += bounds[0] <= (0.0, 2.0)[at] <= bounds[1]
    assert np.all(np.abs(held / 1500 - 0.95) < 0.02)


def test_a_mean_is_a_sum_of_influences() -> None:
    values, groups = np.array([1.0, 2.0, 4.0, 5.0]), np.array([0, 0, 1, 1])
    mean = clustered_mean(values, groups)
    assert mean == influenced(3.0, (values - 3.0) / 4, groups)
    # Two people whose sums are 3 below and 3 above: sqrt(2 / 1 * (9 + 9)) / 4.
    assert mean.se == pytest.approx(1.5)
    assert clustered_mean(values, np.zeros(4)).interval(0.95) is None


def test_threshold_lets_at_most_the_rate_through() -> None:
    others = np.arange(100.0)
    assert threshold_at(others, 0.05) == 94
    assert np.count_nonzero(others > threshold_at(others, 0.05)) == 5
    assert threshold_at(others, 0.001) == 99
    assert np.count_nonzero(np.ones(50) > threshold_at(np.ones(50), 0.05)) == 0


def level_leaving_out_half(auc: Auc) -> float:
    """The level at which the interval begins to leave 0.5 out, by looking at intervals alone."""
    low, high = math.log(1e-12), 0.0
    for _ in range(60):
        middle = (low + high) / 2
        least, most = auc.interval(1.0 - math.exp(middle))
        low, high = (low, middle) if not least <= 0.5 <= most else (middle, high)
    return math.exp(high)


@pytest.mark.parametrize("at", [0.0, 0.03, 0.2, 0.4, 0.5, 0.55, 0.7, 0.88, 0.93, 0.97, 1.0])
def test_the_p_value_is_the_level_at_which_the_interval_leaves_out_one_half(at: float) -> None:
    for se in (0.0, 0.004, 0.03, 0.2):
        for size, people in ((12, (5, 9)), (200, (2, 60)), (900, (40, 300)), (40, (1, 30))):
            auc = Auc(at, se, size, 3 * size, people)
            # 1 - level is a double near 1, so that intervals themselves tell small levels apart to 1e-16 alone.
            assert auc.p_value() == pytest.approx(level_leaving_out_half(auc), abs=1e-9)
            assert 1e-12 <= auc.p_value() <= 1.0


def test_a_p_value_is_as_quick_as_a_formula() -> None:
    aucs = [Auc(0.5 + at / 5000, 0.03, 900, 3000, (40 + at, 300)) for at in range(400)]
    start = time.process_time()
    found = [auc.p_value() for auc in aucs]
    assert time.process_time() - start < 0.5
    assert found == sorted(found, reverse=True)
