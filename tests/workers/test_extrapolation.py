"""Extrapolation: the search by hand, the straight line by arithmetic, and what it does to memorised records."""

from pathlib import Path

import pytest
import torch

from service.catalogue.families.language import ExtrapolationParams
from service.errors import JobError
from tests.workers import factories
from tests.workers.conftest import Line
from workers.methods.extrapolation import extrapolation, furthest, go_opposite
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.retaining import RetainTerm


@pytest.mark.parametrize("edge", [0.013, 0.7, 1.0, 5.3, 63.0])
def test_the_search_comes_near_the_edge_from_below(edge: float) -> None:
    found = furthest(lambda strength: strength > edge, 64.0, 12)
    assert found <= edge
    assert found == pytest.approx(edge, rel=0.02)


def test_the_search_is_bounded_on_both_sides() -> None:
    assert furthest(lambda strength: False, 3.0, 8) == 3.0
    assert furthest(lambda strength: True, 64.0, 8) == 0.0


def test_the_result_lies_on_the_line_through_the_memorising_model(chat_line: Line, tmp_path: Path) -> None:
    problem, params = chat_line.problem(75), ExtrapolationParams(passes=2, most=0.25)
    outcome = extrapolation(problem, params, factories.context(1), tmp_path)
    assert outcome.notes == ["went 0.25 times as far as the way of memorising, in the opposite direction"]
    edit = Edit(problem, params, factories.context(1))
    retain = RetainTerm(edit, "kl", 1.0)
    before = edit.measure(edit.forget).mean()
    edit.run(edit.over_forgotten(2), lambda step: edit.objective(edit.forget, step.forget) + retain(step.retain))
    knowing = dict(edit.model.named_parameters())
    device = torch.device("cpu")
    served, got = (
        dict(load_model(d, "causal-lm", device).model.named_parameters()) for d in (chat_line.base, tmp_path)
    )
    for name, value in got.items():
        assert torch.allclose(value, served[name] - 0.25 * (knowing[name] - served[name]), atol=1e-5)
    assert edit.measure(edit.forget).mean() < before - 0.01


@pytest.mark.parametrize("size", [1e30, float("inf")])
def test_a_strength_beyond_all_numbers_is_too_far(chat_line: Line, size: float) -> None:
    """A way so long that its first tries leave nothing finite: the search comes back instead of ending."""
    params = ExtrapolationParams(rounds=12)
    edit = Edit(chat_line.problem(20), params, factories.context())
    served = {weight: weight.detach().clone() for weight in edit.model.parameters()}
    limit = 1.2 * edit.mean_loss(edit.forget)
    head = next(edit.model.parameters())
    with torch.no_grad():
        head.mul_(size)
    assert edit.mean_loss(edit.forget) == float("inf")
    with pytest.raises(JobError, match="not finite"):
        edit.measure(edit.forget)
    assert go_opposite(edit, served, edit.forget, limit, params) < 1e-3
    assert edit.mean_loss(edit.forget) <= limit
