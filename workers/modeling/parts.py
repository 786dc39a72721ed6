"""Training in parts: which record belongs to which part, and the states of the parts on disk.

A part is a shard with its slices (SISA) or a cohort with its adapter. Subjects are never split. Who belongs where is
drawn once and stored, so that a deletion moves nobody else. In `<model>/lineage/`:

- parts.json: kind, counts, seed, recipe, digest of the table and of every state; its own digest stands in the
  training record
- parts.parquet: record_id, part, slice (both from 0), content (16-byte hash), exposures (one number a slice)
- parts/NNN/slice-MM/: the state of part N after its stage M
"""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.errors import BadDataset, MethodRefused
from workers.modeling.directories import sha256_file, write_atomic
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import STORED_BYTES, Records, stored_hashes
from workers.modeling.training_record import read_record

FACTS, TABLE, FOLDER = "parts.json", "parts.parquet", "parts"


class PartState(BaseModel):
    """One stage of one part: on how many records, steps, seconds. `files`: name -> SHA-256; empty where not kept."""

    model_config = ConfigDict(extra="forbid")

    part: int
    slice: int
    records: int
    steps: int
    seconds: float
    files: dict[str, str]


class PartsFacts(BaseModel):
    """parts.json. `start` is the digest of the model that adapters were put on, or of one that shards begin like;
    `table` is the SHA-256 of parts.parquet; `states` are ordered by part, then slice."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["lethe/parts/1"] = Field("lethe/parts/1", alias="schema")
    kind: Literal["shards", "adapters"]
    parts: int
    slices: int
    seed: int
    recipe_digest: str
    start: str
    table: str
    states: list[PartState]


@dataclass(frozen=True)
class PartTable:
    """N records: `part`, `slice` int32 [N], content hashes, `exposures` int32 [N, slices] by stage."""

    ids: NDArray[Any]
    part: NDArray[np.int32]
    slice: NDArray[np.int32]
    contents: list[bytes]
    exposures: NDArray[np.int32]

    @property
    def slices(self) -> int:
        """How many stages a part has."""
        return int(self.exposures.shape[1])

    def order(self, part: int) -> NDArray[np.int64]:
        """The rows of a part, slice by slice, within a slice as the table has them."""
        rows = np.flatnonzero(self.part == part)
        return rows[np.argsort(self.slice[rows], kind="stable")]

    def keep(self, wanted: NDArray[np.bool_]) -> "PartTable":
        """The rows marked, in the same order."""
        contents = [content for content, kept in zip(self.contents, wanted.tolist(), strict=True) if kept]
        return PartTable(self.ids[wanted], self.part[wanted], self.slice[wanted], contents, self.exposures[wanted])

    def blank(self) -> "PartTable":
        """The same assignment, nothing seen yet."""
        return replace(self, exposures=np.zeros_like(self.exposures))


def divide(data: Records, parts: int, slices: int, seed: int) -> PartTable:
    """Draw who belongs where: subjects in the order of a keyed hash, each to the part with the fewest records so far;
    within a part in the same way to slices.

    Raises BadDataset where there are fewer subjects than parts.
    """
    names, owner, sizes = np.unique(np.asarray(data.subjects, dtype=str), return_inverse=True, return_counts=True)
    if len(names) < parts:
        raise BadDataset(f"{parts} parts need at least as many subjects, and the data has {len(names)}")
    key = hashlib.sha256(f"lethe/parts/1 {seed}".encode()).digest()
    drawn = sorted(range(len(names)), key=lambda at: _draw(str(names[at]), key))
    part = _balanced(drawn, sizes, parts)
    piece = np.zeros(len(names), dtype=np.int32)
    members: list[list[int]] = [[] for _ in range(parts)]
    for at in drawn:
        members[part[at]].append(at)
    for group in members:
        piece[group] = _balanced(group, sizes, slices)[group]
    exposures = np.zeros((len(data), slices), dtype=np.int32)
    return PartTable(np.asarray(data.ids, dtype=str), part[owner], piece[owner], stored_hashes(data), exposures)


def _draw(subject: str, key: bytes) -> bytes:
    return hashlib.blake2b(subject.encode(), key=key, digest_size=16).digest()


def _balanced(members: list[int], sizes: NDArray[np.int64], bins: int) -> NDArray[np.int32]:
    """Bin of each member, int32 [len(sizes)]; the lowest of equals."""
    chosen = np.zeros(len(sizes), dtype=np.int32)
    filled = np.zeros(bins, dtype=np.int64)
    for at in members:
        chosen[at] = int(filled.argmin())
        filled[chosen[at]] += sizes[at]
    return chosen


def state_place(folder: Path, part: int, piece: int) -> Path:
    """Where the state of a part after a stage lies, in the lineage folder `folder`."""
    return folder / FOLDER / f"{part:03d}" / f"slice-{piece:02d}"


def write_parts(folder: Path, facts: PartsFacts, table: PartTable) -> str:
    """Write parts.parquet and parts.json, whose SHA-256 is answered. `facts.table` is set."""
    exposures = pa.array(table.exposures.tolist(), pa.list_(pa.int32()))
    columns = {
        "record_id": pa.array(table.ids.tolist(), pa.string()),
        "part": pa.array(table.part),
        "slice": pa.array(table.slice),
        "content": pa.array(table.contents, pa.binary(STORED_BYTES)),
        "exposures": exposures,
    }
    pq.write_table(pa.table(columns), folder / TABLE)
    facts.table = sha256_file(folder / TABLE)
    write_atomic(folder / FACTS, facts.model_dump_json(by_alias=True, indent=2).encode() + b"\n")
    return sha256_file(folder / FACTS)


class StoredParts:
    """The parts of a served model. Everything raises MethodRefused where a file is missing or not the recorded one."""

    def __init__(self, model_dir: Path, kind: str) -> None:
        self._model_dir = model_dir
        self.folder = model_dir / LINEAGE
        if not (self.folder / FACTS).is_file():
            raise MethodRefused(f"no {kind} are left of the training of the model: use another exact method")
        if self.facts.kind != kind:
            raise MethodRefused(f"the model was trained in {self.facts.kind}, not in {kind}")

    @cached_property
    def facts(self) -> PartsFacts:
        """parts.json, checked against the training record."""
        record = read_record(self._model_dir)
        path = self.folder / FACTS
        if record is None or sha256_file(path) != record.parts:
            raise MethodRefused(f"{FACTS} is not the one that the training record names")
        try:
            return PartsFacts.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise MethodRefused(f"{FACTS} cannot be read ({type(error).__name__})") from error

    @cached_property
    def table(self) -> PartTable:
        """Who belongs where."""
        path = self.folder / TABLE
        if not path.is_file() or sha256_file(path) != self.facts.table:
            raise MethodRefused(f"{TABLE} is missing or not the file that was recorded")
        try:
            read = pq.read_table(path)
            exposures = np.array(read["exposures"].to_pylist(), dtype=np.int32).reshape(len(read), self.facts.slices)
            ids = np.array(read["record_id"].to_pylist(), dtype=str)
            part, piece = (read[name].to_numpy().astype(np.int32) for name in ("part", "slice"))
            return PartTable(ids, part, piece, read["content"].to_pylist(), exposures)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise MethodRefused(f"{TABLE} is damaged ({type(error).__name__})") from error

    def check(self, recipe: Recipe, retained: Records) -> None:
        """Whether the parts are those of this recipe, and the retained records those that they were trained on."""
        if self.facts.recipe_digest != recipe_digest(recipe):
            raise MethodRefused("the recipe is not the one of the parts")
        rows = {str(name): at for at, name in enumerate(self.table.ids)}
        strangers = sum(str(name) not in rows for name in retained.ids)
        if strangers:
            raise MethodRefused(f"{strangers} of {len(retained)} records are in no part of the model")
        now = zip(retained.ids, stored_hashes(retained), strict=True)
        changed = sum(self.table.contents[rows[str(name)]] != content for name, content in now)
        if changed:
            raise MethodRefused(f"{changed} of {len(retained)} records are not what they were when it was trained")

    def affected(self, ids: Iterable[str]) -> dict[int, int]:
        """{part: first slice with one of these records}; parts without any are not named."""
        return self._first(np.isin(self.table.ids, np.array(list(ids), dtype=str)))

    def without(self, retained: Records) -> tuple[PartTable, Records, dict[int, int]]:
        """(table, records in its order, {part: first slice that lost a record}) for the records that stay."""
        rows = {str(name): at for at, name in enumerate(retained.ids)}
        kept = np.isin(self.table.ids, np.asarray(retained.ids, dtype=str))
        first = self._first(~kept)
        table = self.table.keep(kept)
        exposures = table.exposures.copy()
        for part, piece in first.items():
            exposures[table.part == part, piece:] = 0
        return replace(table, exposures=exposures), retained.subset([rows[str(name)] for name in table.ids]), first

    def _first(self, wanted: NDArray[np.bool_]) -> dict[int, int]:
        first: dict[int, int] = {}
        for part, piece in zip(self.table.part[wanted].tolist(), self.table.slice[wanted].tolist(), strict=True):
            first[part] = min(piece, first.get(part, piece))
        return first

    def state(self, part: int, piece: int) -> PartState:
        """What is recorded of a stage."""
        for one in self.facts.states:
            if (one.part, one.slice) == (part, piece):
                return one
        raise MethodRefused(f"{FACTS} knows nothing of stage {piece} of part {part}")

    def newest(self, part: int, before: int) -> int:
        """The last slice below `before` whose state was kept; -1 where there is none."""
        kept = [one.slice for one in self.facts.states if one.part == part and one.slice < before and one.files]
        return max(kept, default=-1)

    def copy(self, state: PartState, folder: Path) -> None:
        """Take a state over, byte for byte, into another lineage folder."""
        source, target = (state_place(place, state.part, state.slice) for place in (self.folder, folder))
        if state.files:
            target.mkdir(parents=True)
        for name, digest in state.files.items():
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
            if not (target / name).is_file() or sha256_file(target / name) != digest:
                where = f"{state.part:03d}/slice-{state.slice:02d}/{name}"
                raise MethodRefused(f"{where} is missing or not the file that was recorded")


def affordable_slices(slices: int, count: int) -> set[int]:
    """The slices after which a state is worth its space, `count` of the first `slices` - 1, evenly spread."""
    candidates = np.arange(slices - 1)
    if count >= len(candidates):
        return set(candidates.tolist())
    return {int(part[len(part) // 2]) for part in np.array_split(candidates, count)} if count > 0 else set()
