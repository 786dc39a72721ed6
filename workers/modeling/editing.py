"""The loop of methods that go on from the served weights: batches of forgotten and of retained records, a loss a step.

The model stays in evaluation mode (fixed BatchNorm statistics, no dropout), so that a record's loss means the same in
every step and a batch of forgotten records moves no statistics. A method is its loss, and what it does to gradients
and weights around a step. Nothing runs away: losses are guarded, and where a method pushes records away from what it
learnt, `open_` says which of them still lie below what unseen records lose.

A run can be resumed (workers/modeling/keeping.py): the order of batches is drawn from the seed alone.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.catalogue.parameters import EditParams, LowRankParams
from service.errors import JobError
from workers.modeling.answers import Answers, answers
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.devices import generator, seed_everything
from workers.modeling.directories import sha256_json
from workers.modeling.keeping import Keeper, Position
from workers.modeling.loading import LoadedModel, load_model, save_model
from workers.modeling.low_rank import merge_adapter, put_adapter
from workers.modeling.optimizers import FiniteGuard, make_optimizer, set_learning_rate
from workers.modeling.problem import Context, Meter, Outcome, Problem
from workers.modeling.sampling import seeded_rows

_FORGET, _RETAIN, _SAMPLE = 11, 12, 13
_EVALUATION_BATCH = 256
_SELECTION_LIMIT = 1000
_POINTS = 50
_LAST_RATE = 0.1
_WARM_UP = 0.1
_RECIPE_RATE = 2 / 3
_UNKNOWN = {"image-classification": (1e-3, 64), "text-classification": (3e-4, 16), "causal-lm": (3e-4, 16)}


@dataclass(frozen=True)
class Step:
    """Rows of one step among the forgotten and among the retained records; empty where it takes none of them."""

    forget: list[int]
    retain: list[int]


@dataclass(frozen=True)
class Settings:
    """Learning rate and batch sizes of an edit, once the defaults are filled in."""

    optimizer: str
    learning_rate: float
    forget_batch: int
    retain_batch: int


Loss = Callable[[Step], Tensor]
Hook = Callable[[float], None]
Factor = Callable[[float], float]


def settings_of(problem: Problem, params: EditParams) -> Settings:
    """Fill in what the parameters leave open, from the recipe where there is one."""
    rate, size = _UNKNOWN[problem.task_name]
    if problem.recipe is not None:
        training = problem.recipe.training
        size = training.batch_size
        # The rate of one optimiser says nothing about that of the other.
        rate = _RECIPE_RATE * training.learning_rate if training.optimizer == params.optimizer else rate
    return Settings(
        optimizer=params.optimizer,
        learning_rate=params.learning_rate or rate,
        forget_batch=min(params.forget_batch or size, len(problem.forget)),
        retain_batch=min(params.retain_batch or size, len(problem.retain)),
    )


def falling(fraction: float) -> float:
    """The usual factor on the learning rate: linearly from 1 to a tenth."""
    return 1 - (1 - _LAST_RATE) * fraction


def cosine(fraction: float) -> float:
    """Another: from 1 to 0, along half a cosine."""
    return (1 + math.cos(math.pi * fraction)) / 2


def never(_: float) -> None:
    """A hook that does nothing."""


class Edit:
    """One edit in memory: the model, its records encoded, a guarded optimiser, counted passes and a curve.

    `forget` and `retain` are the encoded records; `selection` those of the held-out set that methods may see, None
    without one. `low_rank`: only an adapter is trained, and the rest of the model is what was served.
    """

    def __init__(self, problem: Problem, params: EditParams, context: Context) -> None:
        seed_everything(context.seed, context.threads)
        self.loaded: LoadedModel = load_model(problem.base_dir, problem.task_name, context.device)
        self.model, self.task = self.loaded.model, self.loaded.task
        rank = params.lora_rank if isinstance(params, LowRankParams) else None
        self.low_rank = rank is not None
        if rank is not None:
            put_adapter(self.model, rank)
        self.problem, self.context, self.settings = problem, context, settings_of(problem, params)
        self.forget, self.retain = Encoded(self.task, problem.forget), Encoded(self.task, problem.retain)
        self.selection = self._selection()
        self.optimizer = make_optimizer(self.model, self.settings.optimizer, self.settings.learning_rate, 0.0)
        self.notes: list[str] = []
        self.forward = self.backward = self.steps = 0
        self._guard = FiniteGuard(context.device)
        self._curve: list[dict[str, float]] = []
        self._recent: dict[str, list[Tensor]] = {"forget": [], "retain": []}
        forgotten = sorted(np.asarray(problem.forget.ids).tolist())
        key = sha256_json([type(params).__name__, params.model_dump(mode="json"), context.seed, forgotten])
        self._keeper = Keeper(context.scratch, key, self.model, self.optimizer)

    def beside(self) -> "Edit":
        """The same records under a copy of the model as it is, which counts and notes for itself, from nothing."""
        other = copy.copy(self)
        # A task keeps how one model's head is computed.
        other.model, other.task = copy.deepcopy(self.model), copy.copy(self.task)
        other.forward = other.backward = other.steps = 0
        other.notes, other._curve = [], []
        other._recent = {"forget": [], "retain": []}
        return other

    # Passes.

    def answers(self, part: Encoded, rows: Sequence[int]) -> Answers:
        """A forward pass of the edited model over these records, with gradient."""
        self.forward += 1
        found = answers(self.task, self.model, part.batch(list(rows), self.context.device))
        self._note(part, found.record_losses())
        return found

    def losses(self, part: Encoded, rows: Sequence[int]) -> Tensor:
        """Loss of each of these records [B], nats, with gradient."""
        self.forward += 1
        losses = self.task.losses(self.model, part.batch(list(rows), self.context.device))
        self._note(part, losses)
        return losses

    def objective(self, part: Encoded, rows: Sequence[int]) -> Tensor:
        """The training loss of these records: the mean over records, for a language model over tokens."""
        self.forward += 1
        batch = part.batch(list(rows), self.context.device)
        losses = self.task.losses(self.model, batch)
        self._note(part, losses)
        return self.task.objective(losses, batch)

    def measure(self, part: Encoded) -> NDArray[np.float64]:
        """Loss of every record [N] under the weights as they are, nats, without gradient."""
        losses = self._all_losses(part)
        if not np.isfinite(losses).all():
            raise JobError(f"a record's loss is not finite after step {self.steps}: lower learning_rate")
        return losses

    def mean_loss(self, part: Encoded) -> float:
        """Mean of the same; infinite where a loss is not finite, so that a search that went too far can step back."""
        losses = self._all_losses(part)
        return float(losses.mean()) if np.isfinite(losses).all() else float("inf")

    def _all_losses(self, part: Encoded) -> NDArray[np.float64]:
        losses, passes = record_losses(self.model, part, self.context.device, _EVALUATION_BATCH)
        self.forward += passes
        return losses

    # Orders of batches.

    def over_retained(self, epochs: float, visits: int) -> list[Step]:
        """Steps of so many passes over the retained records, with forgotten ones beside them while visits are left."""
        order = self.retain.cycle(self.settings.retain_batch, generator(self.context.seed, _RETAIN))
        count = max(1, round(epochs * -(-len(self.retain) // self.settings.retain_batch)))
        beside = self._visits(visits)
        return [Step(next(beside, []), next(order)) for _ in range(count)]

    def over_forgotten(self, passes: int) -> list[Step]:
        """Steps of so many visits of each forgotten record, each with a batch of retained ones."""
        order = self.retain.cycle(self.settings.retain_batch, generator(self.context.seed, _RETAIN))
        return [Step(rows, next(order)) for rows in self._visits(passes)]

    def _visits(self, visits: int) -> Iterator[list[int]]:
        order = generator(self.context.seed, _FORGET)
        for _ in range(visits):
            yield from self.forget.shuffled(self.settings.forget_batch, order)

    # Bounds.

    def ceilings(self) -> Tensor:
        """What each forgotten record [N] should lose at most, nats: the loss of the unseen record of the same rank.

        Without a held-out set that of guessing, log C. Call it before the first step.
        """
        seen = self.measure(self.forget)
        if self.selection is None:
            probe = self.answers(self.forget, [0])
            return torch.full((len(seen),), float(np.log(probe.logits.shape[1])))
        unseen = self.measure(self.selection)
        ranks = np.argsort(np.argsort(seen, kind="stable"), kind="stable")
        return torch.as_tensor(np.quantile(unseen, (ranks + 0.5) / len(seen)), dtype=torch.float32)

    # Steps.

    def run(
        self,
        steps: Sequence[Step],
        loss: Loss,
        *,
        factor: Factor = falling,
        after_backward: Hook = never,
        after_step: Hook = never,
        finished: Callable[[], bool] | None = None,
        least: int = 0,
        message: str = "unlearning",
    ) -> int:
        """Take these steps; answers how many were taken, fewer where `finished` said so after a step, `least` or later.

        `factor` on the learning rate, which rises over the first tenth of the steps; `after_backward` (gradients may be
        changed) and `after_step` (weights may) get the fraction of steps done. Raises Cancelled, JobError naming the
        step where a loss is not finite.
        """
        meter, every = Meter(self.context, len(steps), message), max(1, len(steps) // _POINTS)
        begin = self._resume(len(steps))
        # The first steps of Adam move every weight by the whole rate, whatever its gradient.
        warm = round(_WARM_UP * len(steps))
        for at in range(begin, len(steps)):
            fraction = at / len(steps)
            begun = min(1.0, (at + 1) / (warm + 1))
            set_learning_rate(self.optimizer, self.settings.learning_rate * factor(fraction) * begun)
            self._step(loss(steps[at]), fraction, after_backward)
            after_step(fraction)
            if (at + 1) % every == 0 or at + 1 == len(steps):
                self._point()
            meter.step(at + 1, self._curve[-1] if self._curve else {})
            self._keeper.stepped(at + 1, self._position)
            if finished is not None and at + 1 >= least and finished():
                self.notes.append(f"ended after {at + 1} of {len(steps)} steps: nothing was left to do")
                return at + 1
        return len(steps)

    def _resume(self, steps: int) -> int:
        """The step to begin with: the first, or the one after the state that was kept."""
        begin, found = self._keeper.begin(steps)
        if found is not None:
            self.forward, self.backward, self.steps = found.forward, found.backward, found.steps
            self._curve[:] = found.curve
            self.notes.append(f"resumed after step {found.steps}")
        return begin

    def _position(self) -> Position:
        return Position(self.forward, self.backward, self.steps, list(self._curve))

    def _step(self, loss: Tensor, fraction: float, after_backward: Hook) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        try:
            self._guard.add(loss)
            loss.backward()
        except FloatingPointError as error:
            raise JobError(f"{error}: lower learning_rate") from error
        self.backward += 1
        after_backward(fraction)
        self.optimizer.step()
        self.steps += 1

    def merge(self) -> None:
        """Take an adapter into the weights, so that the model is a plain one; nothing without one."""
        merge_adapter(self.model)
        self.low_rank = False

    def save(self, out_dir: Path) -> Outcome:
        """Write the edited model; what the run came to."""
        try:
            self._guard.flush()
        except FloatingPointError as error:
            raise JobError(f"{error}: lower learning_rate") from error
        self._point()
        self.merge()
        save_model(self.loaded, out_dir)
        return Outcome(self.steps, self.forward, self.backward, self._curve, exact=False, notes=self.notes)

    def _note(self, part: Encoded, losses: Tensor) -> None:
        name = "forget" if part is self.forget else "retain" if part is self.retain else None
        if name is not None and torch.is_grad_enabled():
            self._recent[name].append(losses.detach().mean())

    def _point(self) -> None:
        known = {f"{name}_loss": float(torch.stack(v).mean()) for name, v in self._recent.items() if v}
        if known:
            self._curve.append({"step": float(self.steps)} | known)
        for values in self._recent.values():
            values.clear()

    def _selection(self) -> Encoded | None:
        records = self.problem.selection
        if records is None or not len(records):
            return None
        rows = seeded_rows(len(records), _SELECTION_LIMIT, self.context.seed, _SAMPLE)
        return Encoded(self.task, records.subset(rows))


class Bounds:
    """Which forgotten records still lie below what unseen ones lose, as they were last seen."""

    def __init__(self, edit: Edit, bounded: bool) -> None:
        self._device = edit.context.device
        self._ceilings = edit.ceilings().to(self._device) if bounded else None
        self._open = torch.ones(len(edit.forget), dtype=torch.bool)

    def weights(self, rows: list[int], losses: Tensor) -> Tensor:
        """1 for each record [B] of these that lies below its ceiling, else 0; all 1 where nothing is bounded."""
        if self._ceilings is None:
            return torch.ones_like(losses)
        below = losses.detach() < self._ceilings[torch.as_tensor(rows, device=self._device)]
        self._open[rows] = below.cpu()
        return below.to(losses.dtype)

    def reached(self) -> bool:
        """Whether every record had reached its ceiling when it was last seen."""
        return self._ceilings is not None and not bool(self._open.any())
