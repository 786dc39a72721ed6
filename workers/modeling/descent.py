"""The loop shared by methods that start from the served weights: forget and retain batches side by side.

Each step minimises w * forget_term + (1 - w) * L_R with AdamW, in evaluation mode (fixed BatchNorm statistics, no
dropout), so that a record's loss means the same in every step. A method is its forget term and its weight w.

Targets. Each forgotten record has a target loss drawn from the selection records, which the model never saw. "mean"
is their mean for every record (L_V of 2403.14339). "quantile" gives the record of rank r among the forgotten ones
the loss of rank r among the selection records: with heavy-tailed losses the mean is far above what most unseen
records lose and far below what the odd ones do, so that one common target is wrong for both. Targets are renewed
every few passes, with the forgotten records' losses as last seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.catalogue.families.descent import DescentParams
from service.errors import BadParameters, JobError
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.devices import generator, seed_everything
from workers.modeling.loading import LoadedModel
from workers.modeling.optimizers import FiniteGuard, make_optimizer, set_learning_rate
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.sampling import seeded_rows

_FORGET, _RETAIN, _SAMPLE = 11, 12, 13
_EVALUATION_BATCH = 256
_SELECTION_LIMIT = 1000
_RETAIN_SAMPLE = 256
_POINTS = 50
_LAST_RATE = 0.1
_RECIPE_RATE = 2 / 3
_RECIPE_PASSES = 0.4
_UNKNOWN = {"image-classification": (1e-3, 64), "text-classification": (3e-4, 16), "causal-lm": (3e-4, 16)}


@dataclass(frozen=True)
class Targets:
    """What a forget term may use: target losses of the batch's records [B] and the spread of unseen losses, nats."""

    losses: Tensor
    spread: float


@dataclass(frozen=True)
class Schedule:
    """The numbers of one run, once the defaults are filled in."""

    learning_rate: float
    passes: int
    steps: int
    forget_batch: int
    retain_batch: int


ForgetTerm = Callable[[Tensor, Targets], Tensor]


def plan_descent(problem: Problem, params: DescentParams) -> Schedule:
    """Fill in what the parameters leave open, from the recipe where there is one."""
    rate, size = _UNKNOWN[problem.task_name]
    passes = 12
    if problem.recipe is not None:
        training = problem.recipe.training
        size, passes = training.batch_size, max(3, round(_RECIPE_PASSES * training.epochs))
        # The rate of SGD says nothing about that of AdamW.
        rate = _RECIPE_RATE * training.learning_rate if training.optimizer == "adamw" else rate
    forget_batch = min(params.forget_batch or size, len(problem.forget))
    per_pass = -(-len(problem.forget) // forget_batch)
    passes = params.passes or max(passes, -(-params.min_steps // per_pass))
    return Schedule(
        learning_rate=params.learning_rate or rate,
        passes=passes,
        steps=passes * per_pass,
        forget_batch=forget_batch,
        retain_batch=min(params.retain_batch or size, len(problem.retain)),
    )


def target_losses(kind: str, forget: NDArray[np.float64], selection: NDArray[np.float64]) -> NDArray[np.float64]:
    """Target of each forgotten record [N], nats: the mean selection loss, or the one of the record's own rank."""
    if kind == "mean":
        return np.full(len(forget), selection.mean())
    ranks = np.argsort(np.argsort(forget, kind="stable"), kind="stable")
    return np.quantile(selection, (ranks + 0.5) / len(forget))


def descend(
    loaded: LoadedModel,
    problem: Problem,
    params: DescentParams,
    forget_term: ForgetTerm,
    weight: Callable[[float], float],
    context: Context,
) -> Outcome:
    """Run the loop on `loaded` in place.

    `forget_term` maps the losses of a forget batch [B] and their targets to a scalar; `weight` is w as a function of
    the fraction of steps done. It ends after the planned passes, or, from `min_steps` on, once no record of a whole
    pass lay below its target, then with a few steps on retained records alone. Raises Cancelled, BadParameters
    without selection records, JobError naming the step where a loss is not finite.
    """
    if problem.selection is None or len(problem.selection) == 0:
        raise BadParameters("the method needs held-out records to stop at: give --holdout, or use retrain")
    seed_everything(context.seed, context.threads)
    loaded.model.eval()
    run = _Run(loaded, problem, params, context)
    try:
        return run.through(forget_term, weight)
    except FloatingPointError as error:
        raise JobError(f"{error}: lower learning_rate") from error


class _Run:
    """State of one descent."""

    def __init__(self, loaded: LoadedModel, problem: Problem, params: DescentParams, context: Context) -> None:
        self.model, self.task, self.context, self.params = loaded.model, loaded.task, context, params
        self.schedule = plan_descent(problem, params)
        self.forget = Encoded(loaded.task, problem.forget)
        self.retain = Encoded(loaded.task, problem.retain)
        assert problem.selection is not None  # noqa: S101  (descend has looked)
        chosen = seeded_rows(len(problem.selection), _SELECTION_LIMIT, context.seed, _SAMPLE)
        self.selection = Encoded(loaded.task, problem.selection.subset(chosen))
        kept = seeded_rows(len(problem.retain), _RETAIN_SAMPLE, context.seed, _SAMPLE)
        self.retain_sample = Encoded(loaded.task, problem.retain.subset(kept))
        self.optimizer = make_optimizer(self.model, "adamw", self.schedule.learning_rate, 0.0)
        self.guard = FiniteGuard(context.device)
        self.forward = self.backward = 0
        self.curve: list[dict[str, float]] = []
        self.seen: NDArray[np.float64] = np.zeros(0)

    def through(self, forget_term: ForgetTerm, weight: Callable[[float], float]) -> Outcome:
        schedule, context = self.schedule, self.context
        meter = Meter(context, schedule.steps, "unlearning")
        order = generator(context.seed, _FORGET)
        retained = self.retain.cycle(schedule.retain_batch, generator(context.seed, _RETAIN))
        self.seen = self._measure(self.forget)
        step, stopped = 0, False
        window = _Window(max(1, schedule.steps // _POINTS))
        for done in range(schedule.passes):
            if done % self.params.refresh == 0:
                selection = self._measure(self.selection)
                targets = target_losses(self.params.target, self.seen, selection)
                if done == 0:
                    self._point(0, self.seen.mean(), selection.mean(), self._measure(self.retain_sample).mean())
            below = False
            for rows in self.forget.shuffled(schedule.forget_batch, order):
                fraction = step / schedule.steps
                set_learning_rate(self.optimizer, schedule.learning_rate * (1 - (1 - _LAST_RATE) * fraction))
                wanted = Targets(torch.as_tensor(targets[rows], dtype=torch.float32, device=context.device),
                                 max(float(selection.std()), 1e-3))  # fmt: skip
                losses, kept = self._step(rows, next(retained), wanted, forget_term, weight(fraction))
                below |= bool((self.seen[rows] < targets[rows]).any())
                step += 1
                if window.add(losses, kept):
                    self._point(step, *window.means(selection.mean()))
                meter.step(step, self.curve[-1])
            # A short run needs its remaining steps for repair: a first push can lift a small set over its targets.
            if not below and step >= self.params.min_steps:
                stopped = True
                step += self._repair(retained, step // 10)
                break
        notes = ["every forgotten record reached its target before the last pass"] if stopped else []
        return self._outcome(step, notes)

    def _step(
        self, rows: list[int], kept_rows: list[int], targets: Targets, forget_term: ForgetTerm, weight: float
    ) -> tuple[float, float]:
        losses = self.task.losses(self.model, self.forget.batch(rows, self.context.device))
        batch = self.retain.batch(kept_rows, self.context.device)
        kept = self.task.objective(self.task.losses(self.model, batch), batch)
        self._minimise(weight * forget_term(losses, targets) + (1 - weight) * kept, 2)
        self.seen[rows] = losses.detach().double().cpu().numpy()
        return float(self.seen[rows].mean()), float(kept.detach())

    def _repair(self, retained: Iterator[list[int]], steps: int) -> int:
        for _ in range(steps):
            batch = self.retain.batch(next(retained), self.context.device)
            self._minimise(self.task.objective(self.task.losses(self.model, batch), batch), 1)
        return steps

    def _minimise(self, loss: Tensor, passes: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.add(loss)
        self.optimizer.step()
        self.forward += passes
        self.backward += passes

    def _measure(self, encoded: Encoded) -> NDArray[np.float64]:
        losses, passes = record_losses(self.model, encoded, self.context.device, _EVALUATION_BATCH)
        self.forward += passes
        if not np.isfinite(losses).all():
            raise FloatingPointError("a record's loss is not finite")
        return losses

    def _point(self, step: int, forget: float, selection: float, retain: float) -> None:
        self.curve.append(
            {
                "step": float(step),
                "forget_loss": float(forget),
                "selection_loss": float(selection),
                "retain_loss": float(retain),
            }
        )

    def _outcome(self, step: int, notes: list[str]) -> Outcome:
        self.guard.flush()
        ends = (self._measure(part).mean() for part in (self.forget, self.selection, self.retain_sample))
        if self.curve[-1]["step"] == step:
            self.curve.pop()
        self._point(step, *ends)
        return Outcome(step, self.forward, self.backward, self.curve, exact=False, notes=notes)


class _Window:
    """Means of batch losses over a few steps, for the curve."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._forget: list[float] = []
        self._retain: list[float] = []

    def add(self, forget: float, retain: float) -> bool:
        if len(self._forget) == self._size:
            self._forget.clear()
            self._retain.clear()
        self._forget.append(forget)
        self._retain.append(retain)
        return len(self._forget) == self._size

    def means(self, selection: float) -> tuple[float, float, float]:
        return float(np.mean(self._forget)), float(selection), float(np.mean(self._retain))
