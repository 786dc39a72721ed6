"""Optimisers and learning-rate schedules by the names a recipe uses."""

import math

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

MOMENTUM = 0.9


def make_optimizer(model: nn.Module, name: str, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019) or SGD with momentum 0.9.

    Weight decay applies to matrices and kernels, not to biases and normalisation weights.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return SGD(groups, lr=learning_rate, momentum=MOMENTUM, fused=True)
    return AdamW(groups, lr=learning_rate, fused=True)


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """The same learning rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


def schedule(kind: str, step: int, total: int, warmup: int) -> float:
    """The factor on the peak learning rate at `step` of `total` (both from 0): linear warm-up, then by kind.

    "linear" and "cosine" end at 0 after the last step; "constant" stays at 1.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    done = (step - warmup) / max(1, total - warmup)
    return 1.0 - done if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


class FiniteGuard:
    """Finds the step at which a loss stopped being finite.

    Losses are read back every `interval` steps, so that a GPU is not made to wait at each of them.
    """

    def __init__(self, device: torch.device) -> None:
        self._interval = 1 if device.type == "cpu" else 16
        self._pending: list[torch.Tensor] = []
        self._first = 1
        self.last = math.nan

    def add(self, loss: torch.Tensor) -> None:
        """Note the loss of the next step; FloatingPointError naming the step where one was not finite."""
        self._pending.append(loss.detach())
        if len(self._pending) >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Read back what is pending."""
        if not self._pending:
            return
        values = torch.stack(self._pending).tolist()
        for at, value in enumerate(values):
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at step {self._first + at}")
        self._first += len(values)
        self._pending.clear()
        self.last = values[-1]
