"""The one training loop, used for recipes and for exact retraining."""

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.recipes import TrainingSection
from service.errors import BadDataset, JobError
from workers.modeling.batching import Encoded
from workers.modeling.devices import generator
from workers.modeling.images import flip_crop
from workers.modeling.optimizers import FiniteGuard, make_optimizer, schedule, set_learning_rate
from workers.modeling.problem import Context, Meter

_ORDER, _AUGMENTATION = 1, 2


@dataclass(frozen=True)
class Fitted:
    """What a run did. `exposures` int32 [N]: how often each record was in a batch; `loss` of the last step, nats."""

    steps: int
    samples: int
    loss: float
    exposures: NDArray[np.int32]


def fit(model: PreTrainedModel, data: Encoded, plan: TrainingSection, seed: int, context: Context) -> Fitted:
    """Train a model in place on all records for `plan.epochs` epochs.

    The order of the records depends on `seed` alone. Raises Cancelled, BadDataset for an empty set, JobError naming
    the step where the loss is no longer finite.
    """
    if len(data) == 0:
        raise BadDataset("there are no records to train on")
    order, augmentation = generator(seed, _ORDER), generator(seed, _AUGMENTATION)
    optimizer = make_optimizer(model, plan.optimizer, plan.learning_rate, plan.weight_decay)
    exposures = np.zeros(len(data), dtype=np.int32)
    guard = FiniteGuard(context.device)
    per_epoch = len(data.shuffled(plan.batch_size, generator(seed)))
    total = per_epoch * plan.epochs
    meter = Meter(context, total, "training")
    step = 0
    model.train()
    for epoch in range(plan.epochs):
        for rows in data.shuffled(plan.batch_size, order):
            set_learning_rate(optimizer, plan.learning_rate * _factor(plan, step, total))
            crops = augmentation if plan.augmentation == "flip-crop" else None
            loss = _step(model, data, rows, optimizer, context.device, plan.precision, crops)
            exposures[rows] += 1
            step += 1
            _check(guard, loss)
            meter.step(step, {"loss": guard.last, "epoch": epoch + 1.0})
    _check(guard, None)
    model.eval()
    return Fitted(step, int(exposures.sum()), guard.last, exposures)


def _factor(plan: TrainingSection, step: int, total: int) -> float:
    return schedule(plan.schedule, step, total, round(plan.warmup_fraction * total))


def _step(
    model: PreTrainedModel,
    data: Encoded,
    rows: list[int],
    optimizer: Optimizer,
    device: torch.device,
    precision: str,
    crops: torch.Generator | None,
) -> torch.Tensor:
    batch = data.batch(rows, device)
    if crops is not None and "pixel_values" in batch:
        batch["pixel_values"] = flip_crop(batch["pixel_values"].cpu(), crops).to(device)
    mixed = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with mixed:
        loss = data.task.objective(data.task.losses(model, batch), batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss


def _check(guard: FiniteGuard, loss: torch.Tensor | None) -> None:
    try:
        if loss is None:
            guard.flush()
        else:
            guard.add(loss)
    except FloatingPointError as error:
        raise JobError(f"{error}: lower the learning rate") from error
