"""Retraining: equal to training on the retained records by hand, and nothing of the forgotten ones in the record."""

import dataclasses
import json
from pathlib import Path

import pytest

from service.catalogue.families.exact import RetrainParams
from service.catalogue.recipes import Recipe
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line
from workers.methods.retrain import retrain
from workers.modeling.train import Provenance, train_by_recipe
from workers.modeling.training_record import read_exposures, read_record


def short(line: Line) -> Line:
    changed = line.recipe.training.model_copy(update={"epochs": 1})
    return dataclasses.replace(line, recipe=line.recipe.model_copy(update={"training": changed}))


@pytest.mark.parametrize("kind", ["digits_line", "chat_line"])
def test_it_is_training_without_the_forgotten_records(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    line = short(request.getfixturevalue(kind))
    problem = line.problem(50)
    (tmp_path / "out").mkdir()
    outcome = retrain(problem, RetrainParams(), factories.context(3), tmp_path / "out")
    known = Provenance("00" * 32, num_labels=10 if kind == "digits_line" else None)
    train_by_recipe(line.recipe, problem.retain, tmp_path / "by-hand", 3, factories.context(3), known)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "by-hand")]
    assert weights[0] == weights[1]
    assert outcome.exact
    assert outcome.steps == outcome.backward_passes > 0


def test_the_record_lists_only_what_was_seen(digits_line: Line, tmp_path: Path) -> None:
    line = short(digits_line)
    problem = line.problem(50)
    retrain(problem, RetrainParams(), factories.context(3), tmp_path)
    record = read_record(tmp_path)
    assert record is not None
    assert (record.records, record.excluded, record.seed) == (850, 50, 3)
    seen = read_exposures(tmp_path).to_pydict()
    assert seen["record_id"] == problem.retain.ids.tolist()
    assert set(seen["exposures"]) == {1}


def test_the_number_of_labels_is_kept_when_the_last_class_is_forgotten(digits_line: Line, tmp_path: Path) -> None:
    line = short(digits_line)
    nines = [at for at, label in enumerate(line.train.columns["label"]) if label == 9]
    others = [at for at, label in enumerate(line.train.columns["label"]) if label != 9]
    problem = dataclasses.replace(line.problem(1), forget=line.train.subset(nines), retain=line.train.subset(others))
    retrain(problem, RetrainParams(), factories.context(), tmp_path)
    assert len(json.loads((tmp_path / "config.json").read_text())["id2label"]) == 10


def test_a_trained_tokenizer_is_trained_anew(chat_line: Line, tmp_path: Path) -> None:
    retrain(short(chat_line).problem(100), RetrainParams(), factories.context(), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() != (chat_line.base / "tokenizer.json").read_bytes()


def test_a_given_tokenizer_is_taken_from_the_served_model(chat_line: Line, tmp_path: Path) -> None:
    """The folder that the recipe names need not exist where the job runs."""
    content = short(chat_line).recipe.model_dump(mode="json")
    content["model"]["tokenizer"] = "/nowhere"
    given = dataclasses.replace(chat_line.problem(100), recipe=Recipe.model_validate(content))
    retrain(given, RetrainParams(), factories.context(), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (chat_line.base / "tokenizer.json").read_bytes()


def test_without_a_recipe_it_is_refused(digits_line: Line, tmp_path: Path) -> None:
    problem = dataclasses.replace(digits_line.problem(5), recipe=None)
    with pytest.raises(BadParameters, match="recipe"):
        retrain(problem, RetrainParams(), factories.context(), tmp_path)
