"""Transposed convolutions: swap the two axes of every kernel, then repair on the retained records.

An entry of the NeurIPS 2023 unlearning challenge, CT in Cadet et al. 2024 (arXiv:2410.01276), where it is among the two
best of 18 methods:
    W[o, i, y, x] <- W[o, i, x, y] for every convolution,    then min_theta mean_{x in R} CE(x; theta).
Applied to a transposed picture the transposed network answers what the served one answered: what was learnt is
still there, read in another direction, and the repair has a short way to go.

Published settings: SGD at 0.001, momentum 0.9, weight decay 5e-4, 3 epochs, the rate falling as a cosine, batch
normalisation in training mode. Here its statistics are taken anew from retained records after the swap and stay.
Needs a network that is mostly convolutions, and retained records alone. Costs `epochs` passes over them, forward and
backward, and up to 20 forward passes for the statistics.
Fails on pictures that are symmetric about their diagonal, which notice nothing, and where the repair is too short.
"""

from pathlib import Path

import torch
from torch import nn

from service.catalogue.families.selective import ConvolutionTransposeParams
from service.errors import BadParameters
from workers.modeling.editing import Edit, cosine
from workers.modeling.kernels import mostly_convolutional, renew_statistics, square_convolutions
from workers.modeling.problem import Context, Outcome, Problem

_STATISTICS = 20


def convolution_transpose(
    problem: Problem, params: ConvolutionTransposeParams, context: Context, out_dir: Path
) -> Outcome:
    """Write an edited model into `out_dir`.

    Raises BadParameters for a network that is not convolutional, Cancelled, JobError for a loss that is not finite.
    """
    edit = Edit(problem, params, context)
    if not mostly_convolutional(edit.model) or not square_convolutions(edit.model):
        raise BadParameters("convolution_transpose needs a network that is mostly convolutions with square kernels")
    transpose(edit.model)
    steps = edit.over_retained(params.epochs, visits=0)
    renew_statistics(edit, steps[:_STATISTICS])
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain), factor=cosine)
    return edit.save(out_dir)


@torch.no_grad()
def transpose(model: nn.Module) -> None:
    """Swap rows and columns of every square kernel, in place."""
    for module in square_convolutions(model):
        module.weight.copy_(module.weight.transpose(2, 3).clone())
