"""What lies in the lineage folder of a model directory, as far as it can be read without torch: planning does."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.catalogue.lineage import LINEAGE
from service.errors import MethodRefused

FACTS, LOG, RECORDS, PARTS = "lineage.json", "order.parquet", "records.parquet", "parts.parquet"
PARTS_FACTS = "parts.json"


class CheckpointFacts(BaseModel):
    """One state: `step` steps were done; SHA-256 and size of its file."""

    model_config = ConfigDict(extra="forbid")

    step: int
    digest: str
    bytes: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"step-{self.step:07d}.safetensors"


class Lineage(BaseModel):
    """lineage.json. `files` maps the other files to their SHA-256; `epoch_steps` are optimiser steps of one epoch.

    All of it is as the training left it. A reserve that people were taken out of since is another file than it names.

    `edited` is true where the weights beside it did not come out of the log alone: the log is the training's, without
    the records that were forgotten since, and repeating it is still exact.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["lethe/lineage/1"] = Field("lethe/lineage/1", alias="schema")
    seed: int
    steps: int
    epoch_steps: int
    recipe_digest: str
    device: str
    threads: int
    files: dict[str, str]
    checkpoints: list[CheckpointFacts]
    edited: bool = False


def read_facts(model_dir: Path) -> Lineage | None:
    """lineage.json of a model directory, None where there is none; MethodRefused for one that cannot be read."""
    path = model_dir / LINEAGE / FACTS
    try:
        return Lineage.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise MethodRefused(f"{FACTS} cannot be read ({type(error).__name__})") from error


def first_exposure(model_dir: Path, ids: Iterable[str]) -> int | None:
    """The first step in which one of these records was in a batch; None where none was."""
    table = _read(model_dir / LINEAGE / RECORDS, ["record_id", "first_step"])
    wanted = np.isin(np.array(table["record_id"].to_pylist(), dtype=str), np.array(list(ids), dtype=str))
    found = table["first_step"].to_numpy()[wanted]
    return int(found.min()) if len(found) else None


def affected_parts(model_dir: Path, ids: Iterable[str]) -> tuple[dict[int, int], int, int] | None:
    """({part: first slice with one of these records}, parts, slices); None where the model was trained in one part."""
    path = model_dir / LINEAGE / PARTS
    if not path.is_file():
        return None
    table = _read(path, ["record_id", "part", "slice"])
    parts, slices = table["part"].to_numpy(), table["slice"].to_numpy()
    wanted = np.isin(np.array(table["record_id"].to_pylist(), dtype=str), np.array(list(ids), dtype=str))
    first: dict[int, int] = {}
    for part, piece in zip(parts[wanted].tolist(), slices[wanted].tolist(), strict=True):
        first[part] = min(piece, first.get(part, piece))
    return first, int(parts.max(initial=0)) + 1, int(slices.max(initial=0)) + 1


def kept_slices(model_dir: Path) -> dict[int, set[int]]:
    """{part: slices whose state lies on disk}; MethodRefused where parts.json cannot be read."""
    path = model_dir / LINEAGE / PARTS_FACTS
    kept: dict[int, set[int]] = {}
    try:
        for state in json.loads(path.read_bytes())["states"]:
            if state["files"]:
                kept.setdefault(int(state["part"]), set()).add(int(state["slice"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MethodRefused(f"{path.name} is missing or damaged ({type(error).__name__})") from error
    return kept


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise MethodRefused(f"{path.name} is missing or damaged ({type(error).__name__})") from error
