"""Difficulty: mean training confidence of forgotten against retained records, by hand, without a shift and with one."""

import numpy as np
import pytest

from service.verification.statistics import Auc, NotMeasurable
from workers.metrics.difficulty_baseline import Difficulty, difficulty_auc


def of(forget: np.ndarray, retain: np.ndarray) -> Auc:
    found = difficulty_auc(Difficulty(forget, np.arange(len(forget)), retain, 1000 + np.arange(len(retain))))
    assert isinstance(found, Auc)
    return found


def test_by_hand() -> None:
    found = of(np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.5, 0.6, 0.7]))
    # 0.1 beats none; 0.5 beats 0.2 and half of 0.5; 0.9 beats all four.
    assert found.auc == pytest.approx((0 + 1.5 + 4) / 12)


@pytest.mark.parametrize(("shift", "outside"), [(0.0, (0.02, 0.08)), (-2.0, (0.99, 1.0))])
def test_the_interval_leaves_one_half_out_where_records_were_harder(shift: float, outside: tuple[float, float]) -> None:
    draw, left_out = np.random.default_rng(0), 0
    for _ in range(600):
        low, high = of(draw.normal(shift, 1, 40), draw.normal(0, 1, 300)).interval(0.95)
        left_out += not low <= 0.5 <= high
    assert outside[0] <= left_out / 600 <= outside[1]


def test_nothing_known_is_no_number() -> None:
    nothing = np.zeros(0)
    assert isinstance(difficulty_auc(Difficulty(nothing, nothing, np.ones(3), np.arange(3))), NotMeasurable)
    assert isinstance(difficulty_auc(Difficulty(np.ones(3), np.arange(3), nothing, nothing)), NotMeasurable)
