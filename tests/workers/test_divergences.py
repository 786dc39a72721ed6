"""Divergences between answers, against torch's own and closed forms."""

import math

import pytest
import torch

from workers.modeling.divergences import jensen_shannon, jensen_shannon_to_one, kullback_leibler


def answers(seed: int, rows: int = 6, classes: int = 9) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, classes, generator=draw)).log_softmax(1)


def test_kullback_leibler_is_torch_s() -> None:
    first, second = answers(0), answers(1)
    expected = torch.nn.functional.kl_div(second, first, log_target=True, reduction="none").sum(1)
    assert torch.allclose(kullback_leibler(first, second), expected, atol=1e-6)
    assert kullback_leibler(first, first).abs().max() < 1e-6


def test_jensen_shannon_is_symmetric_and_at_most_log_2() -> None:
    first, second = answers(2), answers(3)
    forth, back = jensen_shannon(first, second), jensen_shannon(second, first)
    assert torch.allclose(forth, back, atol=1e-6)
    assert (forth > 0).all()
    assert (forth < math.log(2)).all()
    apart = torch.tensor([[0.0, -80.0], [-80.0, 0.0]])
    assert jensen_shannon(apart, apart.flip(0)).tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    assert jensen_shannon(first, first).abs().max() < 1e-6


def test_certainty_of_one_class_has_a_closed_form() -> None:
    found = answers(4)
    certain = torch.full_like(found, -80.0)
    certain[:, 5] = 0.0
    assert torch.allclose(jensen_shannon_to_one(found[:, 5]), jensen_shannon(found, certain), atol=1e-5)
    assert float(jensen_shannon_to_one(torch.tensor([0.0]))) == pytest.approx(0.0, abs=1e-6)
    assert float(jensen_shannon_to_one(torch.tensor([-80.0]))) == pytest.approx(math.log(2))
