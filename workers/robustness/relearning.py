"""Relearning: fine-tune a model on some records for a few steps, and ask it about others as it goes.

The attack of arXiv 2406.13356 and 2410.08827, at 5, 20 and 50 steps. Taught is one half of the forgotten people's
records, or related public data; asked about is the other half. Candidate and references get the same batches at the
same constant rate with AdamW, in evaluation mode (fixed BatchNorm statistics, no dropout), so that what differs
between their curves lies in the weights they started from. Where tokenizers differ, batches do too.
`workers/metrics/relearning.py` says how the curves are compared.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from service.catalogue.recipes import Recipe
from service.errors import Unevaluable
from service.verification.statistics import Array, Clusters, NotMeasurable
from workers.metrics.relearning import FEWEST, Excess, relearning_excess
from workers.modeling.batching import Encoded
from workers.modeling.devices import generator
from workers.modeling.loading import LoadedModel
from workers.modeling.optimizers import FiniteGuard, make_optimizer
from workers.modeling.problem import Context, Meter, Progress
from workers.modeling.records import Records
from workers.robustness.readings import Reading, read_scores
from workers.scoring.score import score

STEPS = (5, 20, 50)
_HALVES, _ORDER = 41, 42
_RECIPE_RATE = 1 / 3
_UNKNOWN = {"image-classification": (1e-3, 64), "text-classification": (3e-4, 16), "causal-lm": (3e-4, 16)}


@dataclass(frozen=True)
class RelearningPlan:
    """How a model is taught: AdamW's constant rate, records a step, and the steps after which it is asked."""

    learning_rate: float
    batch_size: int
    steps: tuple[int, ...] = STEPS


def plan_relearning(task: str, recipe: Recipe | None) -> RelearningPlan:
    """The recipe's batch size and, where it trained with AdamW, a third of its peak rate; else common ones.

    The peak of a training from scratch overwrites more of what a model knew than a few steps bring back.
    """
    rate, size = _UNKNOWN[task]
    if recipe is None:
        return RelearningPlan(rate, size)
    training = recipe.training
    if training.optimizer == "adamw":
        rate = _RECIPE_RATE * training.learning_rate
    # The rate of SGD says nothing about that of AdamW.
    return RelearningPlan(rate, training.batch_size)


def halves(records: Records, seed: int) -> tuple[Records, Records] | NotMeasurable:
    """(records to teach, records to ask about): each person's are all in one of them, drawn from the seed."""
    people, inverse = np.unique(np.asarray(records.subjects, dtype=str), return_inverse=True)
    if len(people) < 2 * FEWEST:
        return NotMeasurable(
            f"not measurable: {len(people)} people are fewer than {2 * FEWEST}, so no half can be asked"
        )
    order = torch.randperm(len(people), generator=generator(seed, _HALVES)).numpy()
    taught = np.isin(inverse, order[: len(people) // 2])
    return records.subset(np.flatnonzero(taught).tolist()), records.subset(np.flatnonzero(~taught).tolist())


@dataclass(frozen=True)
class Recovery:
    """What a model knows of the records [N] it is asked about, before the first step and after each of `steps` [S].

    `accuracy` and `membership` [S, N] as in `Reading`; `steps[0]` is 0. Passes in batches.
    """

    steps: tuple[int, ...]
    accuracy: Array
    membership: Array
    subjects: Clusters
    forward_passes: int
    backward_passes: int

    @property
    def curve(self) -> list[float]:
        """Mean share of right answers after each of `steps`."""
        return [float(value) for value in self.accuracy.mean(axis=1)]

    @property
    def scores(self) -> list[float]:
        """Mean membership score after each of `steps`: of a text, its log-likelihood per token or byte in nats."""
        return [float(value) for value in self.membership.mean(axis=1)]

    def at(self, step: int) -> Array:
        """Right answers [N] after so many steps. Raises ValueError for a step that was not asked at."""
        return np.asarray(self.accuracy[self.steps.index(step)])


def relearn(
    loaded: LoadedModel, taught: Records, asked: Records, plan: RelearningPlan, context: Context, per_byte: bool = False
) -> Recovery | NotMeasurable:
    """Teach a copy of the model and ask it; `loaded` stays as it is. The batches depend on `context.seed` alone.

    Not measurable where the loss is no longer finite. Raises Cancelled, Unevaluable for scores that are not finite
    before any step.
    """
    pupil = replace(loaded, model=copy.deepcopy(loaded.model))
    pupil.model.eval()
    silent = replace(context, progress=_unheard)
    readings, asking = [], 0
    meter = Meter(context, max(plan.steps), "relearning")
    lesson = _Lesson(pupil, taught, plan, context)
    for step in (0, *plan.steps):
        try:
            lesson.until(step, meter)
            scored = score(pupil, asked, silent)
            readings.append(read_scores(scored.table, per_byte))
        except (FloatingPointError, Unevaluable) as error:
            if step == 0:
                raise
            return NotMeasurable(f"not measurable: while relearning, {error}")
        asking += scored.forward_passes
    return _recovery((0, *plan.steps), readings, asking + lesson.done, lesson.done)


def excess(step: int, candidate: Recovery, references: Sequence[Recovery]) -> Excess | NotMeasurable:
    """`relearning_excess` of the candidate after so many steps, over references asked about the same records."""
    known = np.stack([one.at(step) for one in references]) if references else np.zeros((0, len(candidate.subjects)))
    return relearning_excess(candidate.at(step), known, candidate.subjects)


def _recovery(steps: tuple[int, ...], readings: list[Reading], forward: int, backward: int) -> Recovery:
    return Recovery(
        steps,
        np.stack([one.accuracy for one in readings]),
        np.stack([one.membership for one in readings]),
        readings[0].subjects,
        forward,
        backward,
    )


def _unheard(progress: Progress) -> None:
    del progress


class _Lesson:
    """Optimiser steps on the records to teach, as many as are asked for, one after the other."""

    def __init__(self, pupil: LoadedModel, taught: Records, plan: RelearningPlan, context: Context) -> None:
        self._pupil, self._device = pupil, context.device
        self._encoded = Encoded(pupil.task, taught)
        self._batches = self._encoded.cycle(min(plan.batch_size, len(taught)), generator(context.seed, _ORDER))
        self._optimizer = make_optimizer(pupil.model, "adamw", plan.learning_rate, 0.0)
        self._guard = FiniteGuard(context.device)
        self.done = 0

    def until(self, step: int, meter: Meter) -> None:
        """Go on until so many steps are done. Raises FloatingPointError naming the step of a loss not finite."""
        while self.done < step:
            batch = self._encoded.batch(next(self._batches), self._device)
            loss = self._pupil.task.objective(self._pupil.task.losses(self._pupil.model, batch), batch)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._guard.add(loss)
            self._optimizer.step()
            self.done += 1
            meter.step(self.done)
        self._guard.flush()
