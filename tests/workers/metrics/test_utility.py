"""Utility: paired differences and perplexity ratios, their null, a planted loss, other tokenizers."""

import math

import numpy as np
import pytest

from workers.metrics.utility import Likelihood, accuracy_difference, log_perplexity_ratio, utility_design


def test_accuracy_difference_by_hand_and_paired() -> None:
    original, candidate = np.array([1, 1, 0, 1.0]), np.array([1, 0, 0, 1.0])
    assert accuracy_difference(original, candidate, np.arange(4)).estimate == -0.25
    random = np.random.default_rng(0)
    before = (random.random(1000) < 0.9).astype(float)
    after = np.where(random.random(1000) < 0.02, 1 - before, before)
    paired = accuracy_difference(before, after, np.arange(1000))
    unpaired = math.sqrt(before.var() / 1000 + after.var() / 1000)
    assert paired.se < unpaired / 2


def test_models_that_agree_everywhere_still_have_an_interval() -> None:
    same = np.ones(400)
    low, high = accuracy_difference(same, same, np.arange(400)).interval(0.95) or (0, 0)
    assert -0.01 < low < 0 < high < 0.01


@pytest.mark.parametrize("true", [0.0, -0.05])
def test_coverage_of_the_accuracy_difference(true: float) -> None:
    random, held = np.random.default_rng(1), 0
    people = np.repeat(np.arange(60), 5)
    for _ in range(600):
        before = (random.random(300) < 0.85).astype(float)
        rate = 0.85 + true
        shared = np.repeat(random.random(60), 5) < 0.5
        after = np.where(shared, before, (random.random(300) < rate + (rate - 0.85)).astype(float))
        low, high = accuracy_difference(before, after, people).interval(0.95) or (0, 0)
        held += low <= true <= high
    assert held / 600 == pytest.approx(0.95, abs=0.03)


def likelihood(per_unit: np.ndarray, units: np.ndarray) -> Likelihood:
    return Likelihood(per_unit * units, units.astype(float))


def test_perplexity_ratio_is_that_of_the_corpus() -> None:
    tokens = np.array([10, 30.0])
    original, candidate = likelihood(np.array([1.0, 2.0]), tokens), likelihood(np.array([1.2, 2.2]), tokens)
    ratio = log_perplexity_ratio(original, candidate, np.arange(2))
    assert math.exp(ratio.estimate) == pytest.approx(math.exp((12 + 66 - 10 - 60) / 40))


def test_other_tokens_are_compared_by_bytes_at_the_scale_of_the_originals_tokens() -> None:
    """A tokenizer that splits texts twice as finely, with the same probability for each text, changes nothing."""
    random = np.random.default_rng(2)
    tokens, bytes_ = random.integers(20, 60, 200).astype(float), random.integers(100, 300, 200).astype(float)
    nll = random.normal(2, 0.3, 200) * tokens
    original = Likelihood(nll, bytes_)
    scale = float(bytes_.sum() / tokens.sum())
    assert log_perplexity_ratio(original, Likelihood(nll, bytes_), np.arange(200), scale).estimate == 0
    worse = log_perplexity_ratio(original, Likelihood(nll * 1.1, bytes_), np.arange(200), scale)
    by_token = log_perplexity_ratio(Likelihood(nll, tokens), Likelihood(nll * 1.1, tokens), np.arange(200))
    assert worse.estimate == pytest.approx(by_token.estimate)


def test_coverage_of_the_perplexity_ratio() -> None:
    random, held = np.random.default_rng(3), 0
    people = np.repeat(np.arange(40), 5)
    for _ in range(600):
        tokens = random.integers(10, 50, 200).astype(float)
        base = random.normal(2, 0.5, 200)
        change = 0.1 + np.repeat(random.normal(0, 0.1, 40), 5) + random.normal(0, 0.1, 200)
        found = log_perplexity_ratio(likelihood(base, tokens), likelihood(base + change, tokens), people)
        low, high = found.interval(0.95) or (0, 0)
        held += low <= 0.1 <= high
    assert held / 600 == pytest.approx(0.95, abs=0.03)


def test_the_design_takes_the_originals_own_spread() -> None:
    correct = np.repeat([1.0, 0.0], [920, 80])
    design = utility_design((correct - correct.mean()) / 1000, np.arange(1000))
    assert design.se == pytest.approx(math.sqrt(0.92 * 0.08 / 1000), rel=0.01)
    # Research note 8.1: 3,000 held-out records have a standard error of about half a point.
    assert design.se / math.sqrt(3) == pytest.approx(0.005, abs=0.0005)
    assert design.power_at_zero(0.04, 0.05) > 0.99
    assert (design.smallest_detectable(0.05) or 0) == pytest.approx(2.49 * design.se, rel=0.01)
