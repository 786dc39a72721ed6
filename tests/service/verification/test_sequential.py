"""The wager over publications: it seldom cries wolf however long it is watched, finds leaks, and its bounds hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.verification.sequential import ODDS, Wager, fold, log_wealth

ALARM = math.log(20)


def wealth_of(outcomes: np.ndarray, null: float) -> np.ndarray:
    """Log wealth after each outcome of each path; [paths, steps] of zeros and ones, from a table of every sum."""
    steps = outcomes.shape[1]
    table = np.array([log_wealth(np.arange(steps + 1), np.full(steps + 1, t), null) for t in range(1, steps + 1)])
    sums = np.cumsum(outcomes, axis=1, dtype=np.int32)
    return table[np.arange(steps), sums]


@pytest.mark.parametrize("null", [0.5, 0.55])
def test_the_boundary_null_raises_an_alarm_in_one_of_twenty_at_most(null: float) -> None:
    random = np.random.default_rng(1)
    peaks = wealth_of(random.random((10_000, 1000), dtype=np.float32) < null, null).max(1)
    assert (peaks >= ALARM).mean() <= 0.05
    # Not empty: some paths do come close.
    assert (peaks >= math.log(4)).mean() > 0.05


def test_no_alarm_where_chances_change_but_never_exceed_the_null_on_average() -> None:
    # Chances of 0.6 and 0.4 in turn, each publication undoing the other: the average at any time is 0.5 at most.
    random = np.random.default_rng(2)
    chances = np.tile(np.repeat([0.4, 0.6], 25), 20)
    peaks = wealth_of(random.random((4000, 1000)) < chances, 0.5).max(1)
    assert (peaks >= ALARM).mean() <= 0.05


def test_an_attack_that_is_right_in_60_percent_is_found_within_a_few_hundred_canaries() -> None:
    random = np.random.default_rng(3)
    alarmed = wealth_of(random.random((2000, 1000)) < 0.6, 0.5) >= ALARM
    assert alarmed.any(1).mean() > 0.99
    assert np.median(alarmed.argmax(1)) < 300
    # A leak that is tolerated is no reason for an alarm.
    assert (wealth_of(random.random((2000, 500)) < 0.53, 0.55).max(1) >= ALARM).mean() < 0.02


def test_wealth_is_that_of_the_bets_it_is_made_of() -> None:
    # A gambler who stakes a share of the wealth on each outcome, once for each bet, all with the same start.
    outcomes, null = np.random.default_rng(4).integers(0, 2, 60), 0.53
    stakes = np.expm1(ODDS) / (1 + null * np.expm1(ODDS))
    wealth = np.prod(1 + stakes * (outcomes[:, None] - null), axis=0).mean()
    assert float(log_wealth(outcomes.sum(), 60, null)) == pytest.approx(math.log(wealth))
    # Outcomes in between: never more than the gambler has.
    between = np.random.default_rng(5).random(60)
    wealth = np.prod(1 + stakes * (between[:, None] - null), axis=0).mean()
    assert float(log_wealth(between.sum(), 60, null)) <= math.log(wealth)


@pytest.mark.parametrize("null", [0.3, 0.5, 0.6])
def test_expected_wealth_is_one_at_the_null(null: float) -> None:
    random = np.random.default_rng(6)
    wealth = np.exp(wealth_of(random.random((100_000, 12)) < null, null))
    assert wealth[:, -1].mean() == pytest.approx(1.0, abs=4 * wealth[:, -1].std() / math.sqrt(100_000))


def bounds(steps: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of every (t, sum) with t a multiple of ten."""
    low, high = np.zeros((steps // 10, steps + 1)), np.ones((steps // 10, steps + 1))
    for row in range(steps // 10):
        for total in range(10 * (row + 1) + 1):
            low[row, total], high[row, total] = Wager(total=total, count=10 * (row + 1)).interval(alpha)
    return low, high


def test_bounds_hold_at_all_times_at_once_also_for_an_average_that_drifts() -> None:
    random, steps, alpha = np.random.default_rng(7), 200, 0.1
    low, high = bounds(steps, alpha)
    rows = np.arange(steps // 10)
    for chances in (np.full(steps, 0.5), np.full(steps, 0.9), np.linspace(0.3, 0.9, steps)):
        sums = np.cumsum(random.random((4000, steps)) < chances, axis=1)[:, 9::10]
        average = (np.cumsum(chances) / np.arange(1, steps + 1))[9::10]
        held = (low[rows, sums] <= average) & (average <= high[rows, sums])
        assert held.all(1).mean() >= 1 - alpha
        assert (high - low)[rows, sums][:, -1].mean() < 0.35


def test_bounds_tighten_and_show_a_leak() -> None:
    first = Wager(total=6, count=10).interval()
    later = Wager(total=600, count=1000).interval()
    assert first[0] < 0.5 < later[0] < 0.6 < later[1] < first[1]
    assert later[1] - later[0] < 0.15
    assert Wager().interval() == (0.0, 1.0)
    mirrored = Wager(total=400, count=1000).interval()
    assert mirrored == pytest.approx((1 - later[1], 1 - later[0]))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 90)), max_size=12), st.floats(0.05, 0.95))
def test_a_wager_goes_on_where_it_stopped(shares: list[tuple[float, int]], null: float) -> None:
    publications = [(share * count, count) for share, count in shares]
    wagers = fold(publications, null)
    for before, after, (total, count) in zip([Wager(null), *wagers], wagers, publications, strict=False):
        assert after == before.plus(total, count)
        assert after.peak >= max(before.peak, after.log_wealth)
        low, high = after.interval()
        assert 0 <= low <= high <= 1


def test_an_alarm_stays_on() -> None:
    alarmed = Wager().plus(20.0, 20)
    assert alarmed.alarm()
    assert not Wager().plus(3.0, 3).alarm()
    later = alarmed.plus(0.0, 200)
    assert later.log_wealth < 0
    assert later.alarm()


def published(chance: float, publications: int, paths: int, seed: int) -> np.ndarray:
    """Log wealth after each publication of 73 guesses that are right with this chance [paths, publications]."""
    right = np.random.default_rng(seed).binomial(73, chance, (paths, publications)).cumsum(axis=1)
    return log_wealth(right, 73 * np.arange(1, publications + 1), 0.5)


def test_looked_at_after_each_publication_it_seldom_alarms_without_a_leak_and_soon_with_one() -> None:
    assert (published(0.5, 40, 20_000, 7).max(1) >= ALARM).mean() <= 0.05
    leaking = published(0.6, 10, 4000, 8) >= ALARM
    assert leaking.any(1).mean() > 0.98
    assert np.median(leaking.argmax(1) + 1) <= 4


def test_publications_are_folded_one_after_the_other() -> None:
    wagers = fold([(40.0, 73), (0.0, 0), (36.5, 73)])
    assert [(wager.total, wager.count) for wager in wagers] == [(40.0, 73), (40.0, 73), (76.5, 146)]
    assert wagers[0].peak == wagers[1].peak == max(0.0, float(log_wealth(40.0, 73, 0.5)))
    assert fold([]) == []
    assert fold([(73.0, 73)])[0].highest == pytest.approx(math.exp(float(log_wealth(73.0, 73, 0.5))))
    for total, count in ((3.0, 2), (-1.0, 2), (math.nan, 2)):
        with pytest.raises(ValueError, match="outcomes"):
            Wager(total=5.0, count=9).plus(total, count)


@pytest.mark.parametrize(
    "wrong",
    [
        {"null": 1.0}, {"null": 0.0}, {"total": 3.0, "count": 2}, {"total": -1.0}, {"peak": -0.1}, {"peak": math.nan},
        {"peak": math.inf},
    ],
)  # fmt: skip
def test_numbers_that_are_no_wager_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wager"):
        Wager(**wrong)  # type: ignore[arg-type]
