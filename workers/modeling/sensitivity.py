"""How much losses depend on each weight: summed gradients and the diagonal of the empirical Fisher information.

Both are taken of the weights as they are; no step is made. Answers are lists of tensors, one for each of `weights_of`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.problem import Meter


def weights_of(edit: Edit) -> list[nn.Parameter]:
    """The parameters that an edit may change, each once."""
    return [parameter for parameter in edit.model.parameters() if parameter.requires_grad]


def summed_gradients(edit: Edit, part: Encoded, batches: Sequence[Sequence[int]]) -> list[Tensor]:
    """Sum over batches of the gradient of each batch's training loss. Costs a forward and a backward pass a batch."""
    sums = [torch.zeros_like(weight) for weight in weights_of(edit)]
    meter = Meter(edit.context, len(batches), "measuring gradients")
    for done, rows in enumerate(batches, 1):
        for total, gradient in zip(sums, _gradients(edit, edit.objective(part, rows)), strict=True):
            total.add_(gradient)
        meter.step(done)
    return sums


def fisher_diagonal(edit: Edit, part: Encoded, rows: Sequence[int]) -> list[Tensor]:
    """Mean over these records of the squared gradient of each one's own loss, nats^2 per unit of weight squared.

    Record by record: squares of gradients of a batch would let records cancel each other. Costs a forward and a
    backward pass a record.
    """
    sums = [torch.zeros_like(weight) for weight in weights_of(edit)]
    meter = Meter(edit.context, len(rows), "measuring weights")
    for done, row in enumerate(rows, 1):
        for total, gradient in zip(sums, _gradients(edit, edit.losses(part, [row]).sum()), strict=True):
            total.addcmul_(gradient, gradient, value=1 / len(rows))
        meter.step(done)
    return sums


def _gradients(edit: Edit, loss: Tensor) -> list[Tensor]:
    weights = weights_of(edit)
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    edit.backward += 1
    return list(found)


def largest_share(values: Sequence[Tensor], share: float) -> list[Tensor]:
    """Boolean masks of this share of all entries, those of the largest magnitude: exactly so many where values tie, and
    one at least."""
    sizes = torch.cat([value.abs().flatten() for value in values])
    chosen = torch.zeros_like(sizes, dtype=torch.bool)
    chosen[torch.topk(sizes, max(1, round(share * len(sizes))), sorted=False).indices] = True
    parts = chosen.split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]
