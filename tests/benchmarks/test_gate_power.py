"""Power of the calibrated attack before any candidate: against the share of leak-free models that really pass."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.gate_power import leak_free_power
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check, Outcome
from service.verification.statistics import AucDesign
from service.verification.verdict import (
    BLIND,
    CONTROL,
    DIFFICULTY,
    MEMBERSHIP,
    REFERENCE,
    REFERENCE_CONTROL,
    UTILITY,
    judge,
)
from tests.benchmarks.test_gate_candidates import beside
from workers.metrics.reference_auc import ReferenceAuc, noise, pooled_variance, reference_auc, reference_design

POLICY = VerificationPolicy()


@pytest.mark.parametrize(("size", "margin"), [(120, 0.10), (60, 0.10)])
def test_the_power_is_the_share_of_leak_free_models_that_pass(size: int, margin: float) -> None:
    draw = np.random.default_rng(5)
    forget, held_out = beside(draw, size, 0.2), beside(draw, 1500, 0.2)
    design = reference_design(forget, held_out, draw)
    assert design is not None
    pooled, passed, total = pooled_variance(held_out.variance, held_out.count), 0, 150
    for _ in range(total):
        drawn = [replace(part, scores=noise(part, pooled, draw)) for part in (forget, held_out)]
        found = reference_auc(drawn[0], drawn[1])
        assert isinstance(found, ReferenceAuc)
        low, high = found.auc.interval(0.9)
        passed += 0.5 - margin < low and high < 0.5 + margin
    expected = design.power_at_zero(margin, 0.05)
    assert abs(passed / total - expected) < 4 * np.sqrt(expected * (1 - expected) / total) + 0.02


def test_records_of_one_person_have_no_power() -> None:
    draw = np.random.default_rng(6)
    forget, held_out = beside(draw, 100, 0.2), beside(draw, 500, 0.2)
    design = reference_design(replace(forget, subjects=np.zeros(100)), held_out, draw)
    assert design is None or design.power_at_zero(0.1, 0.05) == 0.0


def test_references_too_few_have_no_design() -> None:
    draw = np.random.default_rng(7)
    forget, held_out = (replace(beside(draw, size, 0.2), count=np.ones(size)) for size in (50, 300))
    assert reference_design(forget, held_out, draw) is None


def checks(control: Outcome = "pass", people: int = 150, utility: float = 0.99) -> list[Check]:
    values: dict[str, Any] = {"role": "gate", "statistic": "AUC", "margin": 0.1, "estimate": 0.5}
    return [
        Check(id=REFERENCE, clusters=(people, 800), alpha=0.05, **values),
        Check(id=REFERENCE_CONTROL, verdict=control, **values),
        Check(id=UTILITY, power_at_zero=utility, **values),
    ]


def test_a_gate_is_as_strong_as_its_checks_together() -> None:
    design = AucDesign(0.02, 149)
    attack = design.power_at_zero(0.1, 0.05)
    assert leak_free_power(checks(), design, POLICY) == pytest.approx(attack + 0.99 - 1)
    assert leak_free_power(checks(utility=0.5), design, POLICY) == pytest.approx(attack - 0.5)


def test_what_the_original_does_not_give_away_cannot_pass() -> None:
    design = AucDesign(0.02, 149)
    assert leak_free_power(checks(control="inconclusive"), design, POLICY) == 0.0
    assert leak_free_power(checks(people=9), design, POLICY) == 0.0
    assert leak_free_power(checks(), None, POLICY) == 0.0


@pytest.mark.parametrize(
    ("name", "ci95", "power"),
    [
        (DIFFICULTY, (0.46, 0.54), 0.97),
        (DIFFICULTY, (0.2, 0.44), 0.0),
        (DIFFICULTY, (0.56, 0.8), 0.0),
        (BLIND, (0.56, 0.8), 0.0),
    ],
)
def test_without_references_hard_records_have_no_power(name: str, ci95: tuple[float, float], power: float) -> None:
    """Sizes promise 0.97, whatever the records are; a true retrain of records that are harder lies low."""
    values: dict[str, Any] = {"role": "gate", "statistic": "AUC", "n": 150, "m": 900, "clusters": (150, 900)}
    alike: dict[str, Any] = {"estimate": 0.5, "ci95": (0.46, 0.54)}
    raw = [
        Check(id=MEMBERSHIP, margin=0.1, alpha=0.05, power_at_zero=0.97, ci=(0.46, 0.54), **alike, **values),
        Check(id=CONTROL, margin=0.1, estimate=0.9, ci95=(0.85, 0.95), **values),
        *(Check(id=one, **(alike | ({"ci95": ci95} if one == name else {})), **values) for one in (BLIND, DIFFICULTY)),
        Check(id=UTILITY, role="diagnostic", statistic="accuracy difference"),
    ]
    assert leak_free_power(judge(raw, "measurement", POLICY), None, POLICY) == power
