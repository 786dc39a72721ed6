"""PrivLeak: by hand, the closed form, published ends of its range, the guard against explosion, coverage."""

import numpy as np
import pytest

from service.verification.quantiles import normal_cdf
from service.verification.statistics import Clusters, NotMeasurable
from workers.metrics.privleak import PrivLeak, Scores, privleak


def measured(candidate: Scores, retrained: Scores, people: tuple[Clusters, Clusters] | None = None) -> PrivLeak:
    everybody = people or (np.arange(len(candidate.forget)), np.arange(len(candidate.held_out)))
    found = privleak(candidate, retrained, *everybody)
    assert isinstance(found, PrivLeak)
    return found


def gaussian(random: np.random.Generator, leak: float, shared: tuple[np.ndarray, np.ndarray]) -> Scores:
    """Scores with unit variance, half of it shared between models; forgotten ones are shifted by `leak`."""
    own = [np.sqrt(0.5) * (common + random.normal(size=len(common))) for common in shared]
    return Scores(own[0] + leak, own[1])


def test_by_hand() -> None:
    retrained, candidate = (
        Scores(np.array([1.0, 4]), np.array([2.0, 3])),
        Scores(np.array([2.5, 4]), np.array([2, 3.0])),
    )
    # Membership AUCs 1/2 and 3/4: A falls from 1/2 to 1/4.
    assert measured(candidate, retrained).estimate == pytest.approx(-50)
    assert measured(retrained, candidate).estimate == pytest.approx(100)


def test_everything_leaks_at_minus_100_and_a_retrain_is_at_0() -> None:
    random = np.random.default_rng(0)
    retrained = Scores(random.normal(size=50), random.normal(size=80))
    # open-unlearning docs/repro.md, MUSE News: -99.81 before unlearning, 0 for the retrained model.
    assert measured(Scores(retrained.forget + 100, retrained.held_out), retrained).estimate == -100
    again = measured(retrained, retrained)
    assert (again.estimate, again.linear.se) == (0, 0)
    away = 1 - np.mean(retrained.forget[:, None] > retrained.held_out)
    over = measured(Scores(retrained.forget - 100, retrained.held_out), retrained)
    assert over.estimate == pytest.approx(100 * (1 - away) / away)


@pytest.mark.parametrize("leak", [-1.0, 0.0, 0.5, 2.0])
def test_gaussian_scores_give_the_closed_form(leak: float) -> None:
    random = np.random.default_rng(1)
    shared = random.normal(size=20000), random.normal(size=20000)
    found = measured(gaussian(random, leak, shared), gaussian(random, 0, shared))
    expected = 100 * (normal_cdf(-leak / np.sqrt(2)) / 0.5 - 1)
    assert found.estimate == pytest.approx(expected, abs=3 * found.linear.se)


def test_a_complete_leak_of_few_people_is_not_known_exactly() -> None:
    random = np.random.default_rng(5)
    held_out = random.normal(size=300)
    retrained = Scores(random.normal(size=8), held_out)
    low, high = measured(Scores(retrained.forget + 100, held_out), retrained).interval(0.95)
    assert low == -100
    assert -80 < high < 0
    most = 100 / (1 - np.mean(retrained.forget[:, None] > held_out)) - 100
    low, high = measured(Scores(retrained.forget - 100, held_out), retrained).interval(0.95)
    assert low < most - 20
    assert high >= most


def test_it_does_not_explode_where_a_retrain_is_told_apart_already() -> None:
    random = np.random.default_rng(2)
    held_out = random.normal(size=400)
    retrained, candidate = Scores(random.normal(3, 1, 200), held_out), Scores(random.normal(0, 1, 200), held_out)
    found = privleak(candidate, retrained, np.arange(200), np.arange(400))
    assert isinstance(found, NotMeasurable)
    assert "to divide by" in found.reason


def test_one_person_alone_has_no_error() -> None:
    same = Scores(np.array([1.0, 4]), np.array([2.0, 3]))
    assert isinstance(privleak(same, same, np.zeros(2), np.arange(2)), NotMeasurable)
    assert isinstance(privleak(same, same, np.arange(2), np.zeros(2)), NotMeasurable)


@pytest.mark.parametrize(("leak", "size"), [(0.0, 1), (0.7, 1), (0.7, 4)])
def test_the_interval_covers(leak: float, size: int) -> None:
    random, held = np.random.default_rng(3), 0
    people = np.repeat(np.arange(120 // size), size), np.arange(300)
    expected = 100 * (normal_cdf(-leak / np.sqrt(2)) / 0.5 - 1)
    for _ in range(300):
        alike = random.normal(size=120 // size)[people[0]]
        shared = alike, random.normal(size=300)
        low, high = measured(gaussian(random, leak, shared), gaussian(random, 0, shared), people).interval(0.95)
        held += low <= expected <= high
    assert held / 300 == pytest.approx(0.95, abs=0.035)
