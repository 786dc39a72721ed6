"""What the linear head of a model is given: one vector a prediction, and one a record."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from service.errors import BadParameters
from workers.modeling.answers import Answers
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.layers import head_of
from workers.modeling.records import chunks

_BATCH = 256
_SAME = 1e-3


@contextmanager
def _watched(head: nn.Linear) -> Iterator[list[Tensor]]:
    """The inputs of a layer, as they come in."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        seen.append(given[0])

    handle = head.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def with_inputs(edit: Edit, part: Encoded, rows: Sequence[int]) -> tuple[Answers, Tensor]:
    """(answers, what the head made each of the M predictions of [M, width]) of one forward pass, with gradient.

    Raises BadParameters where the logits are not the head's.
    """
    head = head_of(edit.model)
    with _watched(head) as seen:
        found = edit.answers(part, rows)
    given = seen[-1]
    if given.ndim == 2 and len(given) == len(found.targets):
        return found, given
    if given.ndim == 3 and len(given) == len(found.targets):
        return found, _pooled(head, given, found.logits)
    raise BadParameters("the model does not make its predictions from its head's inputs one by one")


def _pooled(head: nn.Linear, given: Tensor, logits: Tensor) -> Tensor:
    """Of the positions [B, T, width] those whose outputs were taken as the records' logits [B, C]."""
    with torch.no_grad():
        apart = (head(given).float() - logits[:, None]).abs().amax(dim=2)
        least, place = apart.min(dim=1)
        if bool((least > _SAME * (1 + logits.abs().amax(dim=1))).any()):
            raise BadParameters("the model does not take its logits from one position of its head")
    return given[torch.arange(len(given), device=given.device), place]


def record_inputs(edit: Edit, part: Encoded, rows: Sequence[int]) -> tuple[Answers, Tensor]:
    """(answers, the mean of what the head was given over each record's predictions [B, width]), with gradient."""
    found, given = with_inputs(edit, part, rows)
    counts = torch.bincount(found.rows, minlength=found.records).clamp_min(1)
    zeros = torch.zeros(found.records, given.shape[1], device=given.device, dtype=given.dtype)
    return found, zeros.index_add(0, found.rows, given) / counts[:, None]


@torch.no_grad()
def all_record_inputs(edit: Edit, part: Encoded) -> Tensor:
    """`record_inputs` of all records [N, width], on the host."""
    parts = [record_inputs(edit, part, list(rows))[1].float().cpu() for rows in chunks(len(part), _BATCH)]
    return torch.cat(parts)


@torch.no_grad()
def head_data(edit: Edit, part: Encoded) -> tuple[Tensor, Tensor]:
    """(inputs of the head float64 [M, width], true classes [M]) of all predictions of these records, on the host."""
    inputs, targets = [], []
    for rows in chunks(len(part), _BATCH):
        found, given = with_inputs(edit, part, list(rows))
        inputs.append(given.double().cpu())
        targets.append(found.targets.cpu())
    return torch.cat(inputs), torch.cat(targets)
