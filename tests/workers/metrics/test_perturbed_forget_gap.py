"""The perturbed forget gap: by hand, without a loss, with a planted one, and how often its interval covers."""

import numpy as np
import pytest

from workers.metrics.perturbed_forget_gap import perturbed_forget_gap


def test_it_is_the_mean_of_what_was_lost() -> None:
    original, candidate = np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    found = perturbed_forget_gap(original, candidate, np.array(["a", "b", "c", "d"]))
    assert found.estimate == pytest.approx(0.25)
    assert (found.n, found.clusters) == (4, 4)
    with pytest.raises(ValueError, match="do not fit"):
        perturbed_forget_gap(original, candidate[:3], np.arange(4))


def test_the_same_answers_leave_no_gap_and_no_false_certainty() -> None:
    answers = np.ones(50)
    found = perturbed_forget_gap(answers, answers, np.arange(50))
    assert found.estimate == 0.0
    interval = found.interval(0.95)
    assert interval is not None
    assert interval[0] < -0.04 < 0.04 < interval[1]


def test_its_interval_covers_a_planted_gap() -> None:
    """40 people with 5 records each that rise and fall together: 95 % intervals cover about as often."""
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 5)
    covered = 0
    for _ in range(400):
        easy = draw.normal(size=40)[people]
        original = (easy + draw.normal(size=200) > -1.2).astype(float)
        candidate = (easy + draw.normal(size=200) > 0.0).astype(float)
        interval = perturbed_forget_gap(original, candidate, people).interval(0.95)
        assert interval is not None
        # P(easy + noise > -1.2) with variance 2 is 0.8019; P(> 0) is 0.5.
        covered += interval[0] <= 0.3019 <= interval[1]
    assert 0.92 <= covered / 400 <= 0.98
