"""Zero retrain forgetting: closed forms, an exact retrain between the original and collapse, coverage."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier

from service.verification.statistics import Array, Clusters
from workers.metrics.zrf import zrf


def peaked(confidence: float, labels: Clusters, classes: int) -> Array:
    found = np.full((len(labels), classes), (1 - confidence) / (classes - 1))
    found[np.arange(len(labels)), labels.astype(int)] = confidence
    return found


def test_an_untrained_model_scores_one_and_disjoint_answers_zero() -> None:
    labels, uniform = np.zeros(40), np.full((40, 4), 0.25)
    assert zrf(uniform, uniform, np.arange(40)).estimate == 1
    assert zrf(peaked(1, labels, 4), peaked(1, labels + 1, 4), np.arange(40)).estimate == 0


def test_certainty_against_uniform_answers_has_a_closed_form() -> None:
    # JS of (1, 0, ...) and uniform over C in bits: half of log2(2C / (C + 1)) and the uniform's part.
    classes = 10
    certain = 0.5 * np.log2(2 * classes / (classes + 1))
    even = 0.5 * (np.log2(2 / (classes + 1)) / classes + (classes - 1) / classes)
    found = zrf(peaked(1, np.arange(30) % 10, classes), np.full((30, classes), 0.1), np.arange(30))
    assert found.estimate == pytest.approx(1 - certain - even)
    assert found.se == pytest.approx(0, abs=1e-12)


def test_a_retrain_lies_between_the_original_and_collapse() -> None:
    points, labels = make_classification(600, 8, n_informative=5, flip_y=0.4, random_state=0)
    forget, kept = np.arange(60), np.arange(60, 600)
    fit = lambda rows: ExtraTreesClassifier(40, random_state=0).fit(points[rows], labels[rows])  # noqa: E731
    untrained = np.full((60, 2), 0.5)
    original, retrained = (
        zrf(fit(rows).predict_proba(points[forget]), untrained, forget) for rows in (range(600), kept)
    )
    assert original.estimate < 0.7  # every record is known by heart
    assert (original.interval(0.95) or (0, 1))[1] < (retrained.interval(0.95) or (0, 1))[0]
    assert (retrained.interval(0.95) or (0, 1))[1] < zrf(untrained, untrained, forget).estimate == 1


def test_the_interval_covers_and_is_clustered() -> None:
    random, held = np.random.default_rng(1), 0
    people, uniform = np.repeat(np.arange(30), 4), np.full((120, 2), 0.5)
    draw = lambda people: random.beta(4, 2, people.max() + 1)[people]  # noqa: E731
    many = np.arange(200000)
    p = draw(many)
    truth = zrf(np.stack([p, 1 - p], axis=1), np.full((200000, 2), 0.5), many).estimate
    for _ in range(300):
        p = draw(people)
        low, high = zrf(np.stack([p, 1 - p], axis=1), uniform, people).interval(0.95) or (0, 0)
        held += low <= truth <= high
    assert held / 300 == pytest.approx(0.95, abs=0.04)
