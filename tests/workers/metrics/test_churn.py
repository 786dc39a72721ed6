"""Churn by hand, with nothing changed, with a damaged class, and the coverage of its interval."""

import numpy as np
import pytest
from scipy.stats import binomtest

from workers.metrics.churn import churn, churn_by_class


def test_both_directions_are_counted() -> None:
    before, after = np.array([1, 1, 1, 0, 0.0]), np.array([1, 0, 0, 1, 0.0])
    found = churn(before, after, np.arange(5))
    assert (found.newly_wrong.rate, found.newly_right.rate, found.n, found.subjects) == (0.4, 0.2, 5, 5)
    exact = binomtest(2, 5).proportion_ci(method="exact")
    assert found.newly_wrong.interval() == pytest.approx((exact.low, exact.high))


def test_equal_accuracies_do_not_hide_what_changed() -> None:
    before = np.tile([1.0, 0.0], 50)
    found = churn(before, 1 - before, np.arange(100))
    assert found.newly_wrong.rate == found.newly_right.rate == 0.5


def test_the_original_itself_has_none_and_the_bound_counts_people() -> None:
    right = np.ones(200)
    found = churn(right, right, np.repeat(np.arange(20), 10))
    exact = binomtest(0, 20).proportion_ci(method="exact")
    assert found.newly_wrong.rate == 0
    assert found.newly_wrong.interval() == pytest.approx((0, exact.high))


def test_a_damaged_class_stands_out() -> None:
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(4), 250)
    before = np.ones(1000)
    after = (random.random(1000) > np.where(classes == 2, 0.3, 0.02)).astype(float)
    found = churn_by_class(before, after, np.arange(1000), classes)
    assert list(found) == [0, 1, 2, 3]
    low = {label: part.newly_wrong.interval()[0] for label, part in found.items()}
    high = {label: part.newly_wrong.interval()[1] for label, part in found.items()}
    assert low[2] > 0.2
    assert max(high[label] for label in (0, 1, 3)) < 0.07
    assert sum(part.newly_wrong.rate * part.n for part in found.values()) == pytest.approx(1000 - after.sum())


@pytest.mark.parametrize("size", [1, 6])
def test_the_interval_covers_at_least_as_often_as_it_says(size: int) -> None:
    random, held = np.random.default_rng(1), 0
    people = np.repeat(np.arange(60), size)
    for _ in range(400):
        rate = random.beta(2, 18, 60)[people] if size > 1 else 0.1
        found = churn(np.ones(len(people)), (random.random(len(people)) > rate).astype(float), people)
        low, high = found.newly_wrong.interval()
        held += low <= 0.1 <= high
    assert held / 400 >= 0.935


@pytest.mark.parametrize(("before", "after"), [([], []), ([0.5], [1.0]), ([1.0], [0.3])])
def test_what_is_neither_right_nor_wrong_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="right"):
        churn(np.array(before), np.array(after), np.arange(len(before)))
