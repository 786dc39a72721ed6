"""Convolutions of a network, and normalisation statistics after something was done to them."""

from collections.abc import Sequence

import torch
from torch import nn

from workers.modeling.editing import Edit, Step

_MOSTLY = 0.5


def square_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Two-dimensional convolutions with as many rows as columns, more than one."""
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [module for module in found if module.weight.shape[2] == module.weight.shape[3] > 1]


def mostly_convolutional(model: nn.Module) -> bool:
    """Whether at least half of the weights in kernels and matrices are in convolutions: not so of a vision
    transformer, whose one convolution cuts the picture into patches."""
    matrices = sum(weight.numel() for weight in model.parameters() if weight.ndim >= 2)
    kernels = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d))
    return kernels > 0 and kernels >= _MOSTLY * matrices


@torch.no_grad()
def renew_statistics(edit: Edit, steps: Sequence[Step]) -> None:
    """Take means and variances of batch normalisation anew from these steps' retained records.

    They belong to the weights of the training; a network whose weights were replaced is not itself under them. Costs a
    forward pass a step; nothing where the model has none.
    """
    layers = [m for m in edit.model.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        # None: the plain mean over batches.
        layer.momentum = None
        layer.train()
    for step in steps:
        edit.losses(edit.retain, step.retain)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
