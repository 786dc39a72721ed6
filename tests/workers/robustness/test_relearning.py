"""Relearning on real models: an edit that hides is found out, a retrain is not, and a curve repeats itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import Cancelled, Unevaluable
from service.verification.statistics import NotMeasurable
from tests.workers.factories import context
from tests.workers.robustness.conftest import World
from workers.metrics.relearning import Excess
from workers.modeling.loading import LoadedModel
from workers.robustness.readings import read_scores
from workers.robustness.relearning import Recovery, RelearningPlan, excess, halves, plan_relearning, relearn
from workers.scoring.score import score


def recovered(world: World, loaded: LoadedModel, **changes: Any) -> Recovery:
    parts = halves(world.forget, 0)
    assert isinstance(parts, tuple)
    plan = replace(plan_relearning("image-classification", world.recipe), **changes)
    found = relearn(loaded, *parts, plan, context())
    assert isinstance(found, Recovery)
    return found


def interval(step: int, candidate: Recovery, references: list[Recovery]) -> tuple[float, float]:
    found = excess(step, candidate, references)
    assert isinstance(found, Excess)
    return found.interval(0.95)


def test_halves_share_no_person_and_leave_nobody_out(world: World) -> None:
    parts = halves(world.forget, 0)
    assert isinstance(parts, tuple)
    taught, asked = parts
    assert not set(taught.subjects.tolist()) & set(asked.subjects.tolist())
    assert sorted([*taught.ids.tolist(), *asked.ids.tolist()]) == sorted(world.forget.ids.tolist())
    assert len(set(taught.subjects.tolist())) == 7
    again = halves(world.forget, 0)
    other = halves(world.forget, 1)
    assert isinstance(again, tuple)
    assert isinstance(other, tuple)
    assert again[0].ids.tolist() == taught.ids.tolist() != other[0].ids.tolist()
    few = halves(world.forget.subset(range(30)), 0)
    assert isinstance(few, NotMeasurable)
    assert "3 people" in few.reason


def test_what_was_hidden_comes_back_and_a_retrain_knows_no_more_than_others(world: World, third: Path) -> None:
    references = [recovered(world, world.load(directory)) for directory in (*world.retrained, third)]
    original = world.load(world.original)
    hidden, untouched = recovered(world, world.hidden(original, 0.2)), recovered(world, original)
    # Before any step the edit looks like forgetting, or more than that.
    assert interval(0, hidden, references)[0] < 0.0
    assert interval(20, hidden, references)[0] > 0.0
    assert interval(20, untouched, references)[0] > 0.0
    assert interval(0, untouched, references)[0] > 0.0
    for step in (0, 5, 20, 50):
        for left_out in range(3):
            others = [one for at, one in enumerate(references) if at != left_out]
            low, high = interval(step, references[left_out], others)
            assert low < 0.0 < high
    assert max(hidden.curve[1:]) > hidden.curve[0] + 0.1
    nobody = excess(20, hidden, [])
    assert isinstance(nobody, NotMeasurable)


def test_a_curve_begins_where_the_model_stands_and_leaves_it_there(world: World) -> None:
    loaded = world.load(world.original)
    weights = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    first, again = (recovered(world, loaded, steps=(1, 3)) for _ in range(2))
    parts = halves(world.forget, 0)
    assert isinstance(parts, tuple)
    plain = read_scores(score(loaded, parts[1], context()).table)
    assert first.steps == (0, 1, 3)
    assert np.array_equal(first.at(0), plain.accuracy)
    assert np.array_equal(first.membership[0], plain.membership)
    assert np.array_equal(first.membership, again.membership)
    assert first.curve[0] == pytest.approx(plain.accuracy.mean())
    assert first.scores[0] == pytest.approx(plain.membership.mean())
    assert not np.array_equal(first.membership[0], first.membership[1])
    assert (first.forward_passes, first.backward_passes) == (3 + 3, 3)
    assert all(torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items())


def test_the_plan_follows_the_recipe(world: World) -> None:
    plan = plan_relearning("image-classification", world.recipe)
    assert (plan.learning_rate, plan.batch_size, plan.steps) == (pytest.approx(1e-3), 32, (5, 20, 50))
    momentum = world.recipe.model_copy(
        update={"training": world.recipe.training.model_copy(update={"optimizer": "sgd", "learning_rate": 0.5})}
    )
    assert plan_relearning("image-classification", momentum).learning_rate == 1e-3
    assert plan_relearning("causal-lm", None) == RelearningPlan(3e-4, 16)


def test_a_model_that_comes_apart_is_said_to_and_cancelling_ends_it(world: World) -> None:
    loaded = world.load(world.original)
    taught, asked = world.forget.subset(range(60)), world.forget.subset(range(60, 150))
    wild = relearn(loaded, taught, asked, RelearningPlan(1e30, 32, (5, 20)), context())
    assert isinstance(wild, NotMeasurable)
    assert "while relearning" in wild.reason
    with pytest.raises(Cancelled):
        relearn(loaded, taught, asked, RelearningPlan(1e-3, 32), replace(context(), cancelled=lambda: True))
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(float("nan"))
    with pytest.raises(Unevaluable, match="not finite"):
        relearn(loaded, taught, asked, RelearningPlan(1e-3, 32), context())
