"""NPO and SimNPO: their losses against closed forms, two steps against plain torch."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.catalogue.families.language import NpoParams, SimNpoParams
from tests.workers.by_hand import SETTINGS_FREE, Parts, run_beside
from tests.workers.conftest import Line
from workers.methods.npo import npo, preference
from workers.methods.simnpo import simnpo, simple_preference


def test_npo_starts_as_ascent_and_ends_without_force() -> None:
    """L = (2 / beta) log(1 + (p / p_served)^beta), whose slope in the text's loss is -2 sigmoid(-beta * gap)."""
    gap = torch.tensor([0.0, 5.0, 200.0], requires_grad=True)
    values = preference(gap, 0.1)
    assert values.tolist() == pytest.approx([20 * math.log1p(math.exp(-0.1 * g)) for g in (0, 5, 200)], abs=1e-5)
    values.sum().backward()
    assert gap.grad is not None
    assert gap.grad.tolist() == pytest.approx([-1.0, -2 / (1 + math.exp(0.5)), 0.0], abs=1e-6)


def test_simnpo_pushes_by_the_token() -> None:
    losses = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    values = simple_preference(losses, 4.5, 1.0)
    assert values.tolist() == pytest.approx(
        [2 / 4.5 * math.log1p(math.exp(-4.5 * (loss - 1))) for loss in (0, 1, 3)], abs=1e-6
    )
    values.sum().backward()
    assert losses.grad is not None
    assert losses.grad[1] == pytest.approx(-1.0)
    assert abs(float(losses.grad[2])) < 3e-4


def training_loss(retain: list[Parts]) -> Tensor:
    return torch.cat([part.losses for part in retain]).mean()


def npo_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    odds = torch.stack([(part.served_losses.sum() - part.losses.sum()).exp() for part in forget])
    return 0.5 * (2 / 0.1 * torch.log1p(odds**0.1)).mean() + training_loss(retain)


def npo_kl_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    odds = torch.stack([(part.served_losses.sum() - part.losses.sum()).exp() for part in forget])
    return (2 / 0.1 * torch.log1p(odds**0.1)).mean() + torch.cat([part.kl for part in retain]).mean()


def simnpo_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    pushed = [2 / 4.5 * torch.log1p(torch.exp(-4.5 * (part.losses.mean() - 0.3))) for part in forget]
    return 0.125 * torch.stack(pushed).mean() + training_loss(retain)


def test_two_steps_of_npo_are_those_of_a_bare_loop(chat_line: Line, tmp_path: Path) -> None:
    outcome = run_beside(npo, NpoParams(**SETTINGS_FREE, gamma=0.5), npo_term, chat_line, tmp_path)
    # Two batches a step, and one pass for what the served model says of the forgotten texts: no second model.
    assert outcome.forward_passes == 2 * 2 + 1


def test_two_steps_of_npo_with_kl(chat_line: Line, tmp_path: Path) -> None:
    params = NpoParams(**SETTINGS_FREE, gamma=1.0, retain_term="kl")
    assert run_beside(npo, params, npo_kl_term, chat_line, tmp_path).forward_passes == 3 * 2 + 1


def test_two_steps_of_simnpo_are_those_of_a_bare_loop(chat_line: Line, tmp_path: Path) -> None:
    params = SimNpoParams(**SETTINGS_FREE, delta=0.3)
    assert run_beside(simnpo, params, simnpo_term, chat_line, tmp_path).forward_passes == 2 * 2
