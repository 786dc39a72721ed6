"""Figures: right numbers, the same bytes twice, and none where a point would be a person."""

import re
from pathlib import Path

import numpy as np
import pytest

from service.reports import plots
from service.reports.figures import draw_job, draw_request
from service.reports.scores import ModelScores, Scores, auc, read_scores, roc
from tests.service.reports import samples

JUDGED, PEOPLE, RUN = ["forest", "power"], ["scores", "strip", "roc"], ["curve", "ledger"]
ALL = [*JUDGED, *PEOPLE, *RUN]


def scores(forget: list[float], held_out: list[float]) -> ModelScores:
    return ModelScores("original", np.array(forget), np.array(held_out))


def test_auc_against_closed_forms() -> None:
    assert auc(scores([3, 4], [1, 2]), higher_is_member=True) == 1.0
    assert auc(scores([3, 4], [1, 2]), higher_is_member=False) == 0.0
    assert auc(scores([1, 2], [1, 2]), higher_is_member=True) == 0.5
    assert auc(scores([2, 2], [1, 2, 3, 2]), higher_is_member=True) == pytest.approx((1 + 0.5 * 2) / 4)


def test_auc_is_the_area_under_the_roc() -> None:
    random = np.random.default_rng(1)
    sample = ModelScores("original", random.normal(1, 1, 80), random.normal(0, 1, 120))
    false, true = (np.concatenate([[0.0], part]) for part in roc(sample, higher_is_member=True))
    assert np.trapezoid(true, false) == pytest.approx(auc(sample, higher_is_member=True))


def test_a_null_model_scores_near_one_half_and_a_leak_far_from_it(tmp_path: Path) -> None:
    read = read_scores(samples.score_tables(tmp_path, n=200, m=800))
    assert read is not None
    before, after = (auc(model, read.higher_is_member) for model in read.models)
    assert before > 0.7
    assert abs(after - 0.5) < 0.06


def test_separate_files_for_each_set_read_like_one_with_a_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    paths = samples.score_tables(tmp_path / "whole")
    split: dict[str, dict[str, Path]] = {}
    for model, path in paths.items():
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        split[model] = {}
        for part in ("forget", "held_out"):
            split[model][part] = tmp_path / f"{model}-{part}.arrow"
            rows = table.filter(pc.equal(table["set"], part)).drop_columns(["set"])
            with pa.OSFile(str(split[model][part]), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
    one, two = read_scores(tmp_path / "whole"), read_scores(split)
    assert one is not None
    assert two is not None
    assert one.models[0].forget.tolist() == two.models[0].forget.tolist()


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    files = samples.score_tables(tmp_path)
    assert draw_job(samples.evidence(), files) == draw_job(samples.evidence(), files)


def test_figures_carry_no_date_and_no_record(tmp_path: Path) -> None:
    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path))
    assert [part.name.partition("/")[2] for part, _ in drawn] == ALL
    for part, svg in drawn:
        assert not re.search(rb"dc:date|<metadata|http://matplotlib|subject", svg)
        assert samples.CANDIDATE[:12] in part.caption
        assert part.alt


def test_captions_state_the_sizes(tmp_path: Path) -> None:
    drawn = dict(draw_job(samples.evidence(), samples.score_tables(tmp_path, n=90, m=300)))
    captions = {part.name.partition("/")[2]: part.caption for part in drawn}
    assert "n = 90 forgotten and m = 300 held-out" in captions["scores"]
    assert "stroke" not in captions["scores"]
    assert "95 % bounds of both rates at each threshold by itself" in captions["roc"]


def test_every_figure_names_versions_policy_and_who_counts_as_one(tmp_path: Path) -> None:
    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path, canaries=73))
    assert len(drawn) == len(ALL) + 1
    for part, _ in drawn:
        name = part.name.partition("/")[2]
        assert samples.CANDIDATE[:12] in part.caption, name
        assert samples.BASE[:12] in part.caption, name
        assert samples.evidence().policy_digest[:12] in part.caption, name
        if name in ("forest", "power", "scores", "strip", "roc"):
            assert "clustered by subject (12 and 40 of them)" in part.caption, name


@pytest.mark.parametrize(("n", "names"), [(4, [*JUDGED, *RUN]), (5, ALL)])
def test_fewer_than_five_records_are_not_drawn(tmp_path: Path, n: int, names: list[str]) -> None:
    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path, n=n))
    assert [part.name.partition("/")[2] for part, _ in drawn] == names


def test_a_rug_below_fifty_records(tmp_path: Path) -> None:
    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path, n=20))
    (part,) = (part for part, _ in drawn if part.name.endswith("/scores"))
    assert "Each stroke below an axis is one forgotten record" in part.caption


def test_no_numbers_no_scores_and_no_curve_give_no_figure() -> None:
    job = samples.evidence()
    bare = [attempt.model_copy(update={"curve": [], "verification": None}) for attempt in job.attempts]
    assert draw_job(job.model_copy(update={"attempts": bare}), None) == []


def test_constant_scores_can_be_drawn() -> None:
    flat = Scores(
        "loss (nats)", False, (scores([1.0] * 9, [1.0] * 9), ModelScores("candidate", np.ones(9), np.ones(9)))
    )
    assert plots.score_histograms(flat, {}).startswith(b"<svg")
    assert plots.roc_curves(flat, {}).startswith(b"<svg")


def test_the_timeline_names_every_moment() -> None:
    ((part, svg),) = draw_request(samples.request(), [samples.evidence()])
    assert svg.startswith(b"<svg")
    for word in ("received", "acknowledged", "job started", "published", "due"):
        assert word in part.alt
