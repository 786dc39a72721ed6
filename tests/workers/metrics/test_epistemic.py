"""Epistemic efficacy: by hand, a model's own gradients, its bound, and the trap of records known by heart."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.verification.statistics import Array, Mean, NotMeasurable
from workers.metrics.epistemic import Efficacy, efficacy_bound, efficacy_ratio, efficiency, epistemic_efficacy


def gradients(weights: Array, points: Array, labels: Array) -> Array:
    """Gradients [n, p] of log p(y | x) of a logistic regression: (y - sigmoid(w x)) x."""
    return np.asarray((labels - 1 / (1 + np.exp(-points @ weights)))[:, None] * points)


def efficacy(squared: Array) -> float:
    found = epistemic_efficacy(squared, np.arange(len(squared)))
    assert isinstance(found, Efficacy)
    return found.estimate


def test_by_hand() -> None:
    squared = np.array([[1.0, 2, 1], [0, 0, 0], [2, 3, 3]])
    assert efficacy(squared) == pytest.approx(1 / 4)
    assert efficacy(squared.sum(axis=1, keepdims=True)) == pytest.approx(1 / 4)
    assert efficiency(20, 300) == 15


def test_a_coin_flipping_model_has_a_closed_form_and_a_bound() -> None:
    random = np.random.default_rng(0)
    points, labels = random.normal(size=(20000, 5)), random.integers(0, 2, 20000).astype(float)
    found = gradients(np.zeros(5), points, labels)
    assert efficacy(np.square(found)) == pytest.approx(4 / 5, rel=0.03)  # E ||x / 2||^2 = 5 / 4
    assert efficacy(np.square(found)) <= efficacy_bound(found.mean(axis=0))
    same = np.tile([0.5, 2.0], (4, 1))
    assert efficacy(np.square(same)) == pytest.approx(efficacy_bound(same.mean(axis=0)))
    assert efficacy_bound(np.zeros(3)) == math.inf


def test_records_known_by_heart_score_above_a_retrain_which_is_no_forgetting() -> None:
    random = np.random.default_rng(1)
    points, labels = random.normal(size=(160, 60)), random.integers(0, 2, 160).astype(float)
    forget, kept = slice(0, 40), slice(40, 160)
    fit = lambda rows: LogisticRegression(C=10, fit_intercept=False).fit(points[rows], labels[rows]).coef_[0]  # noqa: E731
    original, retrained, again = (
        np.square(gradients(fit(rows), points[forget], labels[forget]))
        for rows in (slice(0, 160), kept, slice(42, 160))
    )
    assert efficacy(original) > 2 * efficacy(retrained)
    leak, null = efficacy_ratio(original, retrained, np.arange(40)), efficacy_ratio(again, retrained, np.arange(40))
    assert isinstance(leak, Mean)
    assert isinstance(null, Mean)
    assert (leak.interval(0.95) or (0, 0))[0] > 1.5
    assert null.estimate == pytest.approx(1, abs=0.15)


def test_the_interval_covers_and_is_infinite_where_it_must_be() -> None:
    random, held = np.random.default_rng(2), 0
    people = np.repeat(np.arange(50), 4)
    for _ in range(400):
        squared = random.gamma(4, 0.25, 50)[people][:, None] * random.gamma(8, 0.25, (200, 3))
        found = epistemic_efficacy(squared, people)
        assert isinstance(found, Efficacy)
        low, high = found.interval(0.95) or (0, 0)
        held += low <= 1 / 6 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)
    wild = epistemic_efficacy(np.array([[1e-9], [1.0], [1e-9]]), np.arange(3))
    assert isinstance(wild, Efficacy)
    assert (wild.interval(0.95) or (0, 0))[1] == math.inf
    alone = epistemic_efficacy(np.ones((3, 1)), np.zeros(3))
    assert isinstance(alone, Efficacy)
    assert alone.interval(0.95) is None


def test_certainty_and_nonsense_are_said_so() -> None:
    zero, one = np.zeros((4, 2)), np.ones((4, 2))
    for found in (
        epistemic_efficacy(zero, np.arange(4)),
        efficacy_ratio(zero, one, np.arange(4)),
        efficacy_ratio(one, zero, np.arange(4)),
    ):
        assert isinstance(found, NotMeasurable)
    with pytest.raises(ValueError, match="negative"):
        epistemic_efficacy(-one, np.arange(4))
    with pytest.raises(ValueError, match="seconds"):
        efficiency(0, 3)
