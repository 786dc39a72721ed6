"""Equivalence tests: the rules of the verdict, error rates at the margin, and power that is known beforehand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.verification.equivalence import (
    Design,
    equivalence,
    gate_power,
    quantile,
    records_needed,
    records_needed_each,
)
from service.verification.policy import VerificationPolicy
from service.verification.schema import Check
from service.verification.statistics import auc_design
from service.verification.verdict import MATCHED, MEMBERSHIP, judge_auc

CONTROL = Check(id="positive_control", role="diagnostic", statistic="AUC", ci95=(0.95, 0.99))


@given(
    st.floats(-0.4, 0.4), st.floats(0.001, 0.2), st.one_of(st.just(math.inf), st.integers(2, 500)),
    st.sampled_from([0.05, 0.1, 0.15]), st.sampled_from([0.05, 0.025, 0.01]),
)  # fmt: skip
def test_outcomes_are_those_of_the_verdict(estimate: float, se: float, df: float, margin: float, alpha: float) -> None:
    found = equivalence(estimate, se, df, margin, alpha)
    shifted = [(0.5 + low, 0.5 + high) for low, high in (found.ci, found.ci95)]
    check = Check(
        id=MEMBERSHIP, role="gate", statistic="AUC", estimate=0.5 + estimate, alpha=alpha, ci=shifted[0],
        ci95=shifted[1], margin=margin, n=100, clusters=(100, 100),
    )  # fmt: skip
    assert judge_auc(check, CONTROL, None, VerificationPolicy(), MATCHED)[0] == found.outcome
    assert (found.p_value < alpha - 1e-9) <= (found.outcome == "pass")
    assert (found.p_value > alpha + 1e-9) <= (found.outcome != "pass")


@pytest.mark.parametrize("df", [4, 30, math.inf])
def test_p_is_the_greater_of_two_one_sided_ones(df: float) -> None:
    law = stats.norm() if math.isinf(df) else stats.t(df)
    found = equivalence(0.01, 0.02, df, 0.05)
    assert found.p_value == pytest.approx(max(law.sf(3.0), law.sf(2.0)), rel=1e-8)
    assert found.ci == pytest.approx((0.01 - 0.02 * law.ppf(0.95), 0.01 + 0.02 * law.ppf(0.95)))
    assert equivalence(0.09, 0.02, df, 0.05).p_value == pytest.approx(law.cdf(2.0), rel=1e-8)


def test_both_directions_fail_and_few_people_never_pass() -> None:
    assert equivalence(0.2, 0.02, 50, 0.05).outcome == "fail"
    assert equivalence(-0.28, 0.02, 50, 0.05).outcome == "fail"
    assert equivalence(0.0, math.nan, 0, 0.05).outcome == "inconclusive"
    for wrong in ((0.0, 0.0, 9, 0.05), (0.0, 0.1, 9, 0.0), (math.nan, 0.1, 9, 0.05), (0.0, math.nan, 9, 0.05)):
        with pytest.raises(ValueError, match="equivalence"):
            equivalence(*wrong)


def drawn(df: int, leak: float, se: float, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal estimates with independent standard errors estimated on `df` degrees of freedom."""
    random = np.random.default_rng(df)
    return random.normal(leak, se, draws), se * np.sqrt(random.chisquare(df, draws) / df)


def passed(df: int, leak: float, se: float, margin: float, draws: int = 200_000) -> float:
    estimates, errors = drawn(df, leak, se, draws)
    return float((np.abs(estimates) + stats.t.ppf(0.95, df) * errors < margin).mean())


@pytest.mark.parametrize("df", [3, 9, 40])
@pytest.mark.parametrize("se", [0.01, 0.02, 0.03])
def test_a_leak_as_great_as_the_margin_passes_in_five_percent_at_most(df: int, se: float) -> None:
    at_margin = Design(se, df).power(0.05, leak=0.05)
    assert at_margin <= 0.05 + 1e-9
    assert passed(df, 0.05, se, 0.05) == pytest.approx(at_margin, abs=0.002)
    assert Design(se, df).power(0.05, leak=-0.05) == pytest.approx(at_margin)
    assert Design(se, df).power(0.05, leak=0.08) < at_margin


@pytest.mark.parametrize("df", [1, 3, 9, 40])
def test_power_at_zero_is_what_simulation_finds(df: int) -> None:
    for se in (0.005, 0.012, 0.02):
        assert Design(se, df).power(0.05) == pytest.approx(passed(df, 0.0, se, 0.05), abs=0.004)
    # One plug-in formula for comparison: it takes the estimated standard error for the true one.
    assert Design(0.02, math.inf).power(0.05) == pytest.approx(2 * stats.norm.cdf(2.5 - stats.norm.ppf(0.95)) - 1)
    assert Design(0.02, 0).power(0.05) == 0
    assert Design(0.2, 30).power(0.05) < 0.01


@pytest.mark.parametrize(("margin", "records"), [(0.02, 1785), (0.03, 794), (0.05, 286), (0.10, 72), (0.15, 32)])
def test_records_that_a_margin_takes(margin: float, records: int) -> None:
    # 793 by the formula where the note, which counts a large but finite number of others, has 794.
    assert records_needed(margin) == pytest.approx(records, abs=1)
    assert records_needed_each(margin, ratio=1e9) == records_needed(margin)
    # Both sides equal: about twice as many.
    assert records_needed_each(margin) == pytest.approx(2 * records, rel=0.02)
    se = auc_design(records, 10**9, (1.0, 1.0), (10**6, 10**6)).se
    assert Design(se, math.inf).power(margin) == pytest.approx(0.80, abs=0.02)
    assert Design(se, math.inf).power(margin, leak=margin) <= 0.05


def test_rank_sums_of_that_size_pass_with_80_percent_and_err_with_5_at_most() -> None:
    # The AUC from uniform ranks of 286 members among 20,000 others, its null standard error known.
    random, n, m, margin = np.random.default_rng(5), 286, 20_000, 0.05
    below = random.integers(0, m + 1, size=(20_000, n))
    se = auc_design(n, m, (1.0, 1.0), (n, m)).se
    centred = below.mean(1) / m - 0.5
    reach = margin - quantile(0.95, math.inf) * se
    assert (np.abs(centred) < reach).mean() == pytest.approx(0.80, abs=0.02)
    assert (np.abs(centred + margin) < reach).mean() <= 0.055


def test_records_needed_with_both_sample_sizes() -> None:
    # Canaries of the research note: 400 against 1,000, about 305 against 5,000; 73 against 5,000 for the wide margin.
    assert records_needed(0.05, others=1000) == 400
    assert records_needed(0.05, others=5000) == pytest.approx(305, abs=2)
    assert records_needed(0.10, others=5000) == 73
    assert records_needed(0.05, others=200) is None
    # Clustered records: half the variance is allowed, so that the others' own share of it weighs more.
    assert records_needed(0.05, others=1000, effect=2.0) == pytest.approx(
        1001 / (12 * 1000 * 0.0025 / 8.5638 / 2 - 1), abs=1
    )
    for others in (400, 1000, 5000):
        n = records_needed(0.05, others)
        assert n is not None
        powers = [Design(auc_design(k, others, (1.0, 1.0), (k, k)).se, math.inf).power(0.05) for k in (n - 1, n)]
        assert powers[0] < 0.8 <= powers[1] + 1e-9
    each = records_needed_each(0.05, ratio=2.0)
    powers = [Design(auc_design(k, 2 * k, (1.0, 1.0), (k, k)).se, math.inf).power(0.05) for k in (each - 1, each)]
    assert powers[0] < 0.8 <= powers[1] + 1e-9


@pytest.mark.parametrize("df", [3, 15, 200])
def test_smallest_detectable_leak_is_found_with_80_percent(df: int) -> None:
    found = Design(0.02, df).smallest_detectable()
    assert found is not None
    # Exactly: the noncentral t distribution.
    assert stats.nct.sf(stats.t.ppf(0.95, df), df, found / 0.02) == pytest.approx(0.80, abs=1e-6)
    assert Design(0.02, math.inf).smallest_detectable() == pytest.approx(0.02 * (1.644854 + 0.841621), rel=1e-5)
    assert Design(0.02, 0).smallest_detectable() is None


def test_a_whole_gate_passes_between_the_bounds() -> None:
    powers = [0.95, 0.9, 0.85]
    gate = gate_power(powers)
    assert gate.at_least == pytest.approx(0.7)
    assert gate.independent == pytest.approx(0.95 * 0.9 * 0.85)
    assert gate.at_most == 0.85
    assert not gate.powered()
    assert gate.powered(0.7 - 1e-9)
    random = np.random.default_rng(6)
    limits = stats.norm.ppf(powers)
    for rho in (0.0, 0.5, 0.99):
        z = math.sqrt(rho) * random.normal(size=(100_000, 1)) + math.sqrt(1 - rho) * random.normal(size=(100_000, 3))
        found = (z < limits).all(1).mean()
        assert gate.at_least - 0.005 <= found <= gate.at_most + 0.005
        if rho == 0.0:
            assert found == pytest.approx(gate.independent, abs=0.005)
    assert gate_power([0.3, 0.4]).at_least == 0
    for wrong in ([], [1.2], [math.nan]):
        with pytest.raises(ValueError, match="probabilities"):
            gate_power(wrong)
