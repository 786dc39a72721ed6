"""Softmax regression: the convex loss of a linear head on what it is given, with its gradient and its curvature."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.heads import head_data
from workers.modeling.layers import head_of


@dataclass(frozen=True)
class SoftmaxRegression:
    """mean CE + l2/2 |w|^2 over weights [classes, width + 1], the last column being the bias.

    `inputs` float64 [N, width + 1] end with a 1 (0 where there is no bias), `targets` [N] are classes.
    """

    inputs: Tensor
    targets: Tensor
    l2: float

    @property
    def smoothness(self) -> float:
        """A bound on the curvature: l2 and half the largest eigenvalue of the inputs' second moment (Bohning 1992)."""
        moment = self.inputs.T @ self.inputs / len(self.inputs)
        return self.l2 + 0.5 * float(torch.linalg.eigvalsh(moment)[-1])

    def gradient(self, weights: Tensor) -> Tensor:
        """At `weights` [classes, width + 1]."""
        slopes = torch.softmax(self.inputs @ weights.T, dim=1)
        slopes[torch.arange(len(slopes)), self.targets] -= 1.0
        return slopes.T @ self.inputs / len(self.inputs) + self.l2 * weights

    def product(self, weights: Tensor, vector: Tensor) -> Tensor:
        """Hessian at `weights` times a vector, both [classes, width + 1]."""
        p, along = torch.softmax(self.inputs @ weights.T, dim=1), self.inputs @ vector.T
        changed = p * (along - (p * along).sum(dim=1, keepdim=True))
        return changed.T @ self.inputs / len(self.inputs) + self.l2 * vector


def regression_of(edit: Edit, part: Encoded, l2: float) -> SoftmaxRegression:
    """The head's problem on these records: one forward pass over them. Classifiers only: one prediction a record."""
    inputs, targets = head_data(edit, part)
    ones = torch.full((len(inputs), 1), 1.0 if has_bias(edit) else 0.0, dtype=inputs.dtype)
    return SoftmaxRegression(torch.cat([inputs, ones], dim=1), targets, l2)


def has_bias(edit: Edit) -> bool:
    """Whether the head has one."""
    return len(list(head_of(edit.model).parameters())) > 1


def head_weights(edit: Edit) -> Tensor:
    """The head as it is, float64 [classes, width + 1] on the host."""
    return joined_weights(edit, torch.cat([p.detach().reshape(-1) for p in head_of(edit.model).parameters()]))


def joined_weights(edit: Edit, vector: Tensor) -> Tensor:
    """A flat vector over the head's parameters as float64 [classes, width + 1] on the host."""
    head = head_of(edit.model)
    flat = vector.detach().double().cpu()
    weight, bias = flat[: head.weight.numel()].view(head.weight.shape), flat[head.weight.numel() :]
    column = bias if len(bias) else torch.zeros(head.out_features, dtype=flat.dtype)
    return torch.cat([weight, column[:, None]], dim=1)


def flat_weights(edit: Edit, weights: Tensor) -> Tensor:
    """The inverse: [classes, width + 1] as a flat vector over the head's parameters, on the edit's device."""
    parts = [weights[:, :-1].reshape(-1), *([weights[:, -1]] if has_bias(edit) else [])]
    return torch.cat(parts).to(edit.context.device, torch.float32)
