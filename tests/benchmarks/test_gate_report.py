"""Shares of jobs whose jobs are not independent: intervals by retrain, and how often they hold the truth."""

import numpy as np
import pytest

from benchmarks.gate_report import share
from service.verification.quantiles import clopper_pearson


def test_jobs_of_their_own_have_the_exact_interval() -> None:
    found = share([True] * 3 + [False] * 17, [str(at) for at in range(20)])
    assert found is not None
    # With every job a retrain of its own, the clustered variance differs from the binomial one by n / (n - 1) alone.
    expected = clopper_pearson(3 * 19 / 20, 19, 0.95)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-6)


def test_where_all_agree_a_retrain_is_one_trial() -> None:
    found = share([False] * 40, [str(at // 10) for at in range(40)])
    assert found is not None
    assert (found.found, found.low) == (0, 0.0)
    assert found.high == pytest.approx(clopper_pearson(0, 4, 0.95)[1])


def test_no_job_has_no_share() -> None:
    assert share([], []) is None


@pytest.mark.parametrize("correlated", [False, True])
def test_the_interval_covers(correlated: bool) -> None:
    """20 retrains of 10 jobs with a rate of 0.3, each retrain with a rate of its own where `correlated`."""
    draw = np.random.default_rng(0)
    clusters = [str(at // 10) for at in range(200)]
    covered = plain = 0
    for _ in range(300):
        rates = draw.beta(3, 7, 20) if correlated else np.full(20, 0.3)
        hits = draw.random(200) < np.repeat(rates, 10)
        found = share(hits.tolist(), clusters)
        assert found is not None
        covered += found.low <= 0.3 <= found.high
        low, high = clopper_pearson(float(hits.sum()), 200, 0.95)
        plain += low <= 0.3 <= high
    assert covered / 300 > 0.91
    # Without clustering it would hold the truth where jobs are independent, and only there.
    assert (plain / 300 > 0.93) != correlated


def test_clustering_widens() -> None:
    alike = [at // 10 % 2 == 0 for at in range(200)]
    clusters = [str(at // 10) for at in range(200)]
    mixed = [at % 2 == 0 for at in range(200)]
    wide, narrow = share(alike, clusters), share(mixed, clusters)
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
