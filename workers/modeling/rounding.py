"""Weights as a served model of fewer bits would hold them, simulated in float32: round to nearest.

Rounding can bring back what an edit took away: an update smaller than half a step is rounded off again, and the weight
is the original's (Zhang et al., arXiv 2410.16454: 21 % of the forgotten knowledge kept at full precision, 83 % at four
bits). The share of weights whose rounded value an update d changes is |d| / step.

int8 and int4 are symmetric, one step for each output channel c (for an embedding: each row):

    step_c = max |W_c| / (2^(bits - 1) - 1),    W_c <- step_c * round(W_c / step_c)

of dense layers, convolutions and embeddings; biases, normalisations and buffers keep float32. bf16 rounds every
parameter to bfloat16; buffers stay. Not simulated: activations of fewer bits, arithmetic in bfloat16, groups of weights
with a step of their own, and calibrated schemes (GPTQ, AWQ), which choose values other than the nearest.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from service.catalogue.precisions import check_precision

_BITS = {"int8": 8, "int4": 4}

Model = TypeVar("Model", bound=nn.Module)


def rounded(model: Model, precision: str) -> Model:
    """A copy of the model with its weights rounded to "bf16", "int8" or "int4"; `model` stays as it is.

    The names and types of its state stay too, shared weights stay shared, "fp32" changes nothing. Raises BadParameters
    for another precision.
    """
    check_precision(precision)
    made = copy.deepcopy(model)
    if precision == "bf16":
        _to_bfloat16(made)
    elif precision in _BITS:
        _to_integers(made, precision)
    return made


@torch.no_grad()
def _to_bfloat16(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.copy_(parameter.to(torch.bfloat16))


@torch.no_grad()
def _to_integers(model: nn.Module, precision: str) -> None:
    done: set[int] = set()
    for module in model.modules():
        axis = channel_axis(module)
        if axis is None or id(module.weight) in done:
            continue
        weight = module.weight
        assert isinstance(weight, Tensor)  # noqa: S101  (channel_axis names layers that have one)
        done.add(id(weight))
        steps = step_sizes(weight, precision, axis)
        # A channel of zeros has no step, and nothing to round.
        weight.copy_(torch.where(steps > 0, steps * torch.round(weight / steps), weight))


def channel_axis(module: nn.Module) -> int | None:
    """The axis of a layer's weight along which its output channels lie; None for a layer that is not rounded."""
    if isinstance(module, Conv1D):
        return 1  # transformers' dense layer of GPT-2 keeps its weight as [in, out]
    if isinstance(module, _ConvNd):
        return 1 if module.transposed else 0
    return 0 if isinstance(module, nn.Linear | nn.Embedding) else None


def step_sizes(weight: Tensor, precision: str, axis: int = 0) -> Tensor:
    """The step of each channel of a weight, for "int8" or "int4": of its shape, with 1 on every axis but `axis`."""
    others = [at for at in range(weight.ndim) if at != axis]
    largest = weight.detach().abs().amax(dim=others, keepdim=True)
    highest = 2.0 ** (_BITS[precision] - 1) - 1
    return largest / highest
