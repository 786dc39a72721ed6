"""Controlled ascent: plain ascent against plain torch, each control alone, and what remains of its failure."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.baselines import ControlledAscentParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.controlled_ascent import controlled_ascent, freeze, go_back
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.sensitivity import weights_of

CPU = torch.device("cpu")
PLAIN = {"bound": "none", "tolerance": None}


def test_without_controls_it_is_gradient_ascent(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(20)
    params = ControlledAscentParams.model_validate({**PLAIN, "learning_rate": 1e-4, "forget_batch": 10, "passes": 1})
    outcome = controlled_ascent(problem, params, factories.context(3), tmp_path)
    got = load_model(tmp_path, "image-classification", CPU).model
    assert (outcome.steps, outcome.backward_passes, outcome.notes) == (2, 2, [])

    other = Edit(problem, params, factories.context(3))
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-4, weight_decay=0.0)
    for step, rate in zip(other.over_forgotten(1), (1e-4, 0.55e-4), strict=True):
        batch = other.forget.batch(step.forget, CPU)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        logits = other.model(pixel_values=batch["pixel_values"]).logits
        (-torch.nn.functional.cross_entropy(logits, batch["labels"])).backward()
        optimizer.step()
    for own, expected in zip(got.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)


def test_a_share_of_the_weights_is_counted_from_the_output() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 3))
    freeze(model, 0.45)
    # 3 + 30 of 83 weights fit into 0.45 of them, the 10 of the next bias do not.
    assert [weight.requires_grad for weight in model.parameters()] == [False, False, True, True]
    freeze(model, 0.01)
    assert [weight.requires_grad for weight in model.parameters()] == [False, False, False, True]


def test_frozen_weights_stay_bit_for_bit(digits_line: Line, tmp_path: Path) -> None:
    params = ControlledAscentParams.model_validate({**PLAIN, "share": 0.01, "passes": 2})
    controlled_ascent(digits_line.problem(32), params, factories.context(1), tmp_path)
    served, edited = (load_model(at, "image-classification", CPU).model for at in (digits_line.base, tmp_path))
    moved = [not torch.equal(old, new) for old, new in zip(served.parameters(), edited.parameters(), strict=True)]
    assert sum(moved) >= 2
    assert moved == sorted(moved)


def test_the_way_back_ends_just_where_the_limit_is(digits_line: Line) -> None:
    """The bare head of a model: the largest share of a move at which a set's mean loss stays under a limit."""
    problem = digits_line.problem(40)
    edit = Edit(problem, ControlledAscentParams(), factories.context())
    freeze(edit.model, 0.001)
    served = [weight.detach().clone() for weight in weights_of(edit)]
    part = Encoded(edit.task, problem.forget)

    def moved(a: float) -> float:
        with torch.no_grad():
            for weight, old in zip(weights_of(edit), served, strict=True):
                weight.copy_(old * (1 + 4 * a))
        return float(record_losses(edit.model, part, CPU, 256)[0].mean())

    limit = moved(0.3)
    grid = np.arange(0, 1.0001, 0.02)
    exact = max(a for a in grid if moved(float(a)) <= limit + 1e-9)
    moved(1.0)
    taken = go_back(edit, served, part, limit)
    assert taken == pytest.approx(exact, abs=0.02)
    assert record_losses(edit.model, part, CPU, 256)[0].mean() <= limit
    moved(1.0)
    assert go_back(edit, served, part, 1e6) == 1.0


@pytest.mark.parametrize("size", [1e30, float("inf")])
def test_a_model_that_went_beyond_all_numbers_steps_back(digits_line: Line, size: float) -> None:
    edit = Edit(digits_line.problem(40), ControlledAscentParams(), factories.context())
    served = [weight.detach().clone() for weight in weights_of(edit)]
    before = edit.mean_loss(edit.forget)
    with torch.no_grad():
        weights_of(edit)[0].mul_(size)
        weights_of(edit)[-2].mul_(size)
    assert edit.mean_loss(edit.forget) == float("inf")
    assert go_back(edit, served, edit.forget, before + 0.05) < 0.01
    assert edit.mean_loss(edit.forget) <= before + 0.05


@pytest.mark.parametrize(("kind", "forget"), [("digits_line", 10), ("digits_line", 270), ("chat_line", 30)])
def test_retained_records_are_kept_whatever_is_forgotten(
    kind: str, forget: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Plain ascent ruins the model at the same rate and length; with controls what is kept loses 0.05 nats at most."""
    line: Line = request.getfixturevalue(kind)
    problem = line.problem(forget)
    before = measure(line, line.base, problem)
    after = {}
    for name, given in (("controlled", {}), ("plain", PLAIN)):
        (tmp_path / name).mkdir()
        params = ControlledAscentParams.model_validate({"passes": 4, **given})
        controlled_ascent(problem, params, factories.context(1), tmp_path / name)
        after[name] = measure(line, tmp_path / name, problem)
    # The sample it measures is not the whole set.
    assert after["controlled"].retain < before.retain + 0.07
    assert before.forget < after["controlled"].forget
    assert after["plain"].forget >= after["controlled"].forget - 0.01
    assert after["controlled"].unseen < before.unseen + 0.15
