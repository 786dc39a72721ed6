"""What an unlearning method is given and what it answers.

A method sees the selection quarter of the held-out records and never the certification part: the gate measures on
records that no method has touched.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from service.catalogue.recipes import Recipe
from service.errors import Cancelled
from workers.modeling.observing import History, RecorderFactory
from workers.modeling.records import Records


@dataclass(frozen=True)
class MemberScores:
    """Each reference by itself: whether it was `trained` on a record, bool [K, N], and its `scores` of it [K, N]; the N
    records are those of the table, in its order."""

    trained: NDArray[np.bool_]
    scores: NDArray[np.float64]


class ReferenceTable(Protocol):
    """The methods' side of a reference pool: what models that saw a record, and models that did not, say of it."""

    def rows(self, part: str, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Rows of these records of a set, "train" or "held_out". Raises Unevaluable for one that is not there."""
        ...

    def column(self, name: str) -> NDArray[np.float64]:
        """in_ or out_ with count, mean, var or correct, for each row of the table."""
        ...

    def members(self) -> MemberScores:
        """Each member of the side by itself. Raises BadParameters where only the table is left."""
        ...


@dataclass(frozen=True)
class Problem:
    """One unlearning problem: a served model, the records to forget and those to keep.

    `selection` is None where no held-out set was given, `recipe` is None for a model trained elsewhere without one.
    `data_digest` is the digest of the whole data set, forgotten records included. `lineage` is what the training of
    the served model recorded, None where nothing is left of it; `reserved` are records that every training of the line
    leaves out. `references` is None without a pool, and with one so small that all of it is the gate's. `companions`
    are those of the records to forget that are nobody's: canaries deleted along with an approximate edit; `planted` are
    those of the records to keep.
    `replacements` are corrected versions of some of the records to forget, under the same ids: these are rectified
    instead of deleted. None where nothing is corrected; only methods that say so take them. `oracle` is the directory
    of a model trained without the records to forget: known in experiments alone.
    """

    base_dir: Path
    task_name: str
    forget: Records
    retain: Records
    selection: Records | None
    recipe: Recipe | None
    data_digest: str
    holdout_digest: str | None
    columns: dict[str, str]
    lineage: History | None = None
    reserved: frozenset[str] = frozenset()
    references: ReferenceTable | None = None
    companions: frozenset[str] = frozenset()
    planted: frozenset[str] = frozenset()
    replacements: Records | None = None
    oracle: Path | None = None

    @property
    def people(self) -> Records:
        """The records to forget without the canaries among them."""
        return (
            self.forget.subset(np.flatnonzero(self.of_people(self.forget)).tolist()) if self.companions else self.forget
        )

    def of_people(self, records: Records) -> NDArray[np.bool_]:
        """Which of these records [N], forgotten or retained ones, are no canaries."""
        made_up = np.array(sorted(self.companions | self.planted), dtype=str)
        return ~np.isin(np.asarray(records.ids), made_up)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: fraction in 0..1, seconds left (None while unknown), what it does, current figures."""

    fraction: float
    eta_seconds: float | None
    message: str
    metrics: dict[str, float] = field(default_factory=dict)


def _ignore(progress: Progress) -> None:
    del progress


def _never() -> bool:
    return False


@dataclass
class Context:
    """How to run: where, with which seed, whom to tell, when to stop, what to record of a training (None: nothing).

    `scratch` is a folder in which a long edit keeps its state, to go on from there if it is interrupted (None:
    nowhere); who makes the context removes it.
    """

    device: torch.device
    seed: int = 0
    threads: int = 1
    progress: Callable[[Progress], None] = _ignore
    cancelled: Callable[[], bool] = _never
    recorder: RecorderFactory | None = None
    scratch: Path | None = None

    def ask(self, doing: str) -> None:
        """Raise Cancelled where the caller asked for it."""
        if self.cancelled():
            raise Cancelled(f"cancelled while {doing}")


@dataclass
class Outcome:
    """What a method did. Passes are counted in batches.

    Points of `curve` hold `step` and what the method knows of `forget_loss`, `selection_loss`, `retain_loss` and, for a
    training, `loss` (means in nats).
    """

    steps: int
    forward_passes: int
    backward_passes: int
    curve: list[dict[str, float]]
    exact: bool
    notes: list[str] = field(default_factory=list)


class Meter:
    """Progress of a loop of known length: cancellation at each step, a report a few times a second, the ETA."""

    def __init__(self, context: Context, total: int, message: str, interval: float = 0.25) -> None:
        self._context = context
        self._total = max(total, 1)
        self._message = message
        self._interval = interval
        self._start = time.monotonic()
        self._last = 0.0

    def step(self, done: int, metrics: dict[str, float] | None = None) -> None:
        """Raise Cancelled where the caller asked for it; otherwise report that `done` steps are behind us."""
        if self._context.cancelled():
            raise Cancelled(f"cancelled while {self._message}, after step {done} of {self._total}")
        now = time.monotonic()
        if now - self._last < self._interval and done < self._total:
            return
        self._last = now
        elapsed = now - self._start
        eta = elapsed / done * (self._total - done) if done else None
        fraction = min(done / self._total, 1.0)
        self._context.progress(Progress(fraction, eta, self._message, metrics or {}))
