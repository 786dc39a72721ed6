"""Quantile attack: its error is the one asked for, it beats one threshold where spreads differ, and it knows limits."""

import numpy as np
import pytest

from service.verification.quantiles import clopper_pearson, normal_cdf
from service.verification.statistics import NotMeasurable
from workers.metrics.quantile_attack import Examined, QuantileAttack, quantile_attack
from workers.metrics.tpr_at_fpr import OperatingPoint, tpr_at_fpr


def records(
    seed: int, size: int, leak: float = 0.0, spread: float = 0.0, slope: float = 1.0, per_subject: int = 1
) -> Examined:
    """Score = slope x feature + exp(spread x feature) x (noise + leak)."""
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(size, 3))
    noise = draw.normal(size=size) + leak
    scores = slope * features[:, 0] + np.exp(spread * features[:, 0]) * noise
    return Examined(scores, features, np.char.add(f"{seed}-", (np.arange(size) // per_subject).astype(str)))


def measured(forget: Examined, held_out: Examined, alpha: float = 0.05) -> QuantileAttack:
    found = quantile_attack(forget, held_out, alpha)
    assert isinstance(found, QuantileAttack)
    return found


@pytest.mark.parametrize(("size", "spread"), [(600, 0.0), (2000, 0.0), (2000, 0.7)])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_the_error_achieved_is_the_one_asked_for(size: int, spread: float, alpha: float) -> None:
    found = measured(records(1, 50, spread=spread), records(2, size, spread=spread), alpha)
    low, high = found.false_positive_ci95
    assert low <= alpha <= high
    # And on records that no fold has seen, which is what the number is for.
    fresh = measured(records(3, 4000, spread=spread), records(2, size, spread=spread), alpha)
    assert fresh.rate == pytest.approx(alpha, abs=0.02)


def test_a_line_finds_what_its_closed_form_says() -> None:
    """Equal spread: the rate at alpha is Phi(z_alpha + mu), as if difficulty were known."""
    forget, held_out = records(4, 4000, leak=2.0, slope=3.0), records(5, 900, slope=3.0)
    found = measured(forget, held_out)
    assert found.rate == pytest.approx(normal_cdf(-1.6449 + 2.0), abs=0.06)
    one = tpr_at_fpr(forget.scores, held_out.scores, forget.subjects, 0.05)
    assert isinstance(one, OperatingPoint)
    # One threshold sees a sum of difficulty and noise: Phi(-1.645 + 2 / sqrt 10) = 0.156.
    assert one.rate == pytest.approx(normal_cdf(-1.6449 + 2 / np.sqrt(10)), abs=0.06)


def test_it_beats_one_threshold_where_spreads_differ() -> None:
    forget, held_out = records(6, 1000, 2.0, spread=1.0, slope=0.0), records(7, 4000, spread=1.0, slope=0.0)
    found = measured(forget, held_out)
    one = tpr_at_fpr(forget.scores, held_out.scores, forget.subjects, 0.05)
    assert isinstance(one, OperatingPoint)
    assert found.ci95[0] > one.ci95[1] + 0.05
    assert found.false_positive_ci95[0] <= 0.05 <= found.false_positive_ci95[1]


def test_without_a_leak_the_interval_covers_the_error_and_a_leak_leaves_it() -> None:
    null = [measured(records(seed, 60), records(1000 + seed, 500)) for seed in range(70)]
    assert np.mean([found.rate for found in null]) == pytest.approx(0.05, abs=0.012)
    assert np.mean([found.ci95[0] <= 0.05 <= found.ci95[1] for found in null]) >= 0.93
    planted = [measured(records(seed, 60, leak=2.0), records(1000 + seed, 500)) for seed in range(20)]
    assert all(found.ci95[0] > 0.05 for found in planted)


def test_decisions_are_those_of_the_records() -> None:
    forget, held_out = records(8, 30), records(9, 600)
    raised = Examined(forget.scores + np.where(np.arange(30) < 3, 9.0, 0.0), forget.features, forget.subjects)
    found = measured(raised, held_out)
    assert found.decisions[:3].tolist() == [1.0, 1.0, 1.0]
    assert found.excess[:3].min() > 3
    assert found.decisions.mean() == pytest.approx(found.rate)
    assert found.decisions[3:].mean() < 0.25


def test_the_same_records_give_the_same_answer() -> None:
    first, second = (measured(records(8, 30), records(9, 1200)) for _ in range(2))
    assert first.excess.tolist() == second.excess.tolist()


def test_no_subject_is_in_two_folds() -> None:
    """A feature that names the subject, and scores that only subjects explain: learning names would drop the error's
    validity, since new subjects are what it is for."""
    draw = np.random.default_rng(10)
    owner = np.repeat(np.arange(100), 10)
    level = draw.normal(0, 3, 100)
    held_out = Examined(level[owner] + 0.1 * draw.normal(size=1000), owner[:, None] / 100.0, owner)
    found = measured(Examined(draw.normal(0, 3, 40), draw.uniform(0, 1, (40, 1)), np.arange(40)), held_out)
    assert found.false_positive_rate == pytest.approx(0.05, abs=0.05)
    # Records of a subject are alike, so a thousand of them bound the error no better than some hundred would.
    alone = clopper_pearson(50, 1000)
    assert np.ptp(found.false_positive_ci95) > 1.5 * np.ptp(alone)


def test_what_cannot_be_measured_says_so() -> None:
    nobody, some = records(0, 0), records(1, 40)
    for found, told in (
        (quantile_attack(nobody, some, 0.05), "no forgotten"),
        (quantile_attack(some, records(2, 99), 0.05), "takes 20 held-out records in each of 5 parts"),
        (quantile_attack(some, records(3, 4000, per_subject=1000), 0.05), "the smallest has 0"),
    ):
        assert isinstance(found, NotMeasurable)
        assert told in found.reason
