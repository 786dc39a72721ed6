"""Tug of war by hand, its best value, the do-nothing trap, and the attack behind tow_mia."""

import numpy as np
import pytest

from workers.metrics.tug_of_war import Levels, mia_efficacy, tow, tow_mia

RETRAINED = Levels(forget=0.9, retain=1.0, held_out=0.9, efficacy=0.12)


def test_the_product_of_three() -> None:
    model = Levels(forget=0.7, retain=0.9, held_out=0.85, efficacy=0.02)
    assert tow(model, RETRAINED) == pytest.approx(0.8 * 0.9 * 0.95)
    assert tow_mia(model, RETRAINED) == pytest.approx(0.9 * 0.9 * 0.95)
    assert tow(RETRAINED, RETRAINED) == tow_mia(RETRAINED, RETRAINED) == 1.0


def test_doing_nothing_looks_good_where_a_retrain_generalises() -> None:
    original = Levels(forget=1.0, retain=1.0, held_out=0.91, efficacy=0.01)
    assert tow(original, RETRAINED) > 0.88


def test_the_attack_calls_members_members_and_strangers_strangers() -> None:
    random = np.random.default_rng(0)
    retain, held_out = random.beta(20, 1, 900), random.beta(4, 3, 700)
    assert mia_efficacy(random.beta(20, 1, 300), retain, held_out, seed=0) < 0.15
    assert mia_efficacy(random.beta(4, 3, 300), retain, held_out, seed=0) > 0.7
    assert mia_efficacy(held_out, retain, held_out, 1) == mia_efficacy(held_out, retain, held_out, 1)


def test_a_collapsed_model_does_not_break_it() -> None:
    assert 0 <= mia_efficacy(np.full(20, 0.1), np.full(50, 0.1), np.full(50, 0.1), seed=0) <= 1
