"""The training record: what a model directory was made from, how and by what, as JSON beside the weights.

`training_record.json` holds digests and settings, `training_records.parquet` one row per record that was really in
a batch: record_id and exposures (times seen; null where the maker is unknown).
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.catalogue.recipes import Recipe
from service.errors import BadModel
from workers.modeling.directories import sha256_file, sha256_json, write_atomic
from workers.modeling.observing import LineageFacts

RECORD_FILE = "training_record.json"
EXPOSURES_FILE = "training_records.parquet"
SCHEMA = "lethe/training-record/1"


class Unlearning(BaseModel):
    """How a candidate was derived. `forget_digest` is over the sorted ids of people's records that were forgotten,
    `companions` counts the canaries that were deleted with them."""

    model_config = ConfigDict(extra="forbid")

    method: str
    params: dict[str, Any]
    forget_digest: str
    forget_records: int
    companions: int = 0


class TrainingRecord(BaseModel):
    """Provenance of one model directory. `records` and `subjects` count what was trained on, `excluded` what was not.

    `parent` is the digest of the version it was derived from, null for a model trained from data. `cost` holds
    steps, samples, forward_passes, backward_passes and cpu_seconds of the run, `curve` its training loss (nats) by
    step, `edits` and `edited_records` the approximate edits since the line was last exact, `tokens` how many the
    records hold (null for images, and where they were not counted), `parts` the digest of parts.json where the model
    was trained in parts.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["lethe/training-record/1"] = Field("lethe/training-record/1", alias="schema")
    task: str
    recipe: Recipe | None
    recipe_digest: str | None
    data_digest: str
    holdout_digest: str | None
    columns: dict[str, str]
    records: int
    subjects: int
    excluded: int
    seed: int
    device: str
    threads: int
    precision: str
    code_version: str
    packages: dict[str, str]
    weights_digest: str
    steps: int
    seconds: float
    cost: dict[str, float]
    exposures_file: str = EXPOSURES_FILE
    exposures_digest: str
    tokens: int | None = None
    curve: list[dict[str, float]] = Field(default_factory=list)
    lineage: LineageFacts | None = None
    parts: str | None = None
    edits: int = 0
    edited_records: int = 0
    parent: str | None = None
    unlearning: Unlearning | None = None


def write_record(directory: Path, record: TrainingRecord) -> None:
    """Write training_record.json."""
    write_atomic(directory / RECORD_FILE, record.model_dump_json(by_alias=True, indent=2).encode() + b"\n")


def read_record(directory: Path) -> TrainingRecord | None:
    """The training record of a directory, None where it has none; BadModel where it cannot be read."""
    path = directory / RECORD_FILE
    try:
        return TrainingRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BadModel(f"{path}: not a valid training record ({type(error).__name__})") from error


def write_exposures(directory: Path, ids: NDArray[Any], exposures: NDArray[Any] | None) -> str:
    """Write the records really seen with their number of exposures; returns the file's SHA-256."""
    names = [str(name) for name in ids]
    counts = pa.nulls(len(names), pa.int32()) if exposures is None else pa.array(exposures.astype(np.int32))
    table = pa.table({"record_id": pa.array(names, pa.string()), "exposures": counts})
    pq.write_table(table, directory / EXPOSURES_FILE)
    return sha256_file(directory / EXPOSURES_FILE)


def read_exposures(directory: Path) -> pa.Table:
    """Columns record_id (string) and exposures (int32, null where unknown); BadModel where the file is missing."""
    try:
        return pq.read_table(directory / EXPOSURES_FILE)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadModel(f"{directory}: {EXPOSURES_FILE} is missing or damaged") from error


def weights_digest(files: list[Path]) -> str:
    """SHA-256 over the canonical JSON of {file name: SHA-256} of the weight files; the files of an ensemble are named
    with their member's folder."""
    nested = len({path.parent for path in files}) > 1
    names = {path: f"{path.parent.name}/{path.name}" if nested else path.name for path in files}
    return sha256_json({names[path]: sha256_file(path) for path in files})


def forget_digest(ids: NDArray[Any]) -> str:
    """SHA-256 over the sorted record ids, one a line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(map(str, ids))).encode()).hexdigest()
