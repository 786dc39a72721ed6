"""Forgetting rates by hand, when nothing changes, when everything is forgotten, and where they cannot be had."""

import numpy as np
import pytest

from service.verification.statistics import Mean, NotMeasurable
from workers.metrics.forgetting_rate import forgetting_rate_accuracy, forgetting_rate_mia

HELD_OUT = np.arange(100.0)  # five per cent lie above 94


def rate(found: Mean | NotMeasurable) -> float:
    assert isinstance(found, Mean), found
    return found.estimate


def test_the_rate_is_the_share_that_moves_from_member_to_unknown() -> None:
    before, after = np.array([95, 99, 99, 99, 10.0]), np.array([95, 99, 10, 10, 99.0])
    # BT = 4, BF = 1, AF = 2: (2 - 1) / 4.
    assert rate(forgetting_rate_mia((before, HELD_OUT), (after, HELD_OUT), np.arange(5))) == pytest.approx(0.25)


def test_each_model_has_a_threshold_of_its_own() -> None:
    before, after = np.full(10, 99.0), np.full(10, 199.0)
    assert rate(forgetting_rate_mia((before, HELD_OUT), (after, HELD_OUT + 100), np.arange(10))) == 0.0


def test_doing_nothing_is_zero_and_losing_all_is_one() -> None:
    before, nothing = np.linspace(90, 99, 40), np.zeros(40)
    assert rate(forgetting_rate_mia((before, HELD_OUT), (before, HELD_OUT), np.arange(40))) == 0.0
    assert rate(forgetting_rate_mia((before, HELD_OUT), (nothing, HELD_OUT), np.arange(40))) == 1.0


def test_a_retrain_does_not_reach_one() -> None:
    random = np.random.default_rng(0)
    before = random.normal(2, 1, 4000), random.normal(0, 1, 4000)
    after = random.normal(0, 1, 4000), random.normal(0, 1, 4000)
    # P(member after) = 0.05, P(member before) = Phi(2 - 1.645) = 0.639.
    assert rate(forgetting_rate_mia(before, after, np.arange(4000))) == pytest.approx(1 - 0.05 / 0.639, abs=0.01)


def test_it_needs_members_and_a_calibrated_threshold() -> None:
    low = (np.zeros(5), HELD_OUT)
    assert isinstance(forgetting_rate_mia(low, low, np.arange(5)), NotMeasurable)
    short = (np.full(5, 99.0), HELD_OUT[:58])
    assert isinstance(forgetting_rate_mia(short, short, np.arange(5)), NotMeasurable)


def test_the_accuracy_rate_is_the_drop_over_that_of_a_model_without_them() -> None:
    before, after = np.array([1, 1, 1, 1.0]), np.array([1, 0, 1, 0.0])
    assert rate(forgetting_rate_accuracy(before, after, 0.5, np.arange(4))) == pytest.approx(1.0)
    assert rate(forgetting_rate_accuracy(before, after, 0.75, np.arange(4))) == pytest.approx(2.0)  # over-forgotten
    assert rate(forgetting_rate_accuracy(before, before, 0.5, np.arange(4))) == 0.0
    worse = np.array([0, 1, 1, 1.0])
    assert rate(forgetting_rate_accuracy(worse, before, 0.5, np.arange(4))) == 0.0  # clipped
    assert isinstance(forgetting_rate_accuracy(before, after, 1.0, np.arange(4)), NotMeasurable)
