"""The NeurIPS 2023 score: epsilon by hand, its null for every number of models, its fall with a leak, one candidate."""

import math

import numpy as np
import pytest

from service.verification.statistics import Array, Mean, NotMeasurable
from workers.metrics.unlearning_score import (
    CAP,
    Score,
    epsilons,
    forgetting_quality,
    points,
    quality_null,
    unlearning_score,
)

Accuracies = tuple[tuple[float, float], tuple[float, float]]

SAME: Accuracies = ((0.9, 0.9), (0.8, 0.8))


def quality(unlearned: Array, retrained: Array) -> float:
    found = forgetting_quality(unlearned, retrained, np.arange(unlearned.shape[1]))
    assert isinstance(found, Mean)
    return found.estimate


def test_epsilon_by_hand() -> None:
    own, other = np.array([[1.0], [2], [3], [5]]), np.array([[0.0], [1.5], [2.5], [4]])
    # Kept: (missed, false) of (1/4, 3/4), (1/4, 2/4), (2/4, 2/4), (2/4, 1/4), (3/4, 1/4): two of them are best.
    assert epsilons(own, other)[0] == pytest.approx(math.log((1 - 1e-5 - 0.5) / 0.25))
    assert epsilons(own, other)[0] == epsilons(other, own)[0]
    nearer = epsilons(np.array([[1.0], [3], [4], [5]]), np.array([[0.0], [0.5], [0.8], [2]]))[0]
    assert nearer == pytest.approx(math.log((1 - 1e-5 - 0.25) / 0.25))


def test_what_is_separate_or_collapsed_ends_at_the_cap() -> None:
    apart = epsilons(np.arange(5.0)[:, None], np.arange(10.0, 15)[:, None])
    narrow = epsilons(np.full((5, 1), 2.0) + 1e-4 * np.arange(5.0)[:, None], np.arange(5.0)[:, None])
    assert apart[0] == narrow[0] == CAP
    assert epsilons(np.ones((5, 1)), np.ones((5, 1)))[0] == 0


def test_equal_margins_are_never_split_by_a_threshold() -> None:
    own, other = np.array([[1.0], [1], [2], [2]]), np.array([[0.0], [0], [1], [1]])
    # "1 and more" misses none, "2 and more" takes none of the others: both are dropped, and nothing is separate.
    assert epsilons(own, other)[0] == 0
    own, other = np.array([[1.0], [1], [1], [2]]), np.array([[0.0], [1], [1], [2]])
    # "2 and more": (3/4, 1/4); "1 and more" misses none.
    assert epsilons(own, other)[0] == pytest.approx(math.log((1 - 1e-5 - 0.25) / 0.75), abs=1e-4)


def test_points_halve_each_half_unit_and_end() -> None:
    assert points(np.array([0, 0.49, 0.5, 1.2, 6.99, 7, 50]), 512).tolist() == [1, 1, 0.5, 0.25, 2.0**-13, 0, 0]
    assert points(np.array([1.99, 2.0]), 8).tolist() == [0.125, 0]


@pytest.mark.parametrize("models", [8, 16, 64, 256])
def test_a_perfect_unlearner_scores_a_third_whatever_the_number_of_models(models: int) -> None:
    random = np.random.default_rng(0)
    found = quality(random.normal(size=(models, 1500)), random.normal(size=(models, 1500)))
    assert found == pytest.approx(0.35, abs=0.04)


@pytest.mark.parametrize(("models", "leaking"), [(16, 0.112), (64, 0.043), (512, 0.017)])
def test_a_leak_of_one_deviation_scores_as_the_note_says(models: int, leaking: float) -> None:
    random = np.random.default_rng(1)
    found = quality(random.normal(1, 1, (models, 1500)), random.normal(size=(models, 1500)))
    assert found == pytest.approx(leaking, rel=0.2)


def test_it_falls_with_the_leak_on_either_side() -> None:
    random = np.random.default_rng(2)
    retrained = random.normal(size=(32, 800))
    found = [quality(random.normal(shift, 1, (32, 800)), retrained) for shift in (0, 0.5, 1, 2, 4)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.02
    assert quality(random.normal(-1, 1, (32, 800)), retrained) == pytest.approx(found[2], rel=0.2)


def scored(unlearned: Array, retrained: Array, accuracies: Accuracies = SAME) -> Score:
    subjects = np.arange(unlearned.shape[1])
    found, null = (
        forgetting_quality(unlearned, retrained, subjects),
        quality_null(retrained, len(unlearned), subjects, 0),
    )
    assert isinstance(found, Mean)
    assert not isinstance(null, NotMeasurable)
    score = unlearning_score(found, null, accuracies)
    assert isinstance(score, Score)
    return score


def test_the_score_of_a_retrain_is_one_and_utility_multiplies() -> None:
    random = np.random.default_rng(3)
    retrained = random.normal(size=(64, 2000))
    same = scored(random.normal(size=(32, 2000)), retrained)
    assert same.estimate == pytest.approx(1, abs=0.12)
    worse = scored(random.normal(size=(32, 2000)), retrained, ((0.45, 0.9), (0.4, 0.8)))
    assert worse.utility == pytest.approx(0.25)
    assert worse.published == pytest.approx(worse.quality.estimate / 4)
    assert worse.estimate == pytest.approx(0.25, abs=0.03)
    assert scored(random.normal(2, 1, (32, 2000)), retrained).estimate < 0.15


@pytest.mark.parametrize("models", [8, 20])
def test_one_candidate_scores_the_share_of_records_within_the_retrained_range(models: int) -> None:
    random = np.random.default_rng(4)
    level = random.normal(3, 2, 6000)
    retrained = level + random.normal(size=(models, 6000))
    again = (level + random.normal(size=6000))[None, :]
    rest = [np.delete(retrained, at, axis=0) for at in range(models)]
    inside = np.mean([(again[0] > one.min(axis=0)) & (again[0] < one.max(axis=0)) for one in rest])
    assert quality(again, retrained) == pytest.approx(inside)
    assert inside == pytest.approx((models - 2) / models, abs=0.02)
    assert scored(again, retrained).null == pytest.approx((models - 2) / models, abs=1e-9)  # two of r are outermost
    assert scored(again, retrained).estimate == pytest.approx(1, abs=0.03)
    assert scored((level + 4)[None, :], retrained).estimate < 0.1


def test_the_interval_covers_the_expected_quality() -> None:
    random, held = np.random.default_rng(5), 0
    for _ in range(150):
        found = forgetting_quality(random.normal(size=(1, 80)), random.normal(size=(10, 80)), np.arange(80))
        assert isinstance(found, Mean)
        low, high = found.interval(0.95) or (0, 0)
        held += low <= 0.8 <= high
    assert held / 150 >= 0.91


def test_too_few_models_are_said_so() -> None:
    for unlearned, retrained in ((7, 8), (8, 7), (1, 7)):
        found = forgetting_quality(np.zeros((unlearned, 4)), np.zeros((retrained, 4)), np.arange(4))
        assert isinstance(found, NotMeasurable)
        assert "8 models" in found.reason
    assert isinstance(quality_null(np.zeros((7, 4)), 1, np.arange(4), 0), NotMeasurable)
    assert isinstance(quality_null(np.zeros((15, 4)), 8, np.arange(4), 0), NotMeasurable)
    full, none = Mean(0.4, 0.1, 4, 4), Mean(0.0, 0.0, 4, 4)
    assert isinstance(unlearning_score(full, [full], ((0.5, 0.0), (0.5, 0.5))), NotMeasurable)
    assert isinstance(unlearning_score(full, [full], ((0.5, 0.5), (0.5, 0.0))), NotMeasurable)
    assert isinstance(unlearning_score(full, [none, none], SAME), NotMeasurable)
