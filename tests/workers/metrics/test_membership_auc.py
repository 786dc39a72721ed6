"""Membership AUC: no leak, a planted one, and a design that looks at the original alone."""

import numpy as np
import pytest

from service.verification.quantiles import normal_cdf
from workers.metrics.membership_auc import membership_auc, membership_design


def scores(leak: float, n: int = 2000, m: int = 3000, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    return random.normal(leak, 1, n), random.normal(0, 1, m), np.arange(n), np.arange(m)


@pytest.mark.parametrize("leak", [0.0, 0.5, 2.0, -1.0])
def test_the_planted_leak_is_measured(leak: float) -> None:
    auc = membership_auc(*scores(leak))
    assert auc.auc == pytest.approx(normal_cdf(leak / np.sqrt(2)), abs=3 * auc.se)
    assert (auc.n, auc.m, auc.clusters) == (2000, 3000, (2000, 3000))


def test_the_design_is_the_same_whatever_the_original_leaks() -> None:
    null, leaking = membership_design(*scores(0.0)), membership_design(*scores(3.0))
    assert null.se == pytest.approx(leaking.se, rel=1e-9)
    assert null.se == pytest.approx(np.sqrt(5001 / (12 * 2000 * 3000)), rel=1e-6)


def test_records_of_few_people_weigh_less() -> None:
    random = np.random.default_rng(1)
    people = np.repeat(np.arange(40), 25)
    values = np.repeat(random.normal(size=40), 25) + random.normal(size=1000)
    clustered = membership_design(values, values, people, people)
    single = membership_design(values, values, np.arange(1000), np.arange(1000))
    assert clustered.se > 2 * single.se
    assert clustered.df == 39
    assert clustered.power_at_zero(0.05, 0.05) < single.power_at_zero(0.05, 0.05)
