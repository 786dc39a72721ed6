"""Descent-to-Delete on a head: against its exact minimum, with the noise that its distance asks for."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from service.catalogue.families.influence import DescentToDeleteParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.convex_heads import head_weights, refitted, solved
from workers.methods.descent_to_delete import descended, descent_to_delete, noise_scale
from workers.modeling.editing import Edit
from workers.modeling.heads import head_data
from workers.modeling.problem import Meter
from workers.modeling.softmax import SoftmaxRegression

L2 = 1e-2


@pytest.fixture(scope="module")
def convex(digits_line: Line, tmp_path_factory: pytest.TempPathFactory) -> Line:
    return refitted(digits_line, tmp_path_factory.mktemp("convex") / "model", digits_line.train, L2)


def toy(l2: float = 0.05) -> SoftmaxRegression:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 5, generator=draw, dtype=torch.float64)
    return SoftmaxRegression(
        torch.cat([inputs, torch.ones(60, 1)], dim=1), torch.randint(0, 3, (60,), generator=draw), l2
    )


def test_its_gradient_is_that_of_the_loss() -> None:
    convex = toy()
    weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(convex.inputs @ weights.T, convex.targets)
    (loss + 0.025 * weights.square().sum()).backward()
    assert weights.grad is not None
    assert torch.allclose(weights.grad, convex.gradient(weights.detach()))


@pytest.mark.parametrize("steps", [5, 100, 1000])
def test_the_bound_on_the_distance_holds(steps: int) -> None:
    """Against the minimum by L-BFGS, for few and for many steps."""
    convex = toy()
    truth = solved(convex.inputs[:, :-1], convex.targets, 0.05, classes=3)
    weights, bound = descended(convex, torch.zeros(3, 6, dtype=torch.float64), steps, Meter(factories.context(), 1, ""))
    distance = float((weights - truth).norm())
    assert distance <= bound * (1 + 1e-6) + 1e-7
    assert steps < 1000 or bound < 1e-6


def test_the_noise_hides_the_distance() -> None:
    """rho = distance^2 / 2 sigma^2 spends epsilon at delta: rho + 2 sqrt(rho ln 1/delta) = epsilon."""
    sigma = noise_scale(0.3, 1.5, 1e-4)
    rho = 0.3**2 / (2 * sigma**2)
    assert rho + 2 * math.sqrt(rho * math.log(1e4)) == pytest.approx(1.5)


def test_it_ends_at_the_minimum_on_what_is_retained(convex: Line, tmp_path: Path) -> None:
    problem = convex.problem(100)
    edit = Edit(problem, EditParams(), factories.context())
    truth, before = solved(*head_data(edit, edit.retain), L2), head_weights(convex.base, problem)
    params = DescentToDeleteParams(l2=L2, steps=4000)
    outcome = descent_to_delete(problem, params, factories.context(2), tmp_path)
    after = head_weights(tmp_path, problem)
    assert float((after - truth).norm()) < 0.2 * float((before - truth).norm())
    assert measure(convex, tmp_path, problem).unseen < 1.05 * measure(convex, convex.base, problem).unseen
    assert "the layers below it are as they were" in outcome.notes[0]


def test_what_is_not_strongly_convex_is_refused(chat_line: Line, digits_line: Line, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        DescentToDeleteParams(l2=0.0)
    with pytest.raises(BadParameters, match="tied"):
        descent_to_delete(chat_line.problem(5), DescentToDeleteParams(), factories.context(), tmp_path)
    few = DescentToDeleteParams(l2=1e-6, steps=1)
    with pytest.raises(BadParameters, match="raise steps"):
        descent_to_delete(digits_line.problem(5), few, factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forget", [10, 270])
def test_small_and_large_requests_leave_the_model_useful(convex: Line, tmp_path: Path, forget: int) -> None:
    problem = convex.problem(forget)
    before = measure(convex, convex.base, problem)
    descent_to_delete(problem, DescentToDeleteParams(l2=L2), factories.context(), tmp_path)
    after = measure(convex, tmp_path, problem)
    assert after.unseen < 1.15 * before.unseen
    assert after.retain < before.retain + 0.1
    # What the layers below know of them stays: the known weakness.
    assert after.forget < after.unseen


def test_naming_nobody_who_was_there_changes_little(convex: Line, tmp_path: Path) -> None:
    problem = convex.problem(1)
    null = dataclasses.replace(problem, forget=convex.certification, retain=convex.train)
    before = head_weights(convex.base, problem)
    descent_to_delete(null, DescentToDeleteParams(l2=L2, steps=4000), factories.context(), tmp_path)
    assert float((head_weights(tmp_path, problem) - before).norm()) < 0.05 * float(before.norm())
