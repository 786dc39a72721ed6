"""Memory retention: by hand, when nothing changes, when a share is lost, coverage of its interval."""

import numpy as np
import pytest

from service.verification.statistics import Mean, NotMeasurable
from workers.metrics.memory_retention import memory_retention_rate


def test_it_is_the_ratio_of_accuracies() -> None:
    before, after = np.array([1, 1, 1, 0.0]), np.array([1, 0, 1, 1.0])
    found = memory_retention_rate(before, after, np.arange(4))
    assert isinstance(found, Mean)
    assert found.estimate == pytest.approx(1.0)


def test_a_planted_loss_is_found_within_its_interval() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        before = (random.random(300) < 0.9).astype(float)
        after = before * (random.random(300) < 0.8)
        found = memory_retention_rate(before, after, np.repeat(np.arange(60), 5))
        assert isinstance(found, Mean)
        low, high = found.interval(0.95) or (0, 0)
        held += low <= 0.8 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_nothing_to_retain_is_said_so() -> None:
    assert isinstance(memory_retention_rate(np.zeros(4), np.ones(4), np.arange(4)), NotMeasurable)
