"""One training that is made of stages: every stage runs over the first slices of one part, the parts know nothing of
each other, and the whole leaves one lineage and one training record.

Stage i of R trains for 2e / (R + 1) epochs on slices 1..i, so that all stages together see as many records as e epochs
over the part would (Bourtoule et al. 2021, section V). Its seed and its schedule depend on nothing but the run's seed,
its number and its own records: what lies in later slices or other parts has no say in it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from workers.modeling.batching import Encoded
from workers.modeling.fresh import Provenance
from workers.modeling.observing import History, LineageFacts, MicroBatch, Recorder, Run
from workers.modeling.parts import PartsFacts, PartState, PartTable, StoredParts, state_place, write_parts
from workers.modeling.problem import Context
from workers.modeling.progress import part_of, timed
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import Records, chunks
from workers.modeling.states import state_digest
from workers.modeling.tasks import Predictions
from workers.modeling.training import Fitted, Loop, pass_seed, planned, steps_per_epoch

Kind = Literal["shards", "adapters"]
Write = Callable[[Path], dict[str, str]]
"""Keeps the state of a part in this new folder; answers {file name: SHA-256}."""

_PARTS, _POINTS = 3, 50


@dataclass(frozen=True)
class Stage:
    """One stage of a part: `rows` are positions in the run's records, in the order of the part."""

    part: int
    piece: int
    rows: NDArray[np.int64]
    steps: int


@dataclass(frozen=True)
class Inherited:
    """What a run takes over of an earlier one: all of a part, or what came before the slice `first[part]`.

    `beginning` takes nothing over of the parts that are named there.
    """

    stored: StoredParts
    first: dict[int, int]
    history: History | None
    beginning: bool = False

    def begin(self, part: int, slices: int) -> int:
        """The first slice whose stage has to be run; `slices` when none has."""
        if part not in self.first:
            return slices
        return 0 if self.beginning else self.stored.newest(part, self.first[part]) + 1


@dataclass(frozen=True)
class Job:
    """What is trained in parts, by what, into which directory. `table` has one row for each of the `records`."""

    kind: Kind
    parts: int
    recipe: Recipe
    records: Records
    table: PartTable
    directory: Path
    seed: int
    provenance: Provenance
    inherited: Inherited | None = None

    @property
    def folder(self) -> Path:
        """The lineage folder."""
        return self.directory / LINEAGE

    @cached_property
    def stages(self) -> list[Stage]:
        """All stages by part, then slice; those without any record are left out."""
        return [stage for part in range(self.parts) for stage in self._of(part)]

    @property
    def live(self) -> list[int]:
        """The parts that have a record."""
        return sorted({stage.part for stage in self.stages})

    def begin(self, part: int) -> int:
        """The first slice of a part whose stage has to be run."""
        return self.inherited.begin(part, self.table.slices) if self.inherited is not None else 0

    def _of(self, part: int) -> list[Stage]:
        order, plan = self.table.order(part), self.recipe.training
        epochs = 2 * plan.epochs / (self.table.slices + 1)
        counts = [int((self.table.slice[order] <= piece).sum()) for piece in range(self.table.slices)]
        return [
            Stage(part, piece, order[:count], max(1, round(epochs * steps_per_epoch(count, plan))))
            for piece, count in enumerate(counts)
            if count
        ]


def part_seed(seed: int, part: int) -> int:
    """The seed of a part: independent of all others."""
    return pass_seed(seed, _PARTS, part)


class PartedRun:
    """Runs the stages of a job, or takes them over, and writes down both."""

    def __init__(self, job: Job, context: Context) -> None:
        self.job = job
        self._context = timed(context)
        # A lineage without what came before would tell less than was done.
        known = job.inherited is None or job.inherited.history is not None
        self._recorder = context.recorder(job.folder) if context.recorder is not None and known else None
        self._todo = max(1, sum(stage.steps for stage in job.stages if stage.piece >= job.begin(stage.part)))
        self._states: list[PartState] = []
        self._curve: list[dict[str, float]] = []
        self._done = self._steps = self._passes = self._samples = 0
        self._loss, self._start = float("nan"), ""

    def open(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Begin the lineage; `model` is what the parts start from.

        Raises MethodRefused where it is not what the adapters to be taken over were trained on.
        """
        job, context = self.job, self._context
        self._start = state_digest(model)
        earlier = job.inherited.stored.facts if job.inherited is not None else None
        if job.kind == "adapters" and earlier is not None and earlier.start != self._start:
            raise MethodRefused("the base is not the one that the adapters were trained on")
        if self._recorder is None:
            job.folder.mkdir(mode=0o700)
            return
        steps = sum(stage.steps for stage in job.stages)
        run = Run(
            recipe=job.recipe,
            records=job.records,
            seed=job.seed,
            steps=steps,
            steps_per_epoch=max(1, steps // job.recipe.training.epochs),
            device=context.device.type,
            threads=context.threads,
            model=model,
            optimizer=optimizer,
            whole=False,
        )
        self._recorder.begin(run)
        if job.inherited is not None:
            self._recorder.inherit(0)

    def take_over(self, stage: Stage) -> None:
        """Copy the state of a stage that met no forgotten record, and note what it did. Raises MethodRefused."""
        if self.job.inherited is None:
            raise RuntimeError("there is no earlier run to take a stage over from")
        state = self.job.inherited.stored.state(stage.part, stage.piece)
        self.job.inherited.stored.copy(state, self.job.folder)
        self._states.append(state)
        if self._recorder is not None:
            for batch in self._logged.get((stage.part, stage.piece), ()):
                self._recorder.seen(replace(batch, step=batch.step + self._done), None)
        self._done += stage.steps

    def train(
        self, stage: Stage, model: PreTrainedModel, optimizer: Optimizer, data: Encoded, write: Write | None
    ) -> None:
        """Run a stage in place; `data` are the records of the part in its order. Raises as `fit` does."""
        started = time.monotonic()
        job, view = self.job, data.first(len(stage.rows))
        listener = _Listener(self._recorder, stage.rows, self._done) if self._recorder is not None else None
        seed = pass_seed(part_seed(job.seed, stage.part), stage.piece, 0)
        loop = Loop(model, view, job.recipe.training, optimizer, self._within(stage), listener)
        fitted = loop.through(planned(view, job.recipe.training, seed, stage.steps), 0, stage.steps)
        self._add(stage, fitted)
        files = write(state_place(job.folder, stage.part, stage.piece)) if write is not None else {}
        self._states.append(
            PartState(
                part=stage.part,
                slice=stage.piece,
                records=len(stage.rows),
                steps=stage.steps,
                seconds=round(time.monotonic() - started, 3),
                files=files,
            )
        )

    def finish(self) -> tuple[Fitted, LineageFacts | None, str]:
        """Write the parts and the lineage; answers what was done, the lineage's facts, the digest of parts.json."""
        job = self.job
        facts = PartsFacts(
            kind=job.kind,
            parts=job.parts,
            slices=job.table.slices,
            seed=job.seed,
            recipe_digest=recipe_digest(job.recipe),
            start=self._start,
            table="",
            states=self._states,
        )
        digest = write_parts(job.folder, facts, job.table)
        lineage = self._recorder.finish() if self._recorder is not None else None
        exposures = job.table.exposures.sum(axis=1).astype(np.int32)
        return (
            Fitted(self._steps, self._passes, self._samples, self._loss, exposures, self._curve),
            lineage,
            digest,
        )

    def last_states(self) -> list[PartState]:
        """The state of each live part after its last stage."""
        return [state for state in self._states if state.slice == self.job.table.slices - 1]

    @property
    def whole_seconds(self) -> float | None:
        """What all stages took, whoever ran them; None where this run did it all."""
        return None if self.job.inherited is None else sum(state.seconds for state in self._states)

    @cached_property
    def _logged(self) -> dict[tuple[int, int], list[MicroBatch]]:
        """Passes of the stages of the earlier run as its log has them, steps of a stage counted from 0."""
        inherited = self.job.inherited
        if inherited is None or inherited.history is None:
            return {}
        states = inherited.stored.facts.states
        ends = np.cumsum([state.steps for state in states])
        found: dict[tuple[int, int], list[MicroBatch]] = {}
        for batch in inherited.history.batches(self.job.records, 0):
            at = min(int(np.searchsorted(ends, batch.step, side="right")), len(states) - 1)
            state, begin = states[at], int(ends[at]) - states[at].steps
            found.setdefault((state.part, state.slice), []).append(replace(batch, step=batch.step - begin))
        return found

    def _add(self, stage: Stage, fitted: Fitted) -> None:
        self.job.table.exposures[stage.rows, stage.piece] = fitted.exposures
        self._curve += _thinned(fitted.curve, self._steps, len(self.job.stages))
        self._steps += fitted.steps
        self._passes += fitted.passes
        self._samples += fitted.samples
        self._done += stage.steps
        self._loss = fitted.loss

    def _within(self, stage: Stage) -> Context:
        begin, end = self._steps, self._steps + stage.steps
        told = f"{self.job.kind.removesuffix('s')} {stage.part + 1} of {self.job.parts}"
        return part_of(self._context, begin / self._todo, end / self._todo, told)


def _thinned(curve: Sequence[dict[str, float]], begin: int, stages: int) -> list[dict[str, float]]:
    """A stage's share of a curve with as many points as that of one model; losses are means since the point before."""
    size = max(1, -(-len(curve) * stages // _POINTS))
    groups = [curve[rows.start : rows.stop] for rows in chunks(len(curve), size)]
    return [
        {"step": group[-1]["step"] + begin, "loss": float(np.mean([point["loss"] for point in group]))}
        for group in groups
    ]


class _Listener:
    """Tells the recorder of the whole run of one stage, in rows and steps of the whole."""

    def __init__(self, recorder: Recorder, rows: NDArray[np.int64], begin: int) -> None:
        self._recorder, self._rows, self._begin = recorder, rows, begin

    def watches(self, epoch: int) -> bool:
        return self._recorder.watches(epoch)

    def seen(self, batch: MicroBatch, predictions: Predictions | None) -> None:
        rows = self._rows[batch.rows].tolist()
        self._recorder.seen(replace(batch, rows=rows, step=batch.step + self._begin), predictions)

    def stepped(self, done: int) -> None:
        self._recorder.stepped(self._begin + done)

    def abandon(self) -> None:
        self._recorder.abandon()
