"""Rounding to fewer bits: how far a weight moves, what a small update survives, what a model keeps of its accuracy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from service.catalogue.precisions import PRECISIONS
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.loading import load_model
from workers.modeling.rounding import channel_axis, rounded, step_sizes
from workers.scoring.score import score

CPU = torch.device("cpu")


def layers() -> nn.Sequential:
    """One of each kind, with channels of very different sizes."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Embedding(12, 8), nn.Linear(8, 6), Conv1D(5, 6), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3),
        nn.BatchNorm2d(4), nn.LayerNorm(5),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
        made[1].weight.mul_(10.0 ** torch.arange(-3, 3).unsqueeze(1))
        made[1].weight[2] = 0.0
        made[5].running_mean.normal_()
    return made


@pytest.mark.parametrize(("precision", "levels"), [("int8", 127), ("int4", 7)])
def test_a_weight_moves_by_half_a_step_of_its_channel_at_most(precision: str, levels: int) -> None:
    before = layers()
    after = rounded(before, precision)
    for index, axis in enumerate((0, 0, 1, 0, 1)):
        old, new = before[index].weight.detach(), after[index].weight.detach()
        assert channel_axis(before[index]) == axis
        for channel in range(old.shape[axis]):
            left, right = old.select(axis, channel), new.select(axis, channel)
            step = float(left.abs().max()) / levels
            moved = float((right - left).abs().max())
            assert moved <= step / 2 * (1 + 1e-5)
            if step > 0:
                multiples = right / step
                assert torch.allclose(multiples, multiples.round(), atol=1e-4)
                assert len(torch.unique(multiples.round())) <= 2 * levels + 1
                assert moved > 0.05 * step


def test_what_is_not_a_weight_stays_and_so_does_the_model_given() -> None:
    before = layers()
    kept = copy.deepcopy(before.state_dict())
    for precision in PRECISIONS:
        after = rounded(before, precision).state_dict()
        assert list(after) == list(kept)
        assert all(after[name].dtype == value.dtype for name, value in kept.items())
        for name in ("5.running_mean", "5.running_var", "5.num_batches_tracked"):
            assert torch.equal(after[name], kept[name])
        if precision != "bf16":
            for name in ("1.bias", "2.bias", "5.weight", "6.weight", "6.bias"):
                assert torch.equal(after[name], kept[name])
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())
    full = rounded(before, "fp32").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in full.items())
    with pytest.raises(BadParameters, match="int3"):
        rounded(before, "int3")


def test_bfloat16_keeps_eight_significant_bits_of_every_parameter() -> None:
    before = layers()
    after = dict(rounded(before, "bf16").named_parameters())
    for name, value in before.named_parameters():
        assert torch.equal(after[name], value.to(torch.bfloat16).float())
        assert bool(((after[name] - value).abs() <= value.abs() * 2**-8).all())
    assert not torch.equal(after["1.weight"], before[1].weight)


def test_the_share_of_weights_that_an_update_still_changes_is_its_size_over_the_step() -> None:
    """An update of 1e-3 on a step of 0.0131: 0.0763 by the formula, so that 92 % of it is undone."""
    draw = np.random.default_rng(0)
    step, update = 0.0131, 1e-3
    weight = draw.normal(0, 0.025, (400, 500)).clip(-6.5 * step, 6.5 * step)
    weight[:, 0] = 7 * step  # the channel's largest, which sets its step and is left alone
    change = update * draw.choice([-1, 1], weight.shape)
    change[:, 0] = 0.0
    before, after = nn.Linear(500, 400, bias=False), nn.Linear(500, 400, bias=False)
    with torch.no_grad():
        before.weight.copy_(torch.from_numpy(weight))
        after.weight.copy_(torch.from_numpy(weight + change))
    assert step_sizes(before.weight, "int4").flatten().numpy() == pytest.approx(np.full(400, step), rel=1e-5)
    old, new = (rounded(layer, "int4").weight.detach().numpy() for layer in (before, after))
    share = float(np.mean(np.abs(new - old)[:, 1:] > step / 2))
    expected = update / step
    assert expected == pytest.approx(0.0763, abs=5e-5)
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / weight.size))
    eight = np.mean(rounded(before, "int8").weight.detach().numpy() != rounded(after, "int8").weight.detach().numpy())
    assert eight > 0.9  # at eight bits the same update is more than a step


def test_shared_weights_are_rounded_once_and_stay_shared() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    made = rounded(model, "int4")
    first, second = made.get_input_embeddings().weight, made.get_output_embeddings().weight
    assert first is second
    assert first is not model.get_input_embeddings().weight
    step = step_sizes(model.get_input_embeddings().weight, "int4")
    assert torch.equal(first, step * torch.round(model.get_input_embeddings().weight / step))


def test_eight_bits_change_the_accuracy_of_a_small_resnet_little_and_four_more(digits_line: Line) -> None:
    loaded = load_model(digits_line.base, "image-classification", CPU)

    def losses(precision: str) -> tuple[float, np.ndarray]:
        model = load_model(digits_line.base, "image-classification", CPU)
        model.model = rounded(loaded.model, precision)
        table = score(model, digits_line.held_out, factories.context()).table
        return float(np.mean(table["correct"])), np.asarray(table["loss"])

    full, full_losses = losses("fp32")
    assert full > 0.7
    moved = {}
    for precision in PRECISIONS:
        accuracy, found = losses(precision)
        moved[precision] = float(np.abs(found - full_losses).mean())
        if precision != "int4":
            assert accuracy == pytest.approx(full, abs=0.01)
    assert moved["int4"] > 3 * moved["int8"] > 0
