"""The price of a pool: expectations against real draws, and which of the two is the better buy."""

import numpy as np
import pytest

from service.errors import BadParameters
from workers.references.estimate import Horizon, estimate, expected_affected
from workers.references.split import plan_split, pool_key


@pytest.mark.parametrize("subjects", [1, 2, 5])
def test_the_expected_number_of_affected_members_is_that_of_real_halves(subjects: int) -> None:
    owners = np.array([f"s{at:03d}" for at in range(400)])
    split = plan_split(owners, owners[:0], 32, pool_key(0, "00"))
    draw = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        gone = draw.choice(400, subjects, replace=False)
        counts.append(sum(bool(split.trained_by(number)[gone].any()) for number in range(32)))
    assert np.mean(counts) == pytest.approx(expected_affected(32, subjects), abs=0.4)


def test_hand_computed() -> None:
    made = estimate(16, Horizon(jobs=22, subjects_per_job=1, job_cost=0.1, jobs_per_refresh=2), share=0.5)
    assert made.prepare == 8.0
    assert made.affected == 12.0  # two people: three quarters of the members
    assert made.per_refresh == 6.0
    assert (made.refreshes, made.refreshing) == (11.0, 66.0)
    assert made.jobs == pytest.approx(22 * (10 * 0.1 + 1) / 11)  # 20 approximate and 2 exact ones
    assert made.total == pytest.approx(8 + 66 + 4)
    assert made.retraining == 22.0
    assert made.better == "retraining"
    assert made.pays_after is None
    assert "however many jobs" in made.sentence


def test_reserved_references_need_no_refresh_and_pay_after_some_jobs() -> None:
    horizon = Horizon(jobs=20, subjects_per_job=50, job_cost=0.1)
    made = estimate(32, horizon, "reserved_split", share=0.15)
    assert (made.affected, made.refreshes, made.refreshing) == (0.0, 0.0, 0.0)
    assert made.better == "pool"
    assert made.pays_after is not None
    assert estimate(32, Horizon(made.pays_after + 1, 50, 0.1), "reserved_split", 0.15).better == "pool"
    fewer = estimate(32, Horizon(made.pays_after - 1, 50, 0.1), "reserved_split", 0.15)
    assert fewer.better == "retraining"
    assert f"up to {made.pays_after:.0f} jobs" in fewer.sentence
    assert "nothing to refresh" in made.sentence


def test_cheap_references_and_shared_refreshes_turn_the_scale() -> None:
    dear = estimate(32, Horizon(jobs=120, subjects_per_job=5))
    shared = estimate(32, Horizon(jobs=120, subjects_per_job=5, jobs_per_refresh=30), recipe_cost=0.3)
    assert (dear.better, shared.better) == ("retraining", "pool")
    assert "better buy" in dear.sentence


def test_batching_the_retraining_counts_too() -> None:
    horizon = Horizon(jobs=120, subjects_per_job=5, jobs_per_refresh=30, jobs_per_retrain=30)
    made = estimate(32, horizon, recipe_cost=0.3)
    assert made.retraining == 4.0
    assert made.better == "retraining"


@pytest.mark.parametrize(
    "horizon", [Horizon(-1), Horizon(1, 0), Horizon(1, 1, -1), Horizon(1, 1, 0.1, 0.5), Horizon(1, 1, 0.1, 1, 0)]
)
def test_nonsense_is_refused(horizon: Horizon) -> None:
    with pytest.raises(BadParameters, match="makes no sense"):
        estimate(16, horizon)


def test_sizes_that_make_no_pool_have_no_price() -> None:
    with pytest.raises(BadParameters, match="no pool"):
        estimate(4, Horizon(1))
