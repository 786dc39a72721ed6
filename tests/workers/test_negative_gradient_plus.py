"""Capped NegGrad+: its loss against a closed form, a bounded push whatever the size, and what it moves."""

from pathlib import Path

import pytest
import torch

from service.catalogue.families.descent import NegativeGradientPlusParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.negative_gradient_plus import capped_ascent, negative_gradient_plus
from workers.modeling.descent import Targets


def test_a_record_at_its_cap_adds_no_gradient() -> None:
    targets = Targets(torch.tensor([1.0, 1.0]), 0.5)
    losses = torch.tensor([0.25, 3.0], requires_grad=True)
    loss = capped_ascent(losses, targets, 0.0)
    assert float(loss.detach()) == pytest.approx(-(0.25 + 1.0) / 2)
    loss.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [-0.5, 0.0]
    assert float(capped_ascent(torch.tensor([0.25, 3.0]), targets, 2.0)) == pytest.approx(-(0.25 + 2.0) / 2)


@pytest.mark.parametrize(("kind", "forget"), [("digits_line", 200), ("chat_line", 75)])
def test_memorised_records_are_raised_and_the_rest_is_kept(
    kind: str, forget: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    line: Line = request.getfixturevalue(kind)
    problem = line.problem(forget)
    before = measure(line, line.base, problem)
    negative_gradient_plus(problem, NegativeGradientPlusParams(), factories.context(1), tmp_path)
    after = measure(line, tmp_path, problem)
    assert abs(after.auc - 0.5) < before.auc - 0.5
    assert after.unseen < 1.25 * before.unseen
    assert after.retain < after.forget


def test_ten_records_do_not_destroy_the_model(digits_line: Line, tmp_path: Path) -> None:
    """Uncapped, the same ten records ascended at every step end at ten times the loss of a retrain."""
    problem = digits_line.problem(10)
    before = measure(digits_line, digits_line.base, problem)
    negative_gradient_plus(problem, NegativeGradientPlusParams(), factories.context(1), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.unseen < 1.3 * before.unseen
    assert before.forget < after.forget < 6
