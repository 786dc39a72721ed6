"""The shared loop: targets and forget terms against closed forms, schedules for every size, and its stops."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from service.catalogue.families.descent import DescentParams, NablaTauParams
from service.errors import BadParameters, Cancelled, JobError
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.descent import Targets, descend, plan_descent, target_losses
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Outcome, Problem

CPU = torch.device("cpu")


def run(problem: Problem, params: DescentParams, context: Context | None = None, push: float = 0.0) -> Outcome:
    loaded = load_model(problem.base_dir, problem.task_name, CPU)

    def term(losses: torch.Tensor, targets: Targets) -> torch.Tensor:
        return push * (targets.losses - losses).mean()

    return descend(loaded, problem, params, term, lambda fraction: 0.5, context or factories.context())


def test_targets_are_the_mean_or_the_loss_of_the_same_rank() -> None:
    forget, selection = np.array([0.3, 0.1, 0.2]), np.array([9.0, 1.0, 2.0, 3.0, 5.0])
    assert target_losses("mean", forget, selection).tolist() == [4.0] * 3
    # Ranks 2, 0, 1 of 3: quantiles 5/6, 1/6, 1/2 of the selection losses, linear between order statistics.
    assert target_losses("quantile", forget, selection) == pytest.approx([5 + 4 * (10 / 3 - 3), 1 + 2 / 3, 3.0])


def test_schedules_fill_in_from_the_recipe_and_raise_small_sets(digits_line: Line) -> None:
    problem = digits_line.problem(200)
    planned = plan_descent(problem, DescentParams())
    assert planned.learning_rate == pytest.approx(2e-3)
    assert (planned.passes, planned.steps, planned.forget_batch, planned.retain_batch) == (12, 84, 32, 32)
    small = plan_descent(digits_line.problem(3), DescentParams())
    assert (small.passes, small.steps, small.forget_batch) == (36, 36, 3)
    chosen = plan_descent(problem, DescentParams(passes=2, learning_rate=0.5, forget_batch=50, retain_batch=7))
    assert (chosen.passes, chosen.steps, chosen.learning_rate, chosen.retain_batch) == (2, 8, 0.5, 7)
    unknown = plan_descent(dataclasses.replace(problem, recipe=None), DescentParams())
    assert (unknown.learning_rate, unknown.passes) == (1e-3, 12)


def test_costs_and_curve_are_counted(digits_line: Line) -> None:
    problem = digits_line.problem(100)
    outcome = run(problem, NablaTauParams(passes=4, refresh=2, forget_batch=50), push=1.0)
    assert outcome.steps == 8
    assert outcome.backward_passes == 16
    # Eight steps of two batches; forget set, selection twice and a retain sample before and, once each, after.
    assert outcome.forward_passes == 16 + (1 + 2 + 1) + 3
    assert [point["step"] for point in outcome.curve] == list(range(9))
    assert all(set(point) == {"step", "forget_loss", "selection_loss", "retain_loss"} for point in outcome.curve)
    assert all(math.isfinite(value) for point in outcome.curve for value in point.values())


def test_long_runs_keep_about_fifty_points(digits_line: Line) -> None:
    outcome = run(digits_line.problem(8), NablaTauParams(passes=150, min_steps=150), push=1.0)
    assert 45 <= len(outcome.curve) <= 80


def test_it_stops_where_nothing_lies_below_its_target(digits_line: Line) -> None:
    """Hard records to forget and easy ones to compare with: after the least number of steps there is nothing to do."""
    problem = digits_line.problem(60)
    loaded = load_model(problem.base_dir, problem.task_name, CPU)
    losses, _ = record_losses(loaded.model, Encoded(loaded.task, problem.retain), CPU, 256)
    ranked = np.argsort(losses)
    easy, hard = (problem.retain.subset(rows.tolist()) for rows in (ranked[:20], ranked[-40:]))
    params = NablaTauParams(target="mean", learning_rate=1e-6, passes=40, forget_batch=20, min_steps=20)
    outcome = run(dataclasses.replace(problem, forget=hard, selection=easy), params)
    assert plan_descent(problem, params).steps > 22
    assert outcome.steps == 22
    assert "before the last pass" in outcome.notes[0]


def test_cancellation_no_selection_and_a_wild_rate_end_it(digits_line: Line) -> None:
    problem = digits_line.problem(64)
    with pytest.raises(Cancelled):
        run(problem, DescentParams(), Context(CPU, cancelled=lambda: True))
    with pytest.raises(BadParameters, match="held-out"):
        run(dataclasses.replace(problem, selection=None), DescentParams())
    with pytest.raises(JobError, match=r"at step \d+|not finite"):
        run(problem, DescentParams(), push=math.inf)


def test_the_same_seed_gives_the_same_curve(chat_line: Line) -> None:
    problem, params = chat_line.problem(20), NablaTauParams(passes=2, min_steps=1)
    curves = [run(problem, params, factories.context(seed), push=1.0).curve for seed in (1, 1, 2)]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_parameter_models_refuse_what_they_do_not_know() -> None:
    assert issubclass(DescentParams, BaseModel)
    for wrong in ({"alfa": 1}, {"passes": 0}, {"target": "median"}, {"learning_rate": -1}):
        with pytest.raises(ValueError, match="validation error"):
            NablaTauParams.model_validate(wrong)
