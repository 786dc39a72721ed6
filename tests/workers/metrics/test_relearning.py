"""Excess recovery: by hand, how often its interval covers the truth, and what it refuses."""

import math

import numpy as np
import pytest

from service.verification.statistics import NotMeasurable
from workers.metrics.relearning import Excess, relearning_excess


def test_the_excess_is_the_mean_over_records_less_the_mean_reference() -> None:
    candidate = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    references = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0]])
    found = relearning_excess(candidate, references, np.repeat(["a", "b"], 4))
    assert isinstance(found, Excess)
    assert (found.estimate, found.n, found.clusters, found.references) == (0.5, 8, 2, 1)
    # Differences from the mean of 0.5 sum to 2 and -2 over the two people: sqrt(2 * (4 + 4)) / 8.
    assert found.se == pytest.approx(0.5)
    assert found.df == pytest.approx(1.0)
    assert found.interval(0.95) == (-1.0, 1.0)
    second = 1.0 - references
    both = relearning_excess(candidate, np.concatenate([references, second]), np.repeat(["a", "b"], 4))
    assert isinstance(both, Excess)
    assert both.estimate == pytest.approx(candidate.mean() - 0.5)


def test_the_spread_between_references_is_part_of_the_error() -> None:
    candidate, subjects = np.array([1.0, 0.0] * 20), np.arange(40)
    references = np.stack([np.ones(40), np.zeros(40), np.array([1.0, 0.0] * 20)])
    found = relearning_excess(candidate, references, subjects)
    assert isinstance(found, Excess)
    # Means 1, 0 and 0.5 have variance 0.25, and one more training lies 4/3 of that from the mean of three.
    people = relearning_excess(candidate, references[2:], subjects)
    assert isinstance(people, Excess)
    assert found.se > math.sqrt(0.25 * 4 / 3)
    assert 2.0 < found.df < 2.5
    assert people.se < 0.1
    assert people.df == 39


@pytest.mark.parametrize(("count", "least", "most"), [(1, 0.5, 0.75), (2, 0.87, 0.99), (5, 0.935, 0.99)])
def test_the_interval_covers_zero_where_trainings_differ_as_a_whole(count: int, least: float, most: float) -> None:
    """With a single reference it cannot, which the docstring says."""
    draw = np.random.default_rng(4)
    subjects = np.repeat(np.arange(30), 5)
    covered = []
    for _ in range(600):
        luck = draw.normal(0, 0.08, (count + 1, 1))
        answers = (draw.random((count + 1, 150)) < 0.5 + luck).astype(float)
        found = relearning_excess(answers[0], answers[1:], subjects)
        assert isinstance(found, Excess)
        low, high = found.interval(0.95)
        covered.append(low <= 0.0 <= high)
    assert least <= np.mean(covered) <= most


def test_equal_answers_are_not_known_to_agree_everywhere() -> None:
    answers = np.ones(30)
    found = relearning_excess(answers, answers[None, :], np.arange(30))
    assert isinstance(found, Excess)
    low, high = found.interval(0.95)
    assert low < -0.05 < 0.0 < 0.05 < high


@pytest.mark.parametrize("leak", [0.0, 0.2])
def test_the_interval_covers_the_truth_with_and_without_a_leak(leak: float) -> None:
    """Records of one person are easy or hard together for every model; 30 people with five records."""
    draw = np.random.default_rng(3)
    subjects = np.repeat(np.arange(30), 5)
    covered = []
    for _ in range(1000):
        ease = np.repeat(draw.uniform(0.2, 0.6, 30), 5)
        # Half of the people are remembered, by twice the leak, the others not at all.
        more = np.repeat(2 * leak * (draw.random(30) < 0.5), 5)
        candidate = (draw.random(150) < ease + more).astype(float)
        references = (draw.random((1, 150)) < ease).astype(float)
        found = relearning_excess(candidate, references, subjects)
        assert isinstance(found, Excess)
        low, high = found.interval(0.95)
        covered.append(low <= leak <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_what_cannot_be_measured_says_why() -> None:
    alone = relearning_excess(np.ones(3), np.ones((1, 3)), np.array(["a", "a", "a"]))
    assert isinstance(alone, NotMeasurable)
    assert "people" in alone.reason
    nobody = relearning_excess(np.ones(3), np.zeros((0, 3)), np.arange(3))
    assert isinstance(nobody, NotMeasurable)
    with pytest.raises(ValueError, match="do not fit"):
        relearning_excess(np.ones(3), np.ones((2, 4)), np.arange(3))
