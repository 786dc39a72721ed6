"""What a pool is on disk: the plan, one directory per member and generation, and one table per side.

POOL/pool.json               facts, and once everything is trained the members and the digests of the tables
POOL/split.arrow             record_id, set, trainable, out: the half of each pair whose member is an OUT reference
POOL/member-003/             a model directory with its training record and scores.arrow
POOL/member-003-g1/          the same member trained again without deleted records
POOL/method.arrow, gate.arrow   per record IN and OUT statistics; language models also have *-bytes.arrow
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.catalogue.recipes import Recipe
from service.errors import BadParameters
from workers.modeling.directories import sha256_file, write_atomic
from workers.references.split import Side, Split, Strategy

POOL_FILE = "pool.json"
SPLIT_FILE = "split.arrow"
SCORES_FILE = "scores.arrow"
TRAIN, HELD_OUT = "train", "held_out"
SIDES: tuple[Side, ...] = ("method", "gate")

_MEMBER = re.compile(r"member-(\d{3,4})(?:-g(\d+))?")


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Facts):
    """One trained reference. `records` it saw, `seconds` it took to train, `path` of its directory in the pool."""

    number: int
    pair: int
    side: Side
    half: Literal[0, 1]
    generation: int
    path: str
    records: int
    seconds: float
    weights_digest: str
    scores_digest: str


class SplitFacts(_Facts):
    """Sizes of the split. `trainable` records take part in halves; the others are OUT of every member."""

    records: int
    trainable: int
    held_out: int
    digest: str


class PoolFacts(_Facts):
    """pool.json. While members are still to be trained, `members` and `tables` are empty.

    `reserved`: the share that strategy "reserved_split" trains on, or a digest of its record ids. `excluded` counts
    records deleted since. `former_data`: digests that the data had before deleted records were compacted away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["lethe/reference-pool/1"] = Field("lethe/reference-pool/1", alias="schema")
    task: str
    count: int
    strategy: Strategy
    reserved: float | str | None = None
    seed: int
    recipe: Recipe
    recipe_digest: str
    data_digest: str
    former_data: tuple[str, ...] = ()
    holdout_digest: str | None
    sides: dict[Side, tuple[int, ...]]
    split: SplitFacts = SplitFacts(records=0, trainable=0, held_out=0, digest="")
    excluded: int = 0
    members: tuple[Member, ...] = ()
    tables: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """A pool on disk and what its pool.json says."""

    directory: Path
    facts: PoolFacts

    @property
    def complete(self) -> bool:
        """Whether every member is trained and the tables are there."""
        return len(self.facts.members) == self.facts.count

    def side_of(self, number: int) -> Side:
        """The side of a member."""
        return next(side for side, pairs in self.facts.sides.items() if number // 2 in pairs)


def write_facts(directory: Path, facts: PoolFacts) -> None:
    """Replace pool.json."""
    write_atomic(directory / POOL_FILE, facts.model_dump_json(by_alias=True, indent=2).encode() + b"\n")


def read_facts(directory: Path) -> PoolFacts:
    """Read pool.json. Raises BadParameters where there is none or it is not one."""
    path = directory / POOL_FILE
    try:
        return PoolFacts.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadParameters(f"{directory}: no reference pool: {POOL_FILE} cannot be read") from error
    except ValidationError as error:
        raise BadParameters(f"{path}: not the facts of a reference pool of this version; build it again") from error


@dataclass(frozen=True)
class Planned:
    """A split with the ids of its records: `train` [N] and `held_out` [M] strings."""

    train: NDArray[Any]
    held_out: NDArray[Any]
    split: Split

    def without(self, excluded: Collection[str], held_out: Collection[str] = ()) -> "Planned":
        """The plan without deleted training records, and without deleted held-out records."""
        kept, others = ~_named(self.train, excluded), ~_named(self.held_out, held_out)
        split = Split(self.split.trainable[kept], self.split.out[kept], self.split.held_out[others])
        return Planned(self.train[kept], self.held_out[others], split)

    def holds(self, record_ids: Collection[str], held_out: Collection[str] = ()) -> bool:
        """Whether any of these is a training record or a held-out record of the pool."""
        return bool(_named(self.train, record_ids).any() or _named(self.held_out, held_out).any())

    def members_with(self, record_ids: Collection[str]) -> list[int]:
        """The numbers of the members that train on any of these records; an unknown id touches none."""
        rows = _named(self.train, record_ids)
        return [number for number in range(self.split.count) if bool(self.split.trained_by(number)[rows].any())]


def _named(ids: NDArray[Any], wanted: Collection[str]) -> NDArray[np.bool_]:
    return np.isin(ids, np.array(sorted(set(wanted)), dtype=str))


def write_split(directory: Path, planned: Planned) -> str:
    """Replace split.arrow; returns its SHA-256."""
    split = planned.split
    out = np.concatenate([split.out, split.held_out])
    columns = {
        "record_id": pa.array(np.concatenate([planned.train, planned.held_out]).tolist(), pa.string()),
        "set": pa.array([TRAIN] * len(planned.train) + [HELD_OUT] * len(planned.held_out), pa.string()),
        "trainable": pa.array(np.concatenate([split.trainable, np.zeros(len(planned.held_out), dtype=bool)])),
        "out": pa.FixedSizeListArray.from_arrays(pa.array(out.ravel()), out.shape[1]),
    }
    return write_table(directory / SPLIT_FILE, pa.table(columns))


def read_split(directory: Path) -> Planned:
    """Read split.arrow. Raises BadParameters where it is missing or damaged."""
    table = read_table(directory / SPLIT_FILE)
    parts = {part: table.filter(pc.equal(table["set"], part)) for part in (TRAIN, HELD_OUT)}
    ids = {part: np.asarray(rows["record_id"].to_pylist(), dtype=str) for part, rows in parts.items()}
    out = {part: _matrix(rows["out"]) for part, rows in parts.items()}
    trainable = parts[TRAIN]["trainable"].to_numpy()
    return Planned(ids[TRAIN], ids[HELD_OUT], Split(trainable, out[TRAIN], out[HELD_OUT]))


def _matrix(column: Any) -> NDArray[np.uint8]:
    flat = column.combine_chunks()
    values = flat.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.uint8).reshape(len(flat), flat.type.list_size)


def write_table(path: Path, table: pa.Table) -> str:
    """Replace an Arrow file, whole or not at all; returns its SHA-256."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_atomic(path, sink.getvalue())
    return sha256_file(path)


def read_table(path: Path) -> pa.Table:
    """Read an Arrow file. Raises BadParameters where it is missing or damaged."""
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise BadParameters(f"{path}: missing or not an Arrow file; build the pool again") from error


def member_path(number: int, generation: int) -> str:
    """The name of a member's directory in its pool."""
    return f"member-{number:03d}" + (f"-g{generation}" if generation else "")


def generations(directory: Path, number: int) -> list[int]:
    """The generations of a member that are there, newest first."""
    found = (_MEMBER.fullmatch(path.name) for path in directory.glob(f"member-{number:03d}*"))
    return sorted((int(match[2] or 0) for match in found if match and int(match[1]) == number), reverse=True)
