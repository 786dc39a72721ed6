"""What a deletion does to canaries that stay: the difference by hand, nothing without harm, and how sure it is."""

import numpy as np
import pytest

from workers.metrics.retained_harm import RetainedHarm, retained_harm

ONE = np.array(["natural"] * 4)


def test_by_hand_the_increase_is_that_of_the_two_aucs() -> None:
    outside = np.array([0.0, 1.0, 2.0, 3.0])
    before, after = np.array([-1.0, 0.5, 1.5, 2.5]), np.array([0.5, 0.5, 4.0, 4.0])
    found = retained_harm((after, before), (outside, outside), ONE, ONE)
    assert found.before == pytest.approx((0 + 1 + 2 + 3) / 16)
    assert found.increase == pytest.approx((1 + 1 + 4 + 4) / 16 - 6 / 16)
    # Two kinds, one of them unchanged: the mean by their canaries that stay.
    kinds, other = np.array([*ONE, "hard", "hard", "hard", "hard"]), np.array([*ONE, *["hard"] * 4])
    both = retained_harm(
        (np.concatenate([after, before]), np.concatenate([before, before])),
        (np.concatenate([outside, outside]), np.concatenate([outside, outside])), kinds, other,
    )  # fmt: skip
    assert both.increase == pytest.approx(found.increase / 2)
    assert (both.n, both.m) == (8, 8)


def drawn(seed: int, harm: float, kept: int = 150, outside: int = 500) -> RetainedHarm:
    """Canaries of two kinds that both models know, scores of which the models share most."""
    draw = np.random.default_rng(seed)
    sides = []
    for size, shift, more in ((kept, 1.0, harm), (outside, 0.0, 0.0)):
        common, kinds = draw.normal(size=size), np.where(np.arange(size) % 2 == 0, "natural", "hard")
        level = np.where(kinds == "hard", -2.0, 0.0) + shift
        before, after = (level + 0.9 * common + 0.4 * draw.normal(size=size) for _ in range(2))
        sides.append(((after + more, before), kinds))
    (ours, mine), (theirs, others) = sides
    return retained_harm(ours, theirs, mine, others)


def test_without_harm_the_interval_holds_zero_as_often_as_it_says() -> None:
    found = [drawn(seed, 0.0) for seed in range(400)]
    held = np.mean([low <= 0 <= high for low, high in (one.interval(0.95) for one in found)])
    assert 0.925 <= held <= 0.985
    assert np.mean([one.increase for one in found]) == pytest.approx(0.0, abs=0.003)


def test_planted_harm_is_found_and_the_interval_narrows_with_more_canaries() -> None:
    assert drawn(1, 0.5).interval(0.95)[0] > 0
    assert drawn(1, -0.5).interval(0.95)[1] < 0
    few, many = (np.diff(drawn(2, 0.0, kept=size).interval(0.9))[0] for size in (80, 800))
    assert many < 0.6 * few
    assert drawn(3, 0.0, kept=1000, outside=5000).interval(0.9)[1] < 0.03
