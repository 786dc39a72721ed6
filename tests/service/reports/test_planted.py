"""Planted records: exposure is uniform without a trace and capped with one, and nothing is drawn of too few."""

from pathlib import Path

import numpy as np
import pytest

from service.reports.figures import draw_job
from service.reports.planted import canary_exposure, exposures
from service.reports.scores import ModelScores, Scores, read_scores
from service.verification.exposure import null_mean
from tests.service.reports import samples

EMPTY = np.zeros(9)


def model(
    shift: float, canaries: int = 400, outside: int = 2000, seed: int = 0, name: str = "candidate"
) -> ModelScores:
    random = np.random.default_rng(seed)
    planted = (random.normal(shift, 1, canaries), random.normal(0, 1, outside))
    return ModelScores(name, EMPTY, EMPTY, planted)


def test_no_trace_is_the_null_and_a_leak_is_far_above() -> None:
    clean, leak = exposures(model(0.0), True), exposures(model(9.0), True)
    assert clean is not None
    assert leak is not None
    low, high = clean[1].interval()
    assert low < null_mean(2000) < high
    assert np.mean(clean[0] >= 1) == pytest.approx(0.5, abs=0.08)
    assert leak[1].mean == pytest.approx(np.log2(2000))


def test_the_interval_of_the_null_covers_it() -> None:
    misses = 0
    for seed in range(300):
        found = exposures(model(0.0, canaries=73, outside=365, seed=seed), True)
        assert found is not None
        low, high = found[1].interval()
        misses += not low <= null_mean(365) <= high
    assert misses <= 25  # 5 % of 300 is 15; P(more than 25) < 0.01


def test_the_direction_of_the_score_is_respected() -> None:
    up, down = model(2.0), model(-2.0)
    first, second = exposures(up, True), exposures(down, False)
    assert first is not None
    assert second is not None
    assert first[1].mean > 4
    assert second[1].mean > 3.5
    over = exposures(down, True)
    assert over is not None
    assert over[1].mean < 0.4


def test_retrained_models_are_left_out_since_they_may_hold_them(tmp_path: Path) -> None:
    two = Scores("s", True, (model(3.0, name="original"), model(0.0)))
    three = Scores("s", True, (*two.models, model(3.0, name="retrained-1", seed=4)))
    assert canary_exposure(two, {}) == canary_exposure(three, {})


@pytest.mark.parametrize(("canaries", "drawn"), [(0, False), (4, False), (5, True), (73, True)])
def test_what_is_there_is_drawn(tmp_path: Path, canaries: int, drawn: bool) -> None:
    names = [part.name for part, _ in draw_job(samples.evidence(), samples.score_tables(tmp_path, canaries=canaries))]
    assert (f"{samples.JOB}/canaries" in names) is drawn


def test_the_figure_tells_before_from_after(tmp_path: Path) -> None:
    found = read_scores(samples.score_tables(tmp_path, canaries=73))
    assert found is not None
    before, after = (exposures(model, found.higher_is_member) for model in found.models)
    assert before is not None
    assert after is not None
    assert before[1].interval()[0] > after[1].interval()[1]
