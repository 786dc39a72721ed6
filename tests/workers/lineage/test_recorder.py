"""What a recorder writes beside the weights, and what of it a version takes over that was edited."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe, parse_recipe
from tests.workers import factories
from workers.lineage.duplicates import DUPLICATES, find_duplicates, read_duplicates
from workers.lineage.facts import read_facts
from workers.lineage.recorder import TrainingRecorder, carry_over
from workers.modeling.fresh import Provenance
from workers.modeling.records import MemoryRecords
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.problems import Line, build_problem, open_line
from workers.planning.traces import retained_copies

DIGEST = "00" * 32
FORGET = ["d00000", "d00005"]


def _recipe(**lineage: Any) -> Recipe:
    recipe = factories.resnet_recipe(epochs=1, batch_size=32)
    return parse_recipe(recipe.model_dump(mode="json") | {"lineage": {"canaries": "off"} | lineage})


def _copied() -> MemoryRecords:
    """Images of which 10 and 20 are copies of 0, 30 is one of 5, and 41 is one of 40."""
    data: MemoryRecords = factories.digits(96, 10)[0]
    for copy, original in ((10, 0), (20, 0), (30, 5), (41, 40)):
        for column in data.columns.values():
            column[copy] = column[original]
    return data


def _train(folder: Path, recipe: Recipe) -> Line:
    data = _copied()
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, folder, 0, context, Provenance(DIGEST))
    return open_line(folder, data.task, data, None, None)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return _train(tmp_path_factory.mktemp("copied") / "model", _recipe())


def _named(folder: Path) -> set[str]:
    table = read_duplicates(folder / LINEAGE)
    assert table is not None
    return {name for side in ("left", "right") for name in table[side].to_pylist()}


def test_the_table_of_an_edited_version_names_nobody_who_was_forgotten(line: Line, tmp_path: Path) -> None:
    assert _named(line.base_dir) == {"d00000", "d00010", "d00020", "d00005", "d00030", "d00040", "d00041"}
    problem = build_problem(line, FORGET, _recipe(), DIGEST, {})
    (tmp_path / "edited").mkdir()
    assert carry_over(line.base_dir, tmp_path / "edited", problem.retain, []) is not None
    assert _named(tmp_path / "edited") == {"d00010", "d00020", "d00040", "d00041"}
    # The copies of a forgotten first one are still known to be copies of each other.
    assert read_duplicates(tmp_path / "edited" / LINEAGE) == find_duplicates(problem.retain)


def test_nor_does_the_table_of_one_that_was_trained_again(line: Line, tmp_path: Path) -> None:
    problem = build_problem(line, FORGET, _recipe(), DIGEST, {})
    run_attempt("retrain", {}, problem, factories.context(), tmp_path / "out")
    assert read_duplicates(tmp_path / "out" / LINEAGE) == find_duplicates(problem.retain)


def test_where_the_search_is_switched_off_nobody_has_looked(tmp_path: Path) -> None:
    recipe = _recipe(duplicates="off")
    line = _train(tmp_path / "model", recipe)
    facts = read_facts(line.base_dir)
    assert facts is not None
    assert DUPLICATES not in facts.files
    assert retained_copies(line, FORGET) is None
    problem = build_problem(line, FORGET, recipe, DIGEST, {})
    run_attempt("retrain", {}, problem, factories.context(), tmp_path / "out")
    (tmp_path / "edited").mkdir()
    assert carry_over(line.base_dir, tmp_path / "edited", problem.retain, []) is not None
    for folder in (line.base_dir, tmp_path / "out", tmp_path / "edited"):
        assert (folder / LINEAGE / "lineage.json").is_file()
        assert not (folder / LINEAGE / DUPLICATES).exists()
