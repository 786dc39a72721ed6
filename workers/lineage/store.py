"""The lineage folder of a model directory: what it holds, written and read; and the history that replay follows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import MethodRefused
from workers.lineage.canaries import CanarySet, read_canaries, verify_commitment
from workers.lineage.checkpoints import FOLDER, StoredCheckpoint
from workers.lineage.duplicates import near_duplicates_of, read_duplicates
from workers.lineage.events import EVENTS
from workers.lineage.facts import FACTS, LOG, RECORDS, Lineage
from workers.lineage.log import OrderLog, read_log, write_log
from workers.modeling.code_version import package_versions
from workers.modeling.directories import sha256_file, write_atomic
from workers.modeling.observing import MicroBatch
from workers.modeling.problem import Context
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import STORED_BYTES, Records, stored_hashes
from workers.modeling.training_record import read_record


@dataclass(frozen=True)
class RecordTable:
    """The N records that log rows refer to: ids, 16-byte hashes of what is stored, learning events float32 [N, 4]."""

    ids: NDArray[Any]
    contents: list[bytes]
    events: NDArray[np.float32]

    def subset(self, places: NDArray[np.int64]) -> "RecordTable":
        """The records at these places."""
        return RecordTable(self.ids[places], [self.contents[at] for at in places.tolist()], self.events[places])


def write_records(table: RecordTable, log: OrderLog, path: Path) -> None:
    """records.parquet: the table with exposures and first step of each record, as the log has them."""
    count = len(table.ids)
    columns: dict[str, Any] = {
        "record_id": pa.array(table.ids.tolist(), pa.string()),
        "content": pa.array(table.contents, pa.binary(STORED_BYTES)),
        "exposures": log.exposures(count),
        "first_step": log.first_steps(count),
    }
    columns |= {name: table.events[:, at] for at, name in enumerate(EVENTS)}
    pq.write_table(pa.table(columns), path, use_dictionary=False)  # ids and hashes do not repeat


def write_lineage(folder: Path, lineage: Lineage, log: OrderLog, table: RecordTable) -> str:
    """Write log, records and lineage.json, whose SHA-256 is answered. `lineage.files` is completed."""
    write_log(log, folder / LOG)
    write_records(table, log, folder / RECORDS)
    others = [path for path in folder.iterdir() if path.is_file() and path.name != FACTS]
    lineage.files = {path.name: sha256_file(path) for path in sorted(others)}
    write_atomic(folder / FACTS, lineage.model_dump_json(by_alias=True, indent=2).encode() + b"\n")
    return sha256_file(folder / FACTS)


def folder_bytes(folder: Path) -> int:
    """What all files below a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def open_history(model_dir: Path) -> "ModelHistory | None":
    """The history of a model directory; None where its training recorded none, or it has been destroyed."""
    return ModelHistory(model_dir) if (model_dir / LINEAGE / FACTS).is_file() else None


def sealed_canaries(model_dir: Path) -> CanarySet | None:
    """The canaries of a model, if they are those that its training record committed to; else they count as lost.

    Raises BadModel for files that cannot be read.
    """
    canaries, record = read_canaries(model_dir / LINEAGE), read_record(model_dir)
    if canaries is None or record is None or record.lineage is None or record.lineage.canary_commitment is None:
        return None
    return canaries if verify_commitment(canaries, record.lineage.canary_commitment) else None


class ModelHistory:
    """Implements `workers.modeling.observing.History`. Nothing is read before it is asked for.

    Everything raises MethodRefused where a file is missing, damaged, or not the one that the training record of the
    model names.
    """

    def __init__(self, model_dir: Path) -> None:
        self.folder = model_dir / LINEAGE
        self._model_dir = model_dir

    @cached_property
    def facts(self) -> Lineage:
        """lineage.json, checked against the training record."""
        record = read_record(self._model_dir)
        if record is None or record.lineage is None:
            raise MethodRefused("the training record of the model names no lineage")
        path = self.folder / FACTS
        if sha256_file(path) != record.lineage.digest:
            raise MethodRefused("lineage.json is not the one that the training record names")
        try:
            return Lineage.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise MethodRefused(f"lineage.json cannot be read ({type(error).__name__})") from error

    @cached_property
    def log(self) -> OrderLog:
        """The order log."""
        self._check_file(LOG)
        return read_log(self.folder / LOG)

    @cached_property
    def records(self) -> RecordTable:
        """The records of the log."""
        self._check_file(RECORDS)
        try:
            table = pq.read_table(self.folder / RECORDS)
            events = np.stack([table[name].to_numpy().astype(np.float32) for name in EVENTS], axis=1)
            return RecordTable(
                np.array(table["record_id"].to_pylist(), dtype=str), table["content"].to_pylist(), events
            )
        except (OSError, KeyError, pa.ArrowException) as error:
            raise MethodRefused(f"{RECORDS} is damaged ({type(error).__name__})") from error

    @property
    def packages(self) -> dict[str, str]:
        """Versions of what decided the numbers of the logged run."""
        record = read_record(self._model_dir)
        return record.packages if record is not None else {}

    @property
    def seed(self) -> int:
        """The seed of the logged run."""
        return self.facts.seed

    @property
    def steps(self) -> int:
        """Optimiser steps of the logged run."""
        return self.facts.steps

    @property
    def checkpoints(self) -> list[StoredCheckpoint]:
        """The states that were kept, oldest first."""
        places = self.folder / FOLDER
        return [StoredCheckpoint(places / facts.name, facts) for facts in self.facts.checkpoints]

    def check(self, recipe: Recipe, data: Records, context: Context) -> None:
        """Whether the logged run, repeated on `data`, is the run it was but for the records left out."""
        facts = self.facts
        if facts.recipe_digest != recipe_digest(recipe):
            raise MethodRefused("the recipe is not the one of the logged run")
        if recipe.training.precision != "fp32":
            raise MethodRefused(f"runs in {recipe.training.precision} are not repeatable bit by bit; train in fp32")
        if self.packages != package_versions():
            raise MethodRefused("the logged run used other versions of Python, torch or what stands on it")
        if context.device.type != "cpu":
            raise MethodRefused(f"runs on {context.device.type} are not repeatable bit by bit: set the device to cpu")
        if (facts.device, facts.threads) != (context.device.type, context.threads):
            told = f"{facts.threads} threads on {facts.device}, this worker {context.threads} on {context.device.type}"
            raise MethodRefused(f"the logged run used {told}")
        if self.log.steps != facts.steps:
            raise MethodRefused(f"the order log covers {self.log.steps} of {facts.steps} steps")
        late = [point.step for point in self.checkpoints if point.step > self.log.steps]
        if late:
            raise MethodRefused(f"the order log ends before checkpoint {late[0]}")
        self._check_data(data)

    def first_exposure(self, data: Records) -> int:
        """The first step with a record of the log that is not in `data`, whoever left it out; all steps if none did."""
        return self.first_step_without(self.places(data))

    def first_step_without(self, places: NDArray[np.int64]) -> int:
        """The first step with a record whose place is negative."""
        first = self.log.first_steps(len(self.records.ids))
        return int(first[places < 0].min(initial=self.steps))

    def newest(self, step: int) -> StoredCheckpoint | None:
        """The newest state with at most `step` steps done."""
        return next((point for point in reversed(self.checkpoints) if point.step <= step), None)

    def batches(self, data: Records, begin: int = 0) -> Iterator[MicroBatch]:
        """Logged passes from step `begin` on, rows as positions in `data`, which may lack records of the log."""
        return self.log.renumbered(self.places(data)).batches(begin)

    def places(self, data: Records) -> NDArray[np.int64]:
        """Position in `data` of each record of the log, -1 where it is not there."""
        known = {str(name): at for at, name in enumerate(data.ids)}
        return np.array([known.get(str(name), -1) for name in self.records.ids], dtype=np.int64)

    def near_matches(self, ids: Iterable[str], similarity: float) -> set[str]:
        """From the table of near-duplicates, rows of at least this similarity. Raises BadModel for a damaged one."""
        table = read_duplicates(self.folder)
        if table is None:
            return set()
        return near_duplicates_of(table.filter(pc.greater_equal(table["similarity"], similarity)), ids)

    def confidence(self, ids: Iterable[str]) -> NDArray[np.float64]:
        """Mean probability of the right answer while the model was trained, of each of these records; else NaN."""
        known = dict(zip(self.records.ids.tolist(), self.records.events[:, 0].tolist(), strict=True))
        return np.array([known.get(str(name), np.nan) for name in ids], dtype=np.float64)

    def _check_data(self, data: Records) -> None:
        places = self.places(data)
        there = np.flatnonzero(places >= 0)
        if len(there) < len(data):
            raise MethodRefused(f"{len(data) - len(there)} of {len(data)} records are not in the log of the run")
        now = stored_hashes(data.subset(places[there].tolist()))
        changed = sum(now[at] != self.records.contents[row] for at, row in enumerate(there.tolist()))
        if changed:
            raise MethodRefused(f"{changed} of {len(data)} records are not what they were when the model was trained")

    def _check_file(self, name: str) -> None:
        path = self.folder / name
        if not path.is_file() or sha256_file(path) != self.facts.files.get(name):
            raise MethodRefused(f"{name} is missing or not the file that was recorded")
