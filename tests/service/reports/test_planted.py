"""Planted records: exposure is uniform without a trace and capped with one, and nothing is drawn of too few."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather

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
    low, high = clean.mean.interval()
    assert low < null_mean(2000) < high
    assert clean.null == pytest.approx(null_mean(2000))
    assert np.mean(clean.bits >= 1) == pytest.approx(0.5, abs=0.08)
    assert leak.mean.mean == pytest.approx(np.log2(2000))


def test_the_interval_of_the_null_covers_it() -> None:
    misses = 0
    for seed in range(300):
        found = exposures(model(0.0, canaries=73, outside=365, seed=seed), True)
        assert found is not None
        low, high = found.mean.interval()
        misses += not low <= null_mean(365) <= high
    assert misses <= 25  # 5 % of 300 is 15; P(more than 25) < 0.01


def test_the_direction_of_the_score_is_respected() -> None:
    up, down = model(2.0), model(-2.0)
    first, second = exposures(up, True), exposures(down, False)
    assert first is not None
    assert second is not None
    assert first.mean.mean > 4
    assert second.mean.mean > 3.5
    over = exposures(down, True)
    assert over is not None
    assert over.mean.mean < 0.4


def two_kinds(natural: float, hard: float, seed: int = 0) -> ModelScores:
    """Half of the canaries are hard: 4 below the natural ones, wherever the coin put them. Shifts are what is left."""
    random = np.random.default_rng(seed)
    named = [np.array(["natural", "hard"] * (size // 2)) for size in (200, 1000)]
    scores = [random.normal(0, 1, len(names)) - 4.0 * (names == "hard") for names in named]
    scores[0] = scores[0] + np.where(named[0] == "hard", hard, natural)
    return ModelScores("candidate", EMPTY, EMPTY, (scores[0], scores[1]), (named[0], named[1]))


def test_a_trace_of_hard_canaries_is_not_hidden_by_the_easy_ones_outside() -> None:
    clean, leak = exposures(two_kinds(0.0, 0.0), True), exposures(two_kinds(0.0, 3.0), True)
    blind = exposures(replace(two_kinds(0.0, 3.0), kinds=None), True)
    assert clean is not None
    assert leak is not None
    assert blind is not None
    low, high = clean.mean.interval()
    assert low < clean.null < high
    assert clean.null == pytest.approx(null_mean(500))
    assert (leak.mean.canaries, leak.mean.references) == (200, 1000)
    hard = two_kinds(0.0, 3.0).kinds[0] == "hard"  # type: ignore[index]
    assert leak.bits[hard].mean() > 6
    assert blind.bits[hard].mean() < 2  # in one list, with as strong a leak
    assert leak.mean.mean > blind.mean.mean + 1


def test_a_kind_of_which_none_stayed_outside_is_not_drawn() -> None:
    both = two_kinds(0.0, 0.0)
    assert both.kinds is not None
    deleted, outside = both.kinds
    assert exposures(replace(both, kinds=(deleted, np.full(len(outside), "natural"))), True) is None


def test_the_kinds_are_read_from_the_tables(tmp_path: Path) -> None:
    files = samples.score_tables(tmp_path, canaries=74)
    for path in files.values():
        table = feather.read_table(path)
        kinds = [None if "canary" not in part else ("hard", "natural")[at % 2]
                 for at, part in enumerate(table["set"].to_pylist())]  # fmt: skip
        feather.write_feather(table.append_column("kind", pa.array(kinds, pa.string())), path, "uncompressed")
    found = read_scores(files)
    assert found is not None
    read = found.models[0].kinds
    assert read is not None
    assert [len(part) for part in read] == [74, 365]
    assert sorted(set(read[0].tolist())) == ["hard", "natural"]


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
    assert before.mean.interval()[0] > after.mean.interval()[1]
