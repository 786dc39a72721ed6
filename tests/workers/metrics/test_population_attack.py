"""Population attack: thresholds by hand, per class, closed-form advantage, no leak, and what an average hides."""

import numpy as np
import pytest

from service.verification.proportions import Proportion
from service.verification.quantiles import normal_cdf, normal_quantile
from service.verification.statistics import clustered_auc
from workers.metrics.population_attack import (
    SIGNS,
    Advantage,
    Thresholds,
    balanced_advantage,
    best_threshold,
    class_thresholds,
    member_score,
)


def tpr(members: np.ndarray, others: np.ndarray, rate: float) -> float:
    return float(np.mean(members > np.quantile(others, 1 - rate)))


@pytest.mark.parametrize(
    ("shift", "auc", "one_percent", "one_per_thousand"),
    [(1.0, 0.7602, 0.0924, 0.0183), (2.0, 0.9214, 0.3721, 0.1378)],
)
def test_closed_form_power_of_a_normal_shift(
    shift: float, auc: float, one_percent: float, one_per_thousand: float
) -> None:
    """AUC = Phi(mu / sqrt 2), TPR(f) = Phi(z_f + mu), best advantage 2 Phi(mu / 2) - 1; three standard errors."""
    draw, size = np.random.default_rng(0), 400_000
    members, others = draw.normal(shift, 1, size), draw.normal(0, 1, size)
    found = clustered_auc(members, others, np.arange(size), np.arange(size))
    assert found.auc == pytest.approx(auc, abs=3 * found.se + 5e-5)
    for rate, expected in ((0.01, one_percent), (0.001, one_per_thousand)):
        # Both the rate and the threshold vary: the slope of the ROC curve carries the threshold's error over.
        at = normal_quantile(rate)
        slope = np.exp(0.5 * at**2 - 0.5 * (at + shift) ** 2)
        error = np.sqrt((expected * (1 - expected) + slope**2 * rate * (1 - rate)) / size)
        assert tpr(members, others, rate) == pytest.approx(expected, abs=3 * error)
    half = size // 2
    threshold = best_threshold(members[:half], others[:half])
    assert threshold == pytest.approx(shift / 2, abs=0.1)
    judged = balanced_advantage(members[half:], others[half:], np.arange(half), np.arange(half), (threshold, threshold))
    assert judged.estimate == pytest.approx(2 * normal_cdf(shift / 2) - 1, abs=5e-3)


def test_thresholds_by_hand() -> None:
    # 3 of 4 members above 2.5, none of the others: no threshold does better.
    assert best_threshold(np.array([1.0, 3, 4, 5]), np.array([0.0, 1, 2, 2])) == 2.5
    # Scores that point the other way: calling nobody a member is best.
    assert best_threshold(np.array([0.0, 1]), np.array([2.0, 3])) == 3.0
    # Two equally good ones, (0.5, 1 of 2 v. 0) and (2.5, same): the higher calls fewer.
    assert best_threshold(np.array([1.0, 3]), np.array([0.0, 2])) == 2.5
    with pytest.raises(ValueError, match="members and of others"):
        best_threshold(np.array([]), np.array([1.0]))


def test_larger_scores_are_more_like_a_member() -> None:
    column = np.array([0.1, 0.2])
    assert np.diff(member_score("loss", column)) < 0
    assert np.diff(member_score("entropy", column)) < 0
    assert np.diff(member_score("modified_entropy", column)) < 0
    assert member_score("correct", np.array([True, False])).tolist() == [1.0, 0.0]
    with pytest.raises(KeyError):
        member_score("confidence", column)
    assert len(SIGNS) == 4


def test_classes_of_other_difficulty_take_thresholds_of_their_own() -> None:
    draw, size = np.random.default_rng(1), 4000
    classes = np.arange(size) % 4
    parts = [draw.normal(3.0 * classes + shift, 1) for shift in (1.5, 0.0, 1.5, 0.0)]
    thresholds = class_thresholds(parts[0], parts[1], classes, classes)
    assert [thresholds.by_class[label] for label in range(4)] == pytest.approx([0.75, 3.75, 6.75, 9.75], abs=0.4)
    people = np.arange(size)
    per_class = thresholds.of(classes)
    own = balanced_advantage(parts[2], parts[3], people, people, (per_class, per_class))
    overall = balanced_advantage(parts[2], parts[3], people, people, (thresholds.overall, thresholds.overall))
    assert own.estimate == pytest.approx(2 * normal_cdf(0.75) - 1, abs=0.04)
    assert overall.estimate < own.estimate / 2
    assert own.interval(0.95)[0] > overall.interval(0.95)[1]


def test_a_class_with_few_known_records_takes_the_threshold_of_all() -> None:
    scores, classes = np.arange(40.0), np.repeat([0, 1], [31, 9])
    thresholds = class_thresholds(scores + 5, scores, classes, classes)
    assert set(thresholds.by_class) == {0}
    assert thresholds.of(np.array([1, 7])).tolist() == [thresholds.overall] * 2
    assert Thresholds(1.0, {}).of(np.array([3])).tolist() == [1.0]


def test_thresholds_chosen_elsewhere_find_nothing_in_noise_and_their_own_choice_would() -> None:
    draw, people = np.random.default_rng(2), np.arange(30)
    elsewhere, here = [], []
    for _ in range(400):
        known, other, forget, held_out = (draw.normal(size=30) for _ in range(4))
        for chosen, kept in ((best_threshold(known, other), elsewhere), (best_threshold(forget, held_out), here)):
            kept.append(balanced_advantage(forget, held_out, people, people, (chosen, chosen)).estimate)
    assert np.mean(elsewhere) == pytest.approx(0.0, abs=0.02)
    assert np.mean(here) > 0.12


@pytest.mark.parametrize(("leak", "size"), [(0.0, 40), (0.0, 200), (1.0, 40), (3.0, 40), (-1.0, 200)])
def test_intervals_cover_the_true_advantage(leak: float, size: int) -> None:
    draw, people = np.random.default_rng(3), np.arange(size)
    true = normal_cdf(leak - 0.5) - normal_cdf(-0.5)
    found = [
        balanced_advantage(draw.normal(leak, 1, size), draw.normal(0, 1, size), people, people, (0.5, 0.5))
        for _ in range(600)
    ]
    bounds = np.array([judged.interval(0.95) for judged in found])
    assert np.mean((bounds[:, 0] <= true) & (true <= bounds[:, 1])) == pytest.approx(0.95, abs=0.025)


def test_records_of_one_person_are_no_independent_trials() -> None:
    draw, people, covered, alone = np.random.default_rng(4), np.repeat(np.arange(40), 10), 0, 0
    for _ in range(300):
        forget, held_out = (np.repeat(draw.normal(size=40), 10) + 0.5 * draw.normal(size=400) for _ in range(2))
        low, high = balanced_advantage(forget, held_out, people, people, (0.0, 0.0)).interval(0.95)
        covered += low <= 0 <= high
        single = balanced_advantage(forget, held_out, np.arange(400), np.arange(400), (0.0, 0.0)).interval(0.95)
        alone += single[0] <= 0 <= single[1]
    assert covered / 300 >= 0.93
    assert alone / 300 < 0.75


def test_an_average_hides_single_records() -> None:
    """Two of a hundred remembered outright: the advantage does not see them, a low false-positive rate does."""
    forget, held_out = (np.array([normal_quantile((at + 0.5) / size) for at in range(size)]) for size in (100, 2000))
    forget[:2] = 8.0
    judged = balanced_advantage(forget, held_out, np.arange(100), np.arange(2000), (0.0, 0.0))
    assert judged.interval(0.95)[0] < 0 < judged.interval(0.95)[1]
    assert tpr(forget, held_out, 0.001) >= 0.02


def test_decisions_that_never_differ_still_have_an_interval() -> None:
    people = np.repeat(np.arange(5), 8)
    judged = balanced_advantage(np.ones(40), np.zeros(40), people, people, (0.5, 0.5))
    assert (judged.estimate, judged.true_positives.trials, judged.clusters) == (1.0, 5.0, (5, 5))
    low, high = judged.interval(0.95)
    assert low < 0.5 < high == 1.0
    single = Advantage(Proportion(1, 1), Proportion(0, 5), 8, 40, (1, 5))
    assert single.interval(0.95) == (-1.0, 1.0)
