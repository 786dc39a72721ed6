"""One attempt: refused before any work where it does not fit, complete or absent, with its cost and its record."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from service.catalogue.methods import METHODS, find_method
from service.errors import BadDataset, BadParameters, Cancelled
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.directories import directory_digest
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem
from workers.modeling.training_record import read_exposures, read_record
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line

QUICK = {"passes": 2, "min_steps": 1, "forget_batch": 64}


@pytest.mark.parametrize("method", ["nabla_tau", "negative_gradient_plus"])
def test_a_candidate_is_complete_and_its_record_says_how_it_came(
    digits_line: Line, tmp_path: Path, method: str
) -> None:
    problem, before = digits_line.problem(60), directory_digest(digits_line.base)
    result = run_attempt(method, QUICK, problem, factories.context(4), tmp_path / "out")
    assert load_model(tmp_path / "out", "image-classification", torch.device("cpu")).model.config.num_labels == 10
    assert (result.method, result.records, result.steps, result.exact) == (method, 60, 2, False)
    assert result.digest == directory_digest(tmp_path / "out")
    assert result.params["passes"] == 2
    assert result.backward_passes == 4
    assert result.peak_memory_bytes > 10**8
    record, base = read_record(tmp_path / "out"), read_record(digits_line.base)
    assert record is not None
    assert base is not None
    assert record.parent == before == directory_digest(digits_line.base)
    assert record.unlearning is not None
    assert (record.unlearning.method, record.unlearning.forget_records) == (method, 60)
    assert record.recipe_digest == base.recipe_digest
    kept = set(read_exposures(tmp_path / "out")["record_id"].to_pylist())
    assert kept == set(problem.retain.ids.tolist())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def no_forget(problem: Problem) -> Problem:
    return dataclasses.replace(problem, forget=problem.forget.subset([]))


def no_retain(problem: Problem) -> Problem:
    return dataclasses.replace(problem, retain=problem.retain.subset([]))


def no_held_out(problem: Problem) -> Problem:
    return dataclasses.replace(problem, selection=None)


def no_recipe(problem: Problem) -> Problem:
    return dataclasses.replace(problem, recipe=None)


def same(problem: Problem) -> Problem:
    return problem


@pytest.mark.parametrize(
    ("method", "params", "change", "told"),
    [
        ("nabla_tau", {}, no_forget, "at least one record"),
        ("nabla_tau", {}, no_retain, "at least one record"),
        ("nabla_tau", {}, no_held_out, "needs a held-out set"),
        ("retrain", {}, no_recipe, "needs the recipe"),
        ("retrain", {"epochs": 2}, same, "epochs"),
        ("nabla_tau", {"learning_rate": "fast"}, same, "learning_rate"),
        ("fine_tune", {}, same, "fine_tune"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    digits_line: Line,
    tmp_path: Path,
    method: str,
    params: dict[str, Any],
    change: Callable[[Problem], Problem],
    told: str,
) -> None:
    with pytest.raises(BadParameters, match=told):
        run_attempt(method, params, change(digits_line.problem(10)), factories.context(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_attempt_leaves_nothing(digits_line: Line, tmp_path: Path) -> None:
    context = Context(torch.device("cpu"), cancelled=lambda: True)
    for method in ("retrain", "nabla_tau"):
        with pytest.raises(Cancelled):
            run_attempt(method, {}, digits_line.problem(10), context, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_base_without_a_record_is_served_too(digits_line: Line, tmp_path: Path) -> None:
    import shutil

    elsewhere = shutil.copytree(
        digits_line.base, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("training_record*")
    )
    problem = dataclasses.replace(digits_line.problem(20), base_dir=elsewhere, recipe=None)
    run_attempt("nabla_tau", QUICK, problem, factories.context(), tmp_path / "out")
    seen = read_exposures(tmp_path / "out").to_pydict()
    assert seen["record_id"] == problem.retain.ids.tolist()
    assert set(seen["exposures"]) == {None}


def test_problems_are_split_by_ids(digits_line: Line) -> None:
    def build(ids: list[str]) -> Problem:
        line = open_line(digits_line.base, "image-classification", digits_line.train, digits_line.held_out, "6b" * 32)
        return build_problem(line, ids, digits_line.recipe, "00" * 32, {})

    problem = build(["d00003", "d00001", "d00003"])
    assert problem.forget.ids.tolist() == ["d00001", "d00003"]
    assert len(problem.retain) == 898
    assert problem.selection is not None
    assert 0 < len(problem.selection) < len(digits_line.held_out) / 2
    with pytest.raises(BadParameters, match="empty"):
        build([])
    with pytest.raises(BadParameters, match="whole data set"):
        build(digits_line.train.ids.tolist())
    with pytest.raises(BadDataset, match="not in the data"):
        build(["nobody"])


def test_every_method_of_the_catalogue_can_be_resolved() -> None:
    from workers.planning.attempt import _resolve

    for spec in METHODS:
        assert callable(_resolve(find_method(spec.name)))
        assert spec.params().model_dump() is not None
