"""Record by record: single points only between five and fifty, quantiles above, and an order that names nobody."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from service.reports.figures import draw_job
from service.reports.scores import Scores, read_scores
from service.reports.strips import strip
from tests.service.reports import samples


def read(folder: Path, n: int) -> Scores:
    found = read_scores(samples.score_tables(folder, n=n))
    assert found is not None
    return found


def test_pairs_are_the_same_record_under_each_model_in_the_order_of_the_first(tmp_path: Path) -> None:
    paths = samples.score_tables(tmp_path, n=30)
    ids = {}
    for model, path in paths.items():
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        ids[model] = dict(zip(table["record_id"].to_pylist(), table["confidence"].to_pylist(), strict=True))
        shuffled = table.take(np.random.default_rng(len(model)).permutation(len(table)))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, shuffled.schema) as writer:
            writer.write_table(shuffled)
    found = read_scores(paths)
    assert found is not None
    assert found.paired is not None
    expected = sorted((ids["original"][f"r{row}"], ids["candidate"][f"r{row}"]) for row in range(30))
    assert found.paired.T.tolist() == [list(pair) for pair in expected]


def test_a_score_that_is_not_finite_takes_the_pairs_away(tmp_path: Path) -> None:
    paths = samples.score_tables(tmp_path, n=12)
    with pa.OSFile(str(paths["candidate"])) as source:
        table = pa.ipc.open_file(source).read_all()
    values = table["confidence"].to_pylist()
    values[0] = float("nan")
    broken = table.set_column(table.column_names.index("confidence"), "confidence", pa.array(values))
    with pa.OSFile(str(paths["candidate"]), "wb") as sink, pa.ipc.new_file(sink, broken.schema) as writer:
        writer.write_table(broken)
    found = read_scores(paths)
    assert found is not None
    assert found.paired is None
    assert found.n == 11
    assert strip(found, {}).startswith(b"<svg")


@pytest.mark.parametrize(("n", "points"), [(5, 5), (49, 49), (50, 0), (200, 0)])
def test_single_records_are_points_below_fifty_only(tmp_path: Path, n: int, points: int) -> None:
    svg = strip(read(tmp_path, n), {}).decode()
    marks = re.findall(r"<use [^>]*fill: #d55e00", svg)
    medians = 0 if points else 2
    assert len(marks) == (2 * points + 1 if points else medians)  # one more point in the legend


def test_below_five_there_is_a_sentence_and_no_point(tmp_path: Path) -> None:
    drawn = draw_job(samples.evidence(), samples.score_tables(tmp_path, n=4, canaries=73))
    names = [part.name.partition("/")[2] for part, _ in drawn]
    assert "strip" not in names
    assert "canaries" in names  # planted records are nobody's


def write_references(folder: Path, paths: dict[str, Path], known: int, column: str = "confidence") -> dict[str, Path]:
    """Mean scores of reference models for the same records, of the first `known` forgotten ones."""
    with pa.OSFile(str(paths["original"])) as source:
        table = pa.ipc.open_file(source).read_all()
    values = np.random.default_rng(5).normal(0, 1, len(table))
    values[known : table["set"].to_pylist().count("forget")] = np.nan
    made = table.select(["record_id", "set"]).append_column(column, pa.array(values))
    path = folder / "references.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_table(made)
    return {**paths, "references": path}


def figures_of(paths: dict[str, Path]) -> dict[str, bytes]:
    return {part.name.partition("/")[2]: svg for part, svg in draw_job(samples.evidence(), paths)}


def test_what_references_say_is_a_row_of_its_own_and_no_attack(tmp_path: Path) -> None:
    paths = samples.score_tables(tmp_path, n=20)
    both = write_references(tmp_path, paths, 20)
    found = read_scores(both)
    assert found is not None
    assert [model.model for model in found.models] == ["original", "candidate", "references"]
    assert found.paired is not None
    assert found.paired.shape == (3, 20)
    plain, more = figures_of(paths), figures_of(both)
    assert {name for name in plain if plain[name] != more[name]} == {"scores", "strip"}


def test_references_of_some_records_or_in_another_unit_are_left_out(tmp_path: Path) -> None:
    paths = samples.score_tables(tmp_path, n=20)
    plain = figures_of(paths)
    assert figures_of(write_references(tmp_path, paths, 19)) == plain
    assert figures_of(write_references(tmp_path, paths, 20, column="another")) == plain
