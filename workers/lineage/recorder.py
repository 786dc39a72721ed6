"""Keeps the lineage of a run while it trains, and makes that of a version that was edited afterwards."""

import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.catalogue.lineage import LINEAGE
from service.errors import LetheError
from workers.lineage.canaries import CanarySet, spending, taken_back, write_canaries
from workers.lineage.checkpoints import (
    FOLDER,
    CheckpointWriter,
    StoredCheckpoint,
    plan_checkpoints,
)
from workers.lineage.duplicates import find_duplicates, read_duplicates, without_records, write_duplicates
from workers.lineage.events import EventMeans
from workers.lineage.facts import CheckpointFacts, Lineage
from workers.lineage.log import LogWriter
from workers.lineage.reserve import write_reserve
from workers.lineage.store import (
    ModelHistory,
    RecordTable,
    folder_bytes,
    open_history,
    sealed_canaries,
    write_lineage,
)
from workers.modeling.observing import LineageFacts, MicroBatch, RecorderFactory, Run
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import Records, joined, stored_hashes
from workers.modeling.states import state_bytes
from workers.modeling.tasks import Predictions

_WATCHED_EPOCHS = 10


class TrainingRecorder:
    """Implements `workers.modeling.observing.Recorder`.

    `canaries` are those planted among the records of the run; they are sealed here, before the first step. `history`
    is the lineage that a repeated run follows.
    """

    def __init__(
        self,
        folder: Path,
        canaries: CanarySet | None = None,
        reserved: Collection[str] = (),
        history: ModelHistory | None = None,
    ) -> None:
        self._folder, self._canaries, self._reserved = folder, canaries, reserved
        self._history, self._inherits = history, False
        self._beside = ThreadPoolExecutor(1, "lineage")
        self._writer: CheckpointWriter | None = None
        self._log = LogWriter()
        self._kept: list[CheckpointFacts] = []

    def begin(self, run: Run) -> None:
        """Seal the canaries, choose the checkpoints, start their writer."""
        self._folder.mkdir(parents=True)
        self._folder.chmod(0o700)
        if self._canaries is not None:
            write_canaries(self._canaries, self._folder)
        write_reserve(self._reserved, self._folder)
        self._run = run
        plan, lineage = run.recipe.training, run.recipe.lineage
        affordable = lineage.storage // max(1, state_bytes(run.model, plan.optimizer)) if run.whole else 0
        self._wanted = set(plan_checkpoints(lineage.checkpoints, run.steps_per_epoch, plan.epochs, affordable))
        self._events = EventMeans(len(run.records))
        self._writer = CheckpointWriter(self._folder / FOLDER) if self._wanted else None
        # Beside the training: the records are only read, and it has long ended when the log is written.
        self._contents = self._beside.submit(stored_hashes, run.records)
        self._duplicates = self._beside.submit(self._find_duplicates)

    def watches(self, epoch: int) -> bool:
        """Learning events are means over epochs: some ten of them, evenly spread, tell as much as all."""
        return epoch % -(-self._run.recipe.training.epochs // _WATCHED_EPOCHS) == 0

    def inherit(self, begin: int) -> None:
        """Take over what the logged run did in its first `begin` steps: passes, states, learning events."""
        if self._history is None:
            raise RuntimeError("a repeated run needs the history that it follows")
        self._inherits = True
        for batch in self._history.batches(self._run.records):
            if batch.step < begin:
                self._log.add(batch)
        for point in self._history.checkpoints:
            if point.step <= begin and point.intact:
                _copy_state(point, self._folder)
                self._kept.append(point.facts)
                self._wanted.discard(point.step)

    def seen(self, batch: MicroBatch, predictions: Predictions | None) -> None:
        """Note a pass and what it showed of its records."""
        self._log.add(batch)
        if predictions is not None:
            self._events.add(batch.rows, predictions)

    def stepped(self, done: int) -> None:
        """Keep the state after this step where it is one of those chosen."""
        if done in self._wanted and self._writer is not None:
            self._writer.add(done, self._run.model, self._run.optimizer)

    def finish(self) -> LineageFacts:
        """Wait for the states and write everything else."""
        written = self._writer.close() if self._writer is not None else []
        run, log = self._run, self._log.log()
        duplicates = self._duplicates.result()
        if duplicates is not None:
            write_duplicates(duplicates, self._folder)
        table = RecordTable(np.asarray(run.records.ids), self._contents.result(), self._means())
        lineage = Lineage(
            seed=run.seed,
            steps=run.steps,
            epoch_steps=run.steps_per_epoch,
            recipe_digest=recipe_digest(run.recipe),
            device=run.device,
            threads=run.threads,
            files={},
            checkpoints=sorted([*self._kept, *written], key=lambda facts: facts.step),
        )
        digest = write_lineage(self._folder, lineage, log, table)
        planted = self._canaries
        return LineageFacts(
            digest=digest,
            checkpoints=len(lineage.checkpoints),
            bytes=folder_bytes(self._folder),
            canaries=len(planted.unspent) if planted is not None else 0,
            canary_commitment=planted.commitment if planted is not None else None,
            reserved_records=len(self._reserved),
        )

    def _find_duplicates(self) -> pa.Table | None:
        """The table of near-duplicates, None where the recipe wants none.

        A training on fewer of the same records needs no new search.
        """
        if self._run.recipe.lineage.duplicates == "off":
            return None
        ids = set(np.asarray(self._run.records.ids).tolist())
        if self._history is not None and (known := read_duplicates(self._history.folder)) is not None:
            before = set(self._history.records.ids.tolist())
            if ids <= before:
                return without_records(known, before - ids)
        return find_duplicates(self._run.records, self._run.fingerprints)

    def abandon(self) -> None:
        """Stop what ran beside a run that failed."""
        self._beside.shutdown(wait=False, cancel_futures=True)
        if self._writer is not None:
            self._writer.abandon()

    def _means(self) -> NDArray[np.float32]:
        """Learning events as means over the passes; a record that this run did not meet keeps those it had."""
        means = self._events.means()
        if self._inherits and self._history is not None:
            places = self._history.places(self._run.records)
            for row in np.flatnonzero(places >= 0):
                if self._events.times[places[row]] == 0:
                    means[places[row]] = self._history.records.events[row]
        return means


def recorder_for(base_dir: Path, reserved: Collection[str]) -> RecorderFactory:
    """Recorders for the trainings of a model line: they keep its canaries and its reserve and follow its history.

    A training takes in all planted canaries, those too that an edit has spent.
    """
    canaries = sealed_canaries(base_dir)
    planted = taken_back(canaries) if canaries is not None else None
    return partial(TrainingRecorder, canaries=planted, reserved=reserved, history=open_history(base_dir))


def carry_over(
    base_dir: Path, directory: Path, retain: Records, reserved: Collection[str], companions: Collection[str] = ()
) -> LineageFacts | None:
    """The lineage of a version that was edited: the base's with nothing but the retained records and the canaries.

    States from after the first exposure of any other hold its influence and are left out; so is, where the base's
    lineage is not what its training record says, all of it (None). `companions` are canaries that the edit has spent:
    they stay in the log, since repeating it takes them in again.
    """
    history = ModelHistory(base_dir)
    folder = directory / LINEAGE
    try:
        canaries, duplicates = sealed_canaries(base_dir), read_duplicates(history.folder)
        known = history.places(_with_canaries(retain, canaries))
        kept = np.flatnonzero(known >= 0)
        places = np.full(len(known), -1, dtype=np.int64)
        places[kept] = np.arange(len(kept))
        first, log = history.first_step_without(known), history.log.renumbered(places)
        points = [point for point in history.checkpoints if point.step <= first and point.intact]
    except (LetheError, OSError):
        return None
    folder.mkdir(mode=0o700)
    for point in points:
        _copy_state(point, folder)
    write_reserve(reserved, folder)
    if canaries is not None:
        canaries = spending(canaries, companions)
        write_canaries(canaries, folder)
    if duplicates is not None:
        gone = set(history.records.ids.tolist()) - set(history.records.ids[kept].tolist())
        write_duplicates(without_records(duplicates, gone), folder)
    lineage = history.facts.model_copy(update={"checkpoints": [point.facts for point in points], "edited": True})
    digest = write_lineage(folder, lineage, log, history.records.subset(kept))
    return LineageFacts(
        digest=digest,
        checkpoints=len(points),
        bytes=folder_bytes(folder),
        canaries=len(canaries.unspent) if canaries is not None else 0,
        canary_commitment=canaries.commitment if canaries is not None else None,
        reserved_records=len(reserved),
    )


def _with_canaries(retain: Records, canaries: CanarySet | None) -> Records:
    """The retained people and every planted canary, whatever an edit has spent."""
    if canaries is None:
        return retain
    planted = set(canaries.inside.ids.tolist())
    people = [row for row, name in enumerate(np.asarray(retain.ids).tolist()) if name not in planted]
    return joined(retain.subset(people), canaries.inside)


def _copy_state(point: StoredCheckpoint, folder: Path) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    shutil.copyfile(point.path, folder / FOLDER / point.path.name)
