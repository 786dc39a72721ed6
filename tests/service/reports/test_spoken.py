"""The figure of queries until a text is said: its numbers by hand, what it is not drawn for, and where it stands."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from service.reports.figures import draw_job
from service.reports.spoken import extraction, of_extraction, queries, read_spoken
from tests.service.reports import samples


def tables(folder: Path, n: int = 40, m: int = 200, asked: int | None = None) -> dict[str, Path]:
    """Score tables of two versions; `asked` forgotten texts have a figure, half of them certain before, none after."""
    paths = samples.score_tables(folder, n=n, m=m)
    for model, path in paths.items():
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        known = -0.1 if model == "original" else -20.0
        values: list[float | None] = [known if at % 2 else -20.0 for at in range(n)]
        values = [value if asked is None or at < asked else None for at, value in enumerate(values)]
        table = table.append_column("extraction_log_p", pa.array(values + [-20.0] * m, pa.float64()))
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return paths


def test_queries_by_hand() -> None:
    found = queries(np.log([1.0, 0.5, 0.1, 1e-3]))
    assert found.tolist() == pytest.approx([1.0, 1.0, math.log(2) / -math.log(0.9), 692.8], rel=1e-3)
    assert queries(np.array([-np.inf])).tolist() == [math.inf]


def test_lines_are_of_texts_that_were_asked_for(tmp_path: Path) -> None:
    found = read_spoken(tables(tmp_path, asked=10))
    assert found is not None
    assert (len(found.before), len(found.after), len(found.never_seen)) == (10, 10, 200)
    assert np.exp(found.before).max() > 0.9
    told = of_extraction(found)
    assert "old version says 50.0% of the forgotten ones, the new version 0.0%, and 0.0%" in told
    assert extraction(found, {}) == extraction(found, {})
    assert extraction(found, {}).startswith(b"<svg")


def test_too_few_texts_are_not_drawn_and_images_have_no_such_figure(tmp_path: Path) -> None:
    assert read_spoken(tables(tmp_path / "few", asked=4)) is None
    assert read_spoken(samples.score_tables(tmp_path / "images")) is None
    assert read_spoken(tmp_path / "nothing") is None
    tables(tmp_path / "folder")
    assert read_spoken(tmp_path / "folder") is not None


def test_the_report_has_the_figure(tmp_path: Path) -> None:
    drawn = {part.name: part for part, _ in draw_job(samples.evidence(), tables(tmp_path))}
    part = drawn[f"{samples.JOB}/extraction"]
    assert "Within 1,000" in part.caption
    assert f"{samples.JOB}/scores" in drawn
