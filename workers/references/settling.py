"""From trained members to the tables of a pool, and deleted records out of its files: no model is loaded here."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.errors import JobError
from workers.modeling.directories import sha256_file
from workers.modeling.training_record import TrainingRecord, read_exposures, read_record
from workers.references.layout import (
    HELD_OUT,
    SCORES_FILE,
    SIDES,
    TRAIN,
    Member,
    Planned,
    Pool,
    PoolFacts,
    SplitFacts,
    read_facts,
    read_split,
    read_table,
    write_facts,
    write_split,
    write_table,
)
from workers.references.split import member_seed
from workers.references.tables import LANGUAGE, side_table, table_name


def settle_members(
    directory: Path,
    standing: Sequence[tuple[str, int]],
    excluded: Collection[str] = (),
    excluded_held_out: Collection[str] = (),
) -> Pool:
    """Make the pool consist of these members, (name of the directory, generation) by number, and write its tables.

    Without the excluded records, whose scores are taken out. Removes no directory; can be repeated after a crash.
    Raises JobError for a member that was made for another pool or has seen a record that is not in its half (any more).
    """
    pool = Pool(directory, read_facts(directory))
    planned = read_split(directory).without(excluded, excluded_held_out)
    current = [_current(pool, number, *place, planned) for number, place in enumerate(standing)]
    facts = _without_records(pool, planned, [path for path, _ in current])
    made = enumerate(zip(current, standing, strict=True))
    facts = facts.model_copy(
        update={
            "members": tuple(_member(pool, number, generation, *pair) for number, (pair, (_, generation)) in made),
            "tables": _write_tables(pool, planned, [path for path, _ in current]),
        }
    )
    write_facts(directory, facts)
    return Pool(directory, facts)


def purge_records(
    directory: Path, members: Iterable[Path], excluded: Collection[str], excluded_held_out: Collection[str] = ()
) -> Pool:
    """Take deleted records out of the split and out of these members' scores; the pool is incomplete until settled.

    Who was trained on such a record is for the caller to know. Can be repeated after a crash.
    """
    pool = Pool(directory, read_facts(directory))
    planned = read_split(directory).without(excluded, excluded_held_out)
    write_facts(directory, pool.facts.model_copy(update={"members": (), "tables": {}}))
    facts = _without_records(pool, planned, members).model_copy(update={"members": (), "tables": {}})
    write_facts(directory, facts)
    return Pool(directory, facts)


def _without_records(pool: Pool, planned: Planned, members: Iterable[Path]) -> PoolFacts:
    """Write the split as planned, and the members' scores of its records alone; the facts that follow from it."""
    split = split_facts(planned, write_split(pool.directory, planned))
    for path in members:
        _purge(path, planned)
    excluded = pool.facts.excluded + pool.facts.split.records - split.records
    return pool.facts.model_copy(update={"split": split, "excluded": excluded})


def split_facts(planned: Planned, digest: str) -> SplitFacts:
    """Sizes of a plan, with the digest of the file it was written to."""
    trainable = int(planned.split.trainable.sum())
    return SplitFacts(records=len(planned.train), trainable=trainable, held_out=len(planned.held_out), digest=digest)


def _current(pool: Pool, number: int, name: str, generation: int, planned: Planned) -> tuple[Path, TrainingRecord]:
    """The directory of a member and its training record, when it has seen its half and nothing else."""
    path = pool.directory / name
    record = read_record(path)
    seed = member_seed(pool.facts.seed, number, generation)
    known = (pool.facts.data_digest, *pool.facts.former_data)
    if record is None or (record.recipe_digest, record.seed) != (pool.facts.recipe_digest, seed):
        raise JobError(f"{path}: was made for another pool; remove it and train it again")
    if record.data_digest not in known:
        raise JobError(f"{path}: was trained on other data; remove it and train it again")
    if seen_by(path, planned.train[planned.split.trained_by(number)]) < record.records:
        raise JobError(f"{path}: was trained on records that are not in its half; refresh it first")
    return path, record


def seen_by(path: Path, ids: NDArray[Any]) -> int:
    """How many of these records a member was trained on."""
    found = pc.is_in(read_exposures(path)["record_id"], value_set=pa.array(ids.tolist(), pa.string()))
    return int(pc.sum(found).as_py() or 0)


def _purge(path: Path, planned: Planned) -> None:
    """Take the scores of records that the pool does not hold any more out of a member."""
    table = read_table(path / SCORES_FILE)
    kept = table.filter(pc.or_(_rows_of(table, TRAIN, planned.train), _rows_of(table, HELD_OUT, planned.held_out)))
    if kept.num_rows < table.num_rows:
        write_table(path / SCORES_FILE, kept)


def _rows_of(table: pa.Table, part: str, ids: NDArray[Any]) -> Any:
    named = pc.is_in(table["record_id"], value_set=pa.array(ids.tolist(), pa.string()))
    return pc.and_(named, pc.equal(table["set"], part))


def _write_tables(pool: Pool, planned: Planned, members: list[Path]) -> dict[str, str]:
    digests = {}
    for side in SIDES:
        chosen = [members[2 * pair + half] for pair in pool.facts.sides[side] for half in (0, 1)]
        for per_byte in (False, True) if pool.facts.task == LANGUAGE else (False,):
            if chosen:
                table = side_table(planned, chosen, pool.facts.task, per_byte)
                name = table_name(side, per_byte)
                digests[name] = write_table(pool.directory / name, table)
    return digests


def _member(pool: Pool, number: int, generation: int, path: Path, record: TrainingRecord) -> Member:
    return Member(
        number=number,
        pair=number // 2,
        side=pool.side_of(number),
        half=1 if number % 2 else 0,
        generation=generation,
        path=path.name,
        records=record.records,
        seconds=record.seconds,
        weights_digest=record.weights_digest,
        scores_digest=sha256_file(path / SCORES_FILE),
    )
