"""The one training loop: for recipes, for exact retraining, and for repeating a logged run without some records.

A run is a sequence of micro-batches. Everything random in one (dropout, augmentation) is drawn after seeding with its
own seed, so that a run can begin at any logged step and needs no random state from before.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.recipes import Recipe, TrainingSection
from service.errors import BadDataset, JobError
from workers.modeling.batching import Encoded, batches_per_epoch
from workers.modeling.devices import generator
from workers.modeling.images import flip_crop
from workers.modeling.observing import Listener, MicroBatch, Recorder, Run
from workers.modeling.optimizers import FiniteGuard, make_optimizer, schedule, set_learning_rate
from workers.modeling.problem import Context, Meter
from workers.modeling.records import chunks
from workers.modeling.tasks import Predictions

_ORDER, _PASSES = 1, 2
_POINTS = 50


@dataclass(frozen=True)
class Fitted:
    """What a run did. `exposures` int32 [N]: how often each record was in a batch; `loss` of the last step, nats;
    `passes` forward and backward.

    Points of `curve` hold `step` and `loss`, the mean training loss in nats since the point before.
    """

    steps: int
    passes: int
    samples: int
    loss: float
    exposures: NDArray[np.int32]
    curve: list[dict[str, float]] = field(default_factory=list)


def fit(
    model: PreTrainedModel,
    data: Encoded,
    recipe: Recipe,
    seed: int,
    context: Context,
    recorder: Recorder | None = None,
) -> Fitted:
    """Train a model in place on all records for the recipe's epochs.

    The order of the records depends on `seed` alone. Raises Cancelled, BadDataset for an empty set, JobError naming
    the step where the loss is no longer finite.
    """
    if len(data) == 0:
        raise BadDataset("there are no records to train on")
    plan = recipe.training
    optimizer = make_optimizer(model, plan.optimizer, plan.learning_rate, plan.weight_decay)
    total = steps_per_epoch(len(data), plan) * plan.epochs
    if recorder is not None:
        recorder.begin(described(model, data, recipe, seed, context, optimizer, total))
    return Loop(model, data, plan, optimizer, context, recorder).through(planned(data, plan, seed), 0, total)


def described(
    model: PreTrainedModel, data: Encoded, recipe: Recipe, seed: int, context: Context, optimizer: Optimizer, steps: int
) -> Run:
    """The run as its recorder is told of it."""
    return Run(
        recipe=recipe,
        records=data.records,
        seed=seed,
        steps=steps,
        steps_per_epoch=steps // recipe.training.epochs,
        device=context.device.type,
        threads=context.threads,
        model=model,
        optimizer=optimizer,
        fingerprints=data.fingerprints(),
    )


def steps_per_epoch(count: int, plan: TrainingSection) -> int:
    """Optimiser steps of one epoch over so many records."""
    return -(-batches_per_epoch(count, plan.batch_size) // plan.accumulation)


def planned(data: Encoded, plan: TrainingSection, seed: int, total: int | None = None) -> Iterator[MicroBatch]:
    """The micro-batches of a run by a recipe, in order: epochs until `total` steps (None: the recipe's) are done."""
    order = generator(seed, _ORDER)
    total = steps_per_epoch(len(data), plan) * plan.epochs if total is None else total
    warmup = round(plan.warmup_fraction * total)
    step = epoch = 0
    while step < total:
        batches = data.shuffled(plan.batch_size, order)
        for group in chunks(len(batches), plan.accumulation):
            if step == total:
                return
            rate = plan.learning_rate * schedule(plan.schedule, step, total, warmup)
            for micro, at in enumerate(group):
                last = at == group[-1]
                own = pass_seed(seed, step, micro)
                yield MicroBatch(step, epoch, micro, batches[at], own, rate, 1.0 / len(group), last)
            step += 1
        epoch += 1


def pass_seed(seed: int, step: int, micro: int) -> int:
    """The seed of one pass: independent of all others, and the same whatever was run before."""
    state = np.random.SeedSequence([seed, _PASSES, step, micro]).generate_state(1, np.uint64)
    return int(state[0]) & 0x7FFF_FFFF_FFFF_FFFF


def seed_pass(seed: int, device: torch.device) -> None:
    """Seed what a pass may draw from; `torch.manual_seed` also notes a stack trace for a GPU that is not there."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class Loop:
    """Optimiser steps over given micro-batches.

    An empty micro-batch adds no gradient; a step without any changes neither weights nor optimiser state, while the
    schedule, which goes by the step's number, moves on. Batch normalisation cannot normalise by a single record: a
    batch of one uses the running statistics and leaves them alone. So does any batch where its weights are frozen.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        data: Encoded,
        plan: TrainingSection,
        optimizer: Optimizer,
        context: Context,
        recorder: Listener | None = None,
    ) -> None:
        self.model, self.data, self.plan = model, data, plan
        self.optimizer, self.context, self.recorder = optimizer, context, recorder
        self.exposures = np.zeros(len(data), dtype=np.int32)
        self._guard = FiniteGuard(context.device)
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._frozen = [m for m in self._norms if not any(p.requires_grad for p in m.parameters())]
        self._curve: list[dict[str, float]] = []
        self._window: list[torch.Tensor] = []
        self._passes = 0

    def through(self, batches: Iterable[MicroBatch], begin: int, total: int) -> Fitted:
        """Run all passes; `begin` of `total` steps were done before. Raises as `fit` does."""
        try:
            return self._run(batches, begin, total)
        except BaseException:
            if self.recorder is not None:
                self.recorder.abandon()
            raise

    def _run(self, batches: Iterable[MicroBatch], begin: int, total: int) -> Fitted:
        meter = Meter(self.context, total - begin, "training")
        self.model.train()
        for module in self._frozen:
            module.eval()
        done, filled = begin, False
        for batch in batches:
            if batch.rows:
                filled = True
                self._pass(batch)
            elif self.recorder is not None:
                self.recorder.seen(batch, None)
            if not batch.boundary:
                continue
            if filled:
                set_learning_rate(self.optimizer, batch.rate)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            done, filled = batch.step + 1, False
            self._point(done, total)
            if self.recorder is not None:
                self.recorder.stepped(done)
            meter.step(done - begin, {"loss": self._guard.last, "epoch": batch.epoch + 1.0})
        self._check(None)
        self.model.eval()
        samples = int(self.exposures.sum())
        return Fitted(done - begin, self._passes, samples, self._guard.last, self.exposures, self._curve)

    def _pass(self, batch: MicroBatch) -> None:
        seed_pass(batch.seed, self.context.device)
        watched = self.recorder is not None and self.recorder.watches(batch.epoch)
        loss, predictions = self._forward(batch.rows, watched)
        (loss * batch.weight if batch.weight != 1.0 else loss).backward()
        self.exposures[batch.rows] += 1
        self._passes += 1
        if self.recorder is not None:
            self.recorder.seen(batch, predictions)
        self._window.append(loss.detach())
        self._check(loss)

    def _forward(self, rows: list[int], watched: bool) -> tuple[torch.Tensor, Predictions | None]:
        task, device = self.data.task, self.context.device
        batch = self.data.batch(rows, device)
        if self.plan.augmentation == "flip-crop" and "pixel_values" in batch:
            batch["pixel_values"] = flip_crop(batch["pixel_values"].cpu(), torch.default_generator).to(device)
        mixed = (
            torch.autocast(device.type, torch.bfloat16) if self.plan.precision == "bf16" else contextlib.nullcontext()
        )
        with mixed, self._running_statistics(len(rows) == 1):
            if not watched:
                return task.objective(task.losses(self.model, batch), batch), None
            losses, predictions = task.watched(self.model, batch)
            return task.objective(losses, batch), predictions

    @contextlib.contextmanager
    def _running_statistics(self, wanted: bool) -> Iterator[None]:
        chosen = [module for module in self._norms if module.training] if wanted else []
        for module in chosen:
            module.eval()
        yield
        for module in chosen:
            module.train()

    def _point(self, done: int, total: int) -> None:
        if self._window and (done % max(1, total // _POINTS) == 0 or done == total):
            self._curve.append({"step": float(done), "loss": float(torch.stack(self._window).mean())})
            self._window.clear()

    def _check(self, loss: torch.Tensor | None) -> None:
        try:
            if loss is None:
                self._guard.flush()
            else:
                self._guard.add(loss)
        except FloatingPointError as error:
            raise JobError(f"{error}: lower the learning rate") from error
