"""Guesses on deleted canaries: right, wrong, tied; as often right as not without a trace."""

import numpy as np
import pytest

from service.verification.sequential import Wager
from workers.metrics.canary_guesses import canary_guesses


def test_the_higher_score_is_named_and_a_tie_is_half_right() -> None:
    assert canary_guesses(np.array([2.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(ValueError, match="opposite"):
        canary_guesses(np.zeros(2), np.zeros(3))


def test_without_a_trace_half_are_right_and_a_shift_shows_in_the_wager() -> None:
    draw = np.random.default_rng(0)
    clean, leaking = draw.normal(size=(2, 2, 4000))
    assert canary_guesses(*clean).mean() == pytest.approx(0.5, abs=0.03)
    # A shift of 0.36 standard deviations is right in Phi(0.36 / sqrt 2) = 60 % of the pairs.
    right = canary_guesses(leaking[0] + 0.36, leaking[1])
    assert right.mean() == pytest.approx(0.6, abs=0.03)
    assert Wager().plus(right[:730].sum(), 730).alarm()
    assert not Wager().plus(canary_guesses(*clean)[:730].sum(), 730).alarm()
