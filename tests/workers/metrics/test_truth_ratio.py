"""Truth ratio and forget quality: by hand, published p-values, critical distances, a null and a leak, coverage."""

import numpy as np
import pytest

from service.verification.kolmogorov import kolmogorov
from service.verification.quantiles import normal_cdf
from service.verification.statistics import Array, Clusters, NotMeasurable
from workers.metrics.truth_ratio import ForgetQuality, forget_quality, truth_ratio


def quality(candidate: Array, retrained: Array, subjects: Clusters | None = None, draws: int = 200) -> ForgetQuality:
    people = np.arange(len(candidate)) if subjects is None else subjects
    found = forget_quality(candidate, retrained, people, seed=0, draws=draws)
    assert isinstance(found, ForgetQuality)
    return found


def test_the_ratio_by_hand_in_both_readings() -> None:
    right, wrong = np.log(np.array([0.5, 0.2])), np.log(np.array([[0.1, 0.4], [0.2, 0.2]]))
    assert truth_ratio(right, wrong) == pytest.approx([0.2 / 0.5, 1])
    assert truth_ratio(right, wrong, "arithmetic") == pytest.approx([0.25 / 0.5, 1])
    assert truth_ratio(np.array([-1e4]), np.array([[-1.0]]))[0] == np.inf


@pytest.mark.parametrize(("questions", "published"), [(200, 1.94e-119), (400, 1.06e-239)])
def test_separate_ratios_have_the_p_value_that_was_published_for_gradient_ascent(
    questions: int, published: float
) -> None:
    # open-unlearning docs/repro.md, TOFU forget05 and forget10: the smallest p that two samples of that size can have.
    found = quality(np.linspace(0, 1, questions), np.linspace(2, 3, questions))
    assert found.distance == 1
    assert found.p_value == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(("questions", "critical"), [(40, 0.304), (200, 0.136), (400, 0.096)])
def test_the_p_value_depends_on_the_number_of_questions(questions: int, critical: float) -> None:
    retrained = np.arange(questions, dtype=float)
    # Moving all up by k ranks gives a distance of k / n.
    just = int(np.ceil(critical * questions))
    assert quality(retrained + just - 0.5, retrained).p_value < 0.056
    assert quality(retrained + just - 2.5, retrained).p_value > 0.05


def test_like_a_retrain_and_unlike_one() -> None:
    random = np.random.default_rng(0)
    retrained = random.lognormal(0, 1, 300)
    same, leaking = quality(random.lognormal(0, 1, 300), retrained), quality(random.lognormal(-1, 1, 300), retrained)
    assert same.p_value > 0.05
    assert same.ci95 is not None
    assert same.ci95[0] == 0
    assert leaking.ci95 is not None
    assert leaking.ci95[0] > 0.2
    assert leaking.p_value < 1e-8
    assert quality(retrained, retrained).distance == 0


@pytest.mark.parametrize(("size", "questions", "shift"), [(1, 200, 1.0), (5, 200, 1.0), (1, 40, 0.5), (1, 40, 0.0)])
def test_the_bounds_cover_a_known_distance_and_none(size: int, questions: int, shift: float) -> None:
    truth = 2 * normal_cdf(shift / 2) - 1
    random, held = np.random.default_rng(1), 0
    people = np.repeat(np.arange(questions // size), size)
    for _ in range(300):
        shared = np.sqrt(0.5) * random.normal(size=questions // size)[people]
        first, second = (shared + np.sqrt(0.5) * random.normal(size=questions) for _ in range(2))
        found = quality(first - shift, second, people)
        assert found.ci95 is not None
        assert found.distance == kolmogorov(first - shift, second).distance
        held += found.ci95[0] <= truth <= found.ci95[1]
    assert held / 300 >= 0.92


def test_one_person_has_no_bounds_and_a_ratio_that_is_none_no_distance() -> None:
    assert quality(np.arange(4.0), np.arange(4.0), np.zeros(4)).ci95 is None
    assert isinstance(forget_quality(np.array([np.nan]), np.ones(1), np.zeros(1), 0), NotMeasurable)
    assert isinstance(forget_quality(np.zeros(0), np.zeros(0), np.zeros(0), 0), NotMeasurable)
