"""Paired AUC differences: DeLong's formula written out, coverage with and without clusters, and what pairing gains."""

import math

import numpy as np
import pytest

from service.verification.paired_auc import AucDifference, paired_auc
from service.verification.quantiles import normal_cdf
from service.verification.statistics import Auc, clustered_auc

Pair = tuple[np.ndarray, np.ndarray]


def scores(random: np.random.Generator, people: int, each: int, shifts: tuple[float, float], shared: float) -> Pair:
    """Scores of the same records under two models, shifted; `shared` is the correlation of their unit-variance noise.

    Records of one person share a third of it.
    """
    common, *own = (noise(random, people, each) for _ in range(3))
    first, second = (math.sqrt(shared) * common + math.sqrt(1 - shared) * part for part in own)
    return first + shifts[0], second + shifts[1]


def noise(random: np.random.Generator, people: int, each: int) -> np.ndarray:
    rho = 1 / 3 if each > 1 else 0.0
    person = np.repeat(random.normal(size=people), each)
    return math.sqrt(rho) * person + math.sqrt(1 - rho) * random.normal(size=people * each)


def rounded(pair: Pair, digits: int) -> Pair:
    first, second = (np.round(values, digits).astype(np.float64) for values in pair)
    return first, second


def by_the_definition(members: Pair, others: Pair) -> tuple[float, float]:
    """DeLong 1988 from the matrix of all comparisons: (difference, standard error)."""
    psi = [(np.sign(a[:, None] - b) + 1) / 2 for a, b in zip(members, others, strict=True)]
    rows, columns = (np.cov([matrix.mean(axis) for matrix in psi]) for axis in (1, 0))
    contrast = np.array([1.0, -1.0])
    variance = contrast @ (rows / len(members[0]) + columns / len(others[0])) @ contrast
    return float(psi[0].mean() - psi[1].mean()), math.sqrt(variance)


def test_without_clusters_it_is_delongs_also_with_ties() -> None:
    random = np.random.default_rng(1)
    for rounding in (9, 0):
        members, others = scores(random, 30, 1, (0.7, 0.1), 0.6), scores(random, 50, 1, (0.0, 0.0), 0.6)
        members, others = rounded(members, rounding), rounded(others, rounding)
        found = paired_auc(members, others, np.arange(30), np.arange(50))
        assert (found.difference, found.se) == pytest.approx(by_the_definition(members, others))
        assert found.first == clustered_auc(members[0], others[0], np.arange(30), np.arange(50))
        assert found.df == 29


def test_pairing_narrows_the_interval() -> None:
    random = np.random.default_rng(2)
    members, others = scores(random, 200, 1, (0.5, 0.5), 0.9), scores(random, 400, 1, (0.0, 0.0), 0.9)
    sides = np.arange(200), np.arange(400)
    apart = [clustered_auc(inside, outside, *sides).se for inside, outside in zip(members, others, strict=True)]
    assert paired_auc(members, others, *sides).se < 0.5 * math.hypot(*apart)


# People on both sides, records each, shifts of the two models.
@pytest.mark.parametrize(
    ("first", "second", "each", "shifts"),
    [
        (50, 50, 1, (0.0, 0.0)),
        (50, 200, 1, (0.5, 0.0)),
        (100, 100, 1, (1.0, 0.5)),
        (12, 60, 6, (0.0, 0.0)),
        (30, 30, 6, (1.0, 0.0)),
    ],
)
def test_intervals_cover(first: int, second: int, each: int, shifts: tuple[float, float]) -> None:
    random, draws, held, rejected = np.random.default_rng(3), 5000 if each == 1 else 2500, 0, 0
    groups = np.repeat(np.arange(first), each), np.repeat(np.arange(second), each)
    true = normal_cdf(shifts[0] / math.sqrt(2)) - normal_cdf(shifts[1] / math.sqrt(2))
    for _ in range(draws):
        found = paired_auc(
            scores(random, first, each, shifts, 0.7), scores(random, second, each, (0.0, 0.0), 0.7), *groups
        )
        low, high = found.interval(0.95)
        held += low <= true <= high
        rejected += found.p_value() < 0.05
    if each == 1:
        assert held / draws == pytest.approx(0.95, abs=0.01)
    else:
        assert 0.935 <= held / draws <= 0.98
    if true == 0.0:
        assert rejected == draws - held
    else:
        assert rejected / draws > 0.15


@pytest.mark.parametrize("shifts", [(3.0, 3.0), (3.0, 2.5), (4.0, 3.0)])
@pytest.mark.parametrize("shared", [0.3, 0.95])
def test_intervals_near_one_are_wide_enough(shifts: tuple[float, float], shared: float) -> None:
    # Student's t alone held the true difference in 87 to 95 % of draws where the two differ.
    random, held, widths = np.random.default_rng(7), 0, []
    true = normal_cdf(shifts[0] / math.sqrt(2)) - normal_cdf(shifts[1] / math.sqrt(2))
    for _ in range(500):
        members, others = scores(random, 50, 1, shifts, shared), scores(random, 200, 1, (0.0, 0.0), shared)
        found = paired_auc(members, others, np.arange(50), np.arange(200))
        low, high = found.interval(0.95)
        held += low <= true <= high
        (least, most), (other_least, other_most) = (one.interval(0.95) for one in (found.first, found.second))
        apart = math.hypot(found.first.auc - least, other_most - found.second.auc)
        apart += math.hypot(most - found.first.auc, found.second.auc - other_least)
        widths.append((high - low) / apart)
    assert held / 500 >= 0.95
    # What the models share still narrows them.
    assert np.median(widths) < (0.9 if shared > 0.5 else 1.0)


def test_ignoring_people_would_cover_too_little() -> None:
    random, held = np.random.default_rng(4), 0
    for _ in range(500):
        members, others = scores(random, 12, 10, (0.0, 0.0), 0.5), scores(random, 60, 10, (0.0, 0.0), 0.5)
        low, high = paired_auc(members, others, np.arange(120), np.arange(600)).interval(0.95)
        held += low <= 0 <= high
    assert held / 500 < 0.85


def test_a_planted_leak_is_found_and_its_sign_is_that_of_the_first_model() -> None:
    random = np.random.default_rng(5)
    members, others = scores(random, 300, 1, (1.0, 0.0), 0.8), scores(random, 300, 1, (0.0, 0.0), 0.8)
    sides = np.arange(300), np.arange(300)
    leak, other_way = paired_auc(members, others, *sides), paired_auc(members[::-1], others[::-1], *sides)
    assert leak.interval(0.95)[0] > 0.1
    assert leak.p_value() < 1e-6
    assert other_way.difference == -leak.difference
    assert other_way.interval(0.95) == pytest.approx(tuple(-bound for bound in leak.interval(0.95)[::-1]))


def test_the_same_scores_twice_still_have_a_width_that_hangs_on_people() -> None:
    random = np.random.default_rng(6)
    members, others = random.normal(size=400), random.normal(size=400)
    found = paired_auc((members, members), (others, others), np.arange(400), np.arange(400))
    assert (found.difference, found.se, found.p_value()) == (0.0, 0.0, 1.0)
    low, high = found.interval(0.95)
    assert high == -low == pytest.approx(1 - 0.025 ** (1 / 400))
    fewer = paired_auc((members, members), (others, others), np.arange(400) // 20, np.arange(400))
    assert fewer.interval(0.95)[1] > 10 * high
    one = paired_auc((members, members), (others, others), np.zeros(400), np.arange(400))
    assert (one.interval(0.95), one.p_value()) == ((-1.0, 1.0), 1.0)
    level = [AucDifference(Auc(a, 0.0, 9, 9, (9, 9)), Auc(b, 0.0, 9, 9, (9, 9)), 0.0) for a, b in ((0.7, 0.3), (1, 0))]
    assert level[0].interval(0.95) == pytest.approx(
        (0.4 - 1.4 * (1 - 0.025 ** (1 / 9)), 0.4 + 1.4 * (1 - 0.025 ** (1 / 9)))
    )
    assert level[1].interval(0.95)[1] == 1.0


def test_other_records_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same records"):
        paired_auc((np.ones(3), np.ones(4)), (np.ones(5), np.ones(5)), np.arange(3), np.arange(5))
