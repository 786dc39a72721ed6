"""Memorization of a set: by hand, of learners whose memorization is known, and the coverage of its interval."""

import numpy as np
import pytest

from service.verification.statistics import Array, Clusters, NotMeasurable
from workers.metrics.memorization import Memorization, memorization


def summary(values: Array, subjects: Clusters | None = None) -> Memorization:
    found = memorization(values, np.arange(len(values)) if subjects is None else subjects)
    assert isinstance(found, Memorization)
    return found


def test_mean_and_quantiles_by_hand() -> None:
    found = summary(np.array([0.0, 0.25, 0.5, 0.75, 1.0, np.nan]))
    assert found.mean.estimate == 0.5
    assert found.quantiles == {0.05: 0.05, 0.25: 0.25, 0.5: 0.5, 0.75: 0.75, 0.95: 0.95}
    assert (found.mean.n, found.unknown) == (5, 1)


def test_a_table_memorises_random_labels_and_a_majority_rule_nothing() -> None:
    random = np.random.default_rng(0)
    labels, seen = random.integers(0, 2, 400), random.random((60, 400)) < 0.5
    by_heart = np.where(seen, labels, random.integers(0, 2, (60, 400))) == labels
    majority = np.tile(labels == 1, (60, 1))
    values = [
        (np.where(seen, right, 0).sum(axis=0) / seen.sum(axis=0))
        - (np.where(seen, 0, right).sum(axis=0) / (~seen).sum(axis=0))
        for right in (by_heart, majority)
    ]
    # One who never saw a random label guesses it half of the time.
    assert summary(values[0]).mean.estimate == pytest.approx(0.5, abs=0.02)
    assert summary(values[1]).mean.estimate == 0
    assert set(summary(values[1]).quantiles.values()) == {0.0}


def test_the_interval_covers_the_mean_of_people() -> None:
    random, held = np.random.default_rng(1), 0
    people = np.repeat(np.arange(40), 5)
    for _ in range(400):
        values = np.clip(0.3 + 0.1 * random.normal(size=40)[people] + 0.1 * random.normal(size=200), -1, 1)
        low, high = summary(values, people).mean.interval(0.95) or (0, 0)
        held += low <= 0.3 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.025)


def test_nobody_to_compare_with_is_said_so() -> None:
    assert isinstance(memorization(np.full(3, np.nan), np.arange(3)), NotMeasurable)
