"""What a classifier would say if its linear head alone had been trained without the forgotten records."""

import torch
from torch import Tensor

from service.errors import BadParameters
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.heads import head_data
from workers.modeling.layers import head_of
from workers.modeling.reference_targets import Array
from workers.modeling.sampling import seeded_rows

_SAMPLE = 4096
_LARGEST = 20_000
"""Weights of a head whose Hessian is still held as a matrix."""


@torch.no_grad()
def scores_without(edit: Edit, anchors: Encoded, damping: float) -> tuple[Array, Array]:
    """Scores (z_y - logsumexp of the others) of the forgotten records and of `anchors` after one Newton step.

    The head is a logistic regression on its inputs; at its minimum the gradients of F and R cancel, so that removing F
    moves it by H^-1 (1/|R|) sum_F grad, with H the Hessian of the retained loss (on a seeded sample) plus `damping`.
    Raises BadParameters for a language model and for a head too large for its Hessian.
    """
    head = head_of(edit.model)
    if edit.problem.task_name == "causal-lm":
        raise BadParameters('source = "newton" is for classifiers: a language model\'s head is too large')
    if head.weight.numel() > _LARGEST:
        raise BadParameters(f"the head has {head.weight.numel()} weights, too many for a Newton step")
    rows = seeded_rows(len(edit.retain), _SAMPLE, edit.context.seed)
    sample = Encoded(edit.task, edit.problem.retain.subset(rows))
    kept, _ = head_data(edit, sample)
    forgotten, labels = head_data(edit, edit.forget)
    bias = dict(head.named_parameters()).get("bias", torch.zeros(head.out_features))
    weights = torch.cat([head.weight.double().cpu(), bias.double().cpu()[:, None]], dim=1)
    step = _step(weights, _one(kept), _one(forgotten), labels, len(edit.retain), damping)
    moved = weights + step
    others, other_labels = head_data(edit, anchors)
    return _scores(_one(forgotten) @ moved.T, labels), _scores(_one(others) @ moved.T, other_labels)


def _one(inputs: Tensor) -> Tensor:
    """Inputs [M, d] with a column of ones."""
    return torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)


def _step(weights: Tensor, kept: Tensor, forgotten: Tensor, labels: Tensor, retained: int, damping: float) -> Tensor:
    """The Newton step [C, d] of a logistic regression with weights [C, d] when the forgotten rows leave."""
    classes, width = weights.shape
    p = torch.softmax(kept @ weights.T, dim=1)
    hessian = torch.zeros(classes, width, classes, width, dtype=weights.dtype)
    for a in range(classes):
        for b in range(a, classes):
            share = p[:, a] * ((1.0 if a == b else 0.0) - p[:, b])
            block = (kept * share[:, None]).T @ kept / len(kept)
            hessian[a, :, b, :] = block
            hessian[b, :, a, :] = block
    matrix = hessian.reshape(classes * width, classes * width)
    matrix.diagonal().add_(damping)
    wrong = torch.softmax(forgotten @ weights.T, dim=1)
    wrong[torch.arange(len(labels)), labels] -= 1.0
    gradient = (wrong.T @ forgotten / retained).reshape(-1)
    solved: Tensor = torch.linalg.solve(matrix, gradient)
    return solved.reshape(classes, width)


def _scores(logits: Tensor, labels: Tensor) -> Array:
    true = labels.unsqueeze(1)
    others = logits.scatter(1, true, -torch.inf)
    found: Array = (logits.gather(1, true)[:, 0] - torch.logsumexp(others, dim=1)).numpy()
    return found
