"""Which units of a network carry the answer for a class: layer-wise relevance by gradient times activation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.layers import head_of
from workers.modeling.records import chunks

_BATCH = 128


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Linear and convolutional layers in front of the head, in the order of the model."""
    head = head_of(model)
    return [
        layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d | Conv1D) and layer is not head
    ]


@contextmanager
def _outputs(layers: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """What layers put out in the passes within, by their place."""
    seen: dict[int, Tensor] = {}

    def noting(at: int) -> Any:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[at] = output

        return note

    handles = [layer.register_forward_hook(noting(at)) for at, layer in enumerate(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def unit_relevance(edit: Edit, part: Encoded, rows: Sequence[int], layers: Sequence[nn.Module]) -> list[Tensor]:
    """Mean relevance of each unit [units] of each layer for the true class of these records.

    A unit's relevance is the sum over its places of activation times gradient of the true class's logit. For networks
    that are linear between kinks, and without biases, that is layer-wise relevance propagation's basic rule (LRP-0):
    relevances of a layer add up to the logit (Ancona et al. 2018, arXiv 1711.06104).
    """
    totals: list[Tensor] = []
    with _outputs(layers) as seen:
        for piece in chunks(len(rows), _BATCH):
            found = edit.answers(part, [rows[at] for at in piece])
            told = found.logits.gather(1, found.targets[:, None]).sum()
            outputs = [seen[at] for at in range(len(layers))]
            gradients = torch.autograd.grad(told, outputs, allow_unused=True, materialize_grads=True)
            edit.backward += 1
            sums = [_by_unit(o.detach() * g, layer) for o, g, layer in zip(outputs, gradients, layers, strict=True)]
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return [total / len(rows) for total in totals]


def _by_unit(values: Tensor, layer: nn.Module) -> Tensor:
    """Sums over everything but the axis of units: the second of images' feature maps, the last of all else."""
    axis = 1 if isinstance(layer, nn.Conv2d) else values.ndim - 1
    return values.sum(dim=[at for at in range(values.ndim) if at != axis])


def incoming(layer: Any, unit: int) -> Tensor:
    """The weights that feed one unit, a view."""
    return layer.weight[:, unit] if isinstance(layer, Conv1D) else layer.weight[unit]
