"""Refit: the fine-tuning of the public base, again, without the forgotten records; refused where there is no base."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from service.catalogue.recipes import Recipe
from service.errors import BadRecipe, MethodRefused
from tests.workers import factories
from tests.workers.conftest import Line
from tests.workers.factories import MemoryRecords
from workers.modeling.directories import directory_digest, sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.problem import Problem
from workers.modeling.states import WEIGHTS
from workers.modeling.train import train_by_recipe
from workers.modeling.training_record import read_exposures
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line
from workers.planning.provenance import check_provenance

DIGEST = "00" * 32


@dataclass(frozen=True)
class Tuned:
    base: Path
    recipe: Recipe
    data: MemoryRecords

    def problem(self, ids: list[str]) -> Problem:
        return build_problem(open_line(self.base, "causal-lm", self.data, None, None), ids, self.recipe, DIGEST, {})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A language model fine-tuned from one that was trained on other people."""
    folder = tmp_path_factory.mktemp("tuned")
    data, others = factories.conversations(12, 12)
    pretraining = factories.gpt2_recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    train_by_recipe(pretraining, others, folder / "public", 0, factories.context(), Provenance(DIGEST))
    recipe = Recipe.model_validate(
        {
            "model": {"task": "causal-lm", "base": str(folder / "public")},
            "training": {"max_length": 64, "epochs": 3, "batch_size": 8, "learning_rate": 1e-3},
            "sources": {"base": directory_digest(folder / "public")},
        }
    )
    train_by_recipe(recipe, data, folder / "model", 0, factories.context(), Provenance(DIGEST))
    return Tuned(folder / "model", recipe, data)


def test_it_is_the_fine_tuning_without_the_records(tuned: Tuned, tmp_path: Path) -> None:
    ids = tuned.data.ids[:5].tolist()
    result = run_attempt("refit", {}, tuned.problem(ids), factories.context(3), tmp_path / "out")
    assert result.exact
    retained = tuned.data.subset(np.flatnonzero(~np.isin(tuned.data.ids, ids)).tolist())
    train_by_recipe(tuned.recipe, retained, tmp_path / "hand", 3, factories.context(), Provenance(DIGEST))
    assert sha256_file(tmp_path / "out" / WEIGHTS) == sha256_file(tmp_path / "hand" / WEIGHTS)
    assert set(read_exposures(tmp_path / "out")["record_id"].to_pylist()) == set(retained.ids.tolist())
    told = check_provenance(tmp_path / "out", tuned.base, ids, set(tuned.data.ids.tolist()))
    assert (told.claimed, told.holds) == (True, True), told.reason
    assert told.reason.startswith("refit: none of the 5 forgotten records")
    caught = check_provenance(tmp_path / "out", tuned.base, retained.ids[:1], set(tuned.data.ids.tolist()))
    assert (caught.claimed, caught.holds) == (True, False)


def test_without_a_base_it_is_refused(digits_line: Line, tmp_path: Path) -> None:
    with pytest.raises(MethodRefused, match=r"refit needs a recipe with model\.base; use retrain"):
        run_attempt("refit", {}, digits_line.problem(5), factories.context(), tmp_path / "out")


def test_a_base_that_changed_is_refused(tuned: Tuned, tmp_path: Path) -> None:
    moved = tuned.recipe.model_copy(update={"sources": {"base": "11" * 32}})
    problem = replace(tuned.problem(tuned.data.ids[:5].tolist()), recipe=moved)
    with pytest.raises(BadRecipe, match="has changed since the recipe was read"):
        run_attempt("refit", {}, problem, factories.context(), tmp_path / "out")
