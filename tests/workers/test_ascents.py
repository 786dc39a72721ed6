"""Ascent with a held retain set (GradDiff, KL minimisation, WGA): two steps against plain torch, for both tasks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.families.language import GradDiffParams, KlMinParams, WgaParams
from tests.workers import factories
from tests.workers.by_hand import SETTINGS_FREE, Parts, run_beside
from tests.workers.conftest import Line
from workers.methods.grad_diff import grad_diff
from workers.methods.kl_min import kl_min
from workers.methods.wga import weighted, wga

LINES = ["digits_line", "chat_line"]


def training_loss(retain: list[Parts]) -> Tensor:
    """The mean over predictions, as both tasks train."""
    return torch.cat([part.losses for part in retain]).mean()


def grad_diff_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    return 0.7 * training_loss(retain) - 0.5 * torch.stack([part.losses.mean() for part in forget]).mean()


def kl_min_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    kept = torch.cat([part.kl for part in retain]).mean()
    return 2.0 * kept - torch.stack([part.losses.mean() for part in forget]).mean()


def wga_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    pushed = []
    for part in forget:
        sure = part.logits.softmax(1).gather(1, part.targets[:, None])[:, 0].detach()
        pushed.append((sure**0.5 * part.losses).mean())
    return training_loss(retain) - torch.stack(pushed).mean()


CASES: list[Any] = [
    (grad_diff, GradDiffParams, {"alpha": 0.7, "gamma": 0.5}, grad_diff_term),
    (kl_min, KlMinParams, {"alpha": 2.0}, kl_min_term),
    (wga, WgaParams, {"beta": 0.5}, wga_term),
]


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_two_steps_are_those_of_a_bare_loop(
    case: Any, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    method, made, own, term = case
    line: Line = request.getfixturevalue(kind)
    outcome = run_beside(method, made(**SETTINGS_FREE, **own), term, line, tmp_path)
    assert (outcome.steps, outcome.backward_passes) == (2, 2)


def test_grad_diff_with_kl_is_kl_minimisation(chat_line: Line, tmp_path: Path) -> None:
    problem, weights = chat_line.problem(10), {}
    runs = [(grad_diff, GradDiffParams(**SETTINGS_FREE, retain_term="kl")), (kl_min, KlMinParams(**SETTINGS_FREE))]
    for method, params in runs:
        out = tmp_path / method.__name__
        out.mkdir()
        method(problem, params, factories.context(1), out)  # type: ignore[operator]
        weights[method.__name__] = (out / "model.safetensors").read_bytes()
    assert weights["grad_diff"] == weights["kl_min"]


def test_a_prediction_is_weighed_by_its_probability_without_gradient() -> None:
    losses = torch.tensor([0.0, 1.0, 5.0], requires_grad=True)
    weighted(losses, 2.0).sum().backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([1.0, 0.135335, 0.0000454], rel=1e-3)
    assert weighted(losses, 0.0).tolist() == losses.tolist()


def test_without_a_retain_term_no_pass_is_made_for_it(chat_line: Line, tmp_path: Path) -> None:
    params = WgaParams(**SETTINGS_FREE, alpha=0.0)
    outcome = wga(chat_line.problem(10), params, factories.context(), tmp_path)
    assert outcome.forward_passes == 2
