"""Bands of a ROC against closed forms: they hold the true curve as often as they say, and tell nothing too far left."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from service.reports import plots
from service.reports.bands import roc_band
from service.reports.scores import ModelScores, Scores, read_scores, roc
from tests.service.reports import samples

RATES = np.geomspace(1e-4, 1, 50)
NORMAL = NormalDist()


def drawn(seed: int, shift: float, n: int = 120, m: int = 300) -> ModelScores:
    """Forgotten and held-out scores of two normal distributions, `shift` standard deviations apart."""
    random = np.random.default_rng(seed)
    return ModelScores("candidate", random.normal(shift, 1, n), random.normal(0, 1, m))


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_the_true_curve_lies_inside_as_often_as_it_should(shift: float) -> None:
    """The binormal ROC: TPR = Phi(shift + Phi^-1(FPR)). The null case is the diagonal."""
    rates = np.array([0.003, 0.02, 0.1, 0.4])
    true = np.array([NORMAL.cdf(shift + NORMAL.inv_cdf(rate)) for rate in rates])
    inside = []
    for seed in range(200):
        low, high = roc_band(drawn(seed, shift), True, rates)
        inside.append((low <= true) & (true <= high))
    shares = np.mean(inside, axis=0)
    assert (shares >= 0.95).all(), shares


def test_a_leak_lies_above_the_line_of_guessing_and_no_leak_around_it() -> None:
    rates = np.array([0.05, 0.1, 0.3])
    leak, _ = roc_band(drawn(1, 3.0), True, rates)
    assert (leak > 2 * rates).all()
    low, high = roc_band(drawn(1, 0.0), True, rates)
    assert ((low <= rates) & (rates <= high)).all()


def test_nothing_is_known_left_of_what_the_held_out_records_can_show() -> None:
    """With none of m above a threshold its rate is below 1 - 0.0125^(1/m), by Clopper and Pearson."""
    low, high = roc_band(drawn(2, 3.0, m=300), True, RATES)
    first = 1 - 0.0125 ** (1 / 300)
    assert (low[first > RATES] == 0).all()
    assert low[first <= RATES].min() > 0.3
    assert (high >= low).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()


def test_the_curve_itself_runs_inside() -> None:
    sample = drawn(3, 1.0)
    false, true = roc(sample, higher_is_member=True)
    seen = (false > 0) & (false < 1)
    low, high = roc_band(sample, True, false[seen])
    assert ((low <= true[seen]) & (true[seen] <= high)).all()


def test_losses_tell_members_by_being_low() -> None:
    sample = drawn(4, 1.0)
    turned = ModelScores("candidate", -sample.forget, -sample.held_out)
    for one, other in zip(roc_band(sample, True, RATES), roc_band(turned, False, RATES), strict=True):
        assert one.tolist() == other.tolist()


def test_ten_equal_records_of_a_person_count_about_as_one() -> None:
    people = drawn(5, 1.0, n=40, m=60)
    forget, held_out = np.repeat(people.forget, 10), np.repeat(people.held_out, 10)
    whose = (np.repeat(np.arange(40), 10), np.repeat(np.arange(60), 10))
    rates = np.array([0.1, 0.3, 0.6])
    widths = [
        np.subtract(*roc_band(one, True, rates)[::-1])
        for one in (
            people,
            ModelScores("candidate", forget, held_out, subjects=whose),
            ModelScores("candidate", forget, held_out),
        )
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert (widths[2] < 0.75 * widths[1]).all()


def test_tables_say_who_shares_records_and_not_who_they_are(tmp_path: Path) -> None:
    read = read_scores(samples.score_tables(tmp_path, n=20, m=30))
    assert read is not None
    whose = read.models[0].subjects
    assert whose is not None
    assert [len(part) for part in whose] == [20, 30]
    assert [len(np.unique(part)) for part in whose] == [4, 6]
    assert all(part.dtype == np.int64 for part in whose)


def test_the_figure_has_bands_for_the_versions_and_none_for_retrained_models() -> None:
    """Each band is an area and its two edges."""
    models = (drawn(6, 1.0), ModelScores("retrained-1", drawn(7, 0.0).forget, drawn(7, 0.0).held_out))
    counts = [
        plots.roc_curves(Scores("loss", True, models[:some]), {}).count(b"FillBetweenPolyCollection") for some in (1, 2)
    ]
    assert counts[0] == counts[1] > 0
