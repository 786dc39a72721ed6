"""Distance of answers to retrains: by hand, a closed form, exact retrains beside a leak, coverage."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.tree import DecisionTreeClassifier

from service.verification.statistics import Mean, NotMeasurable
from workers.metrics.activation_distance import (
    activation_distance,
    activation_distance_null,
    divergence,
    divergence_null,
)


def test_by_hand() -> None:
    candidate = np.array([[1.0, 0, 0], [0.2, 0.3, 0.5]])
    retrained = np.array([[[0.0, 1, 0], [0.2, 0.3, 0.5]], [[1.0, 0, 0], [0.2, 0.3, 0.5]]])
    assert activation_distance(candidate, retrained, np.arange(2)).estimate == pytest.approx(np.sqrt(2) / 4)
    assert divergence(candidate, retrained, np.arange(2)).estimate == pytest.approx(1 / 4)
    for null, value in ((activation_distance_null, np.sqrt(2) / 2), (divergence_null, 0.5)):
        found = null(retrained, np.arange(2))
        assert isinstance(found, Mean)
        assert found.estimate == pytest.approx(value)


def test_two_classes_have_a_closed_form() -> None:
    random = np.random.default_rng(0)
    p, q = random.random(500), random.random(500)
    found = activation_distance(np.stack([p, 1 - p], 1), np.stack([q, 1 - q], 1)[None], np.arange(500))
    assert found.estimate == pytest.approx(np.sqrt(2) * np.abs(p - q).mean())


def test_a_retrain_lies_within_the_null_and_the_original_beyond_it() -> None:
    data, labels = make_classification(600, 8, n_informative=5, flip_y=0.3, random_state=0)
    forget, kept = np.arange(80), np.arange(80, 600)

    def answers(rows: np.ndarray, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed).choice(rows, len(rows))
        trees = [DecisionTreeClassifier(random_state=seed).fit(data[part], labels[part]) for part in (rows, draw)]
        return np.asarray(np.mean([tree.predict_proba(data[forget]) for tree in trees], axis=0))

    retrained = np.stack([answers(kept, seed) for seed in range(6)])
    again, original = answers(kept, 9), answers(np.arange(600), 9)
    for measure, null in ((activation_distance, activation_distance_null), (divergence, divergence_null)):
        floor = null(retrained, forget)
        assert isinstance(floor, Mean)
        assert measure(again, retrained, forget).estimate == pytest.approx(floor.estimate, rel=0.25)
        assert (measure(original, retrained, forget).interval(0.95) or (0, 0))[0] > floor.estimate


def test_the_interval_covers_the_mean_distance() -> None:
    random, held = np.random.default_rng(2), 0
    people = np.repeat(np.arange(40), 3)
    for _ in range(300):
        p, q = random.random(40)[people], random.random(40)[people]
        found = activation_distance(np.stack([p, 1 - p], 1), np.stack([q, 1 - q], 1)[None], people)
        low, high = found.interval(0.95) or (0, 0)
        held += low <= np.sqrt(2) / 3 <= high  # E|p - q| of two uniforms is a third
    assert held / 300 == pytest.approx(0.95, abs=0.04)


def test_one_retrain_has_no_null() -> None:
    one = np.full((1, 4, 2), 0.5)
    assert isinstance(activation_distance_null(one, np.arange(4)), NotMeasurable)
    assert isinstance(divergence_null(one, np.arange(4)), NotMeasurable)
