"""What a training run tells whoever records it, and what a recorder leaves: the seam between training and lineage."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from service.catalogue.recipes import Recipe

if TYPE_CHECKING:
    # Training records are read by light stages too, which do without torch.
    from torch import nn
    from torch.optim import Optimizer

    from workers.modeling.problem import Context
    from workers.modeling.records import Records
    from workers.modeling.tasks import Predictions


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass of a run.

    `step` counts optimiser steps from 0, `micro` the passes within one; `rows` are positions in the run's records;
    `seed` feeds everything random in the pass (dropout, augmentation); `rate` is the learning rate of the step,
    `weight` the share of its gradient; `boundary` marks the last pass of the step.
    """

    step: int
    epoch: int
    micro: int
    rows: list[int]
    seed: int
    rate: float
    weight: float
    boundary: bool


@dataclass(frozen=True)
class Run:
    """A run that is about to begin: its records in the order that `MicroBatch.rows` refers to, sizes and settings.

    `whole` is False for a training in parts: `model` is but the first part, and its states are kept by others.
    `fingerprints` are those of the encoded records, where there are any.
    """

    recipe: Recipe
    records: "Records"
    seed: int
    steps: int
    steps_per_epoch: int
    device: str
    threads: int
    model: "nn.Module"
    optimizer: "Optimizer"
    whole: bool = True
    fingerprints: NDArray[np.uint64] | None = None


class LineageFacts(BaseModel):
    """What a training record says of the lineage beside it. `digest` is that of lineage.json, sizes are bytes."""

    model_config = ConfigDict(extra="forbid")

    digest: str
    checkpoints: int
    bytes: int
    canaries: int = 0
    canary_commitment: str | None = None
    reserved_records: int = 0


class Listener(Protocol):
    """Follows the passes and steps of one training loop."""

    def watches(self, epoch: int) -> bool:
        """Whether the predictions of this epoch are wanted."""
        ...

    def seen(self, batch: MicroBatch, predictions: "Predictions | None") -> None:
        """After each pass; None if no predictions were wanted."""
        ...

    def stepped(self, done: int) -> None:
        """After each optimiser step; `done` steps are behind us."""
        ...

    def abandon(self) -> None:
        """The run has failed: stop what runs beside it."""
        ...


class Recorder(Listener, Protocol):
    """Keeps the lineage of one run."""

    def begin(self, run: Run) -> None:
        """Called once, with the untrained model."""
        ...

    def inherit(self, begin: int) -> None:
        """The run repeats an earlier one from step `begin` on; what came before is taken over from its lineage."""
        ...

    def finish(self) -> LineageFacts:
        """Write what is left to write. Raises DiskFull and OSError."""
        ...


RecorderFactory = Callable[[Path], Recorder]
"""Makes the recorder that writes into this directory, which does not exist yet."""


class Checkpoint(Protocol):
    """A state of an earlier run. `step` optimiser steps were done."""

    @property
    def step(self) -> int: ...

    def restore(self, model: "nn.Module", optimizer: "Optimizer") -> None:
        """Put weights, buffers and optimiser state back; MethodRefused when the files are not those recorded."""
        ...


class History(Protocol):
    """The lineage of the served model, as a method that repeats its training may use it."""

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def check(self, recipe: Recipe, data: "Records", context: "Context") -> None:
        """MethodRefused with the reason where the run cannot be repeated on this data, recipe or device."""
        ...

    def first_exposure(self, data: "Records") -> int:
        """The first step in which a record of the log that is not in `data` was in a batch; `steps` when none was."""
        ...

    def newest(self, step: int) -> Checkpoint | None:
        """The newest checkpoint with at most `step` steps behind it; None: begin with the initial weights."""
        ...

    def confidence(self, ids: Iterable[str]) -> NDArray[np.float64]:
        """Mean probability of the right answer while the model was trained, of each of these records; else NaN."""
        ...

    def batches(self, data: "Records", begin: int) -> Iterator[MicroBatch]:
        """The logged passes from step `begin` on, with rows as positions in `data`; records not in it are left out."""
        ...

    def near_matches(self, ids: Iterable[str], similarity: float) -> set[str]:
        """Other records of the training that said the same as one of these, or nearly; none where nobody looked."""
        ...
