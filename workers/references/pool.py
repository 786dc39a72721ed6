"""A reference pool from the plan to its tables, kept true while people are deleted.

`plan_pool`, `train_member` for each number (side by side, on any machine), `settle_pool`: each can be repeated, and
`build_pool` is the three in a row. A deletion makes half of the members stale: `refresh_member` trains each again
without the records, and `settle_pool` then removes what held them.
"""

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameters, Cancelled, JobError
from workers.modeling.directories import sha256_file
from workers.modeling.problem import Context, Progress
from workers.modeling.progress import part_of, timed
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import Records
from workers.modeling.training_record import forget_digest
from workers.references.layout import (
    POOL_FILE,
    SPLIT_FILE,
    Planned,
    Pool,
    PoolFacts,
    generations,
    member_path,
    read_facts,
    read_split,
    write_facts,
    write_split,
)
from workers.references.members import (
    Materials,
    check_materials,
    newest,
    reference_recipe,
    train_member,
)
from workers.references.settling import seen_by, settle_members, split_facts
from workers.references.split import plan_split, pool_key, reserve_subjects, sides_of

DEFAULT_COUNT = 32
RESERVED_SHARE = 0.3
_SAME = ("task", "count", "strategy", "reserved", "seed", "recipe_digest", "data_digest", "holdout_digest")


def build_pool(
    directory: Path,
    materials: Materials,
    context: Context,
    count: int = DEFAULT_COUNT,
    reserved: float | Collection[str] | None = None,
) -> Pool:
    """Build a whole pool, go on with one that was begun, or refresh one whose data has lost records since.

    `context.seed` decides halves and trainings; progress has the seconds left of the whole. Raises as its parts do,
    and Cancelled between two members.
    """
    pool = plan_pool(directory, materials, count, context.seed, reserved)
    gone = deleted_records(pool, materials.data)
    missing = [number for number in range(count) if _is_stale(directory, number, gone)]
    done = count - len(missing)
    clock = timed(context, done / count)
    for at, number in enumerate(missing, start=done):
        if context.cancelled():
            raise Cancelled(f"cancelled after {at} of {count} references; the same command goes on from here")
        share = part_of(clock, at / count, (at + 1) / count, "references")
        refresh_member(pool, number, gone, materials, share)
    settled = settle_pool(directory, gone)
    context.progress(Progress(1.0, 0.0, "references are ready"))
    return settled


def plan_pool(
    directory: Path,
    materials: Materials,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    reserved: float | Collection[str] | None = None,
) -> Pool:
    """Draw the halves and write them down, or answer the plan that is there already.

    `reserved`: the share of the data, or record ids of the people, that alone members are trained on (strategy
    "reserved_split"); None: everybody ("halves"). Raises BadParameters for a size that makes no pool and where the
    directory holds a pool of something else, BadRecipe, BadModel and BadDataset for materials that do not fit.
    """
    sides = sides_of(count)
    check_materials(materials)
    recipe = reference_recipe(materials.recipe, materials.model_dir)
    key = pool_key(seed, materials.data_digest)
    marked, told = _reserve(materials.data, reserved, key)
    facts = PoolFacts(
        task=materials.data.task,
        count=count,
        strategy="halves" if reserved is None else "reserved_split",
        reserved=told,
        seed=seed,
        recipe=recipe,
        recipe_digest=recipe_digest(recipe),
        data_digest=materials.data_digest,
        holdout_digest=materials.holdout_digest,
        sides=sides,
    )
    if (directory / POOL_FILE).exists():
        return _resumed(directory, facts)
    if directory.exists() and any(path.name[0] != "." and path.name != SPLIT_FILE for path in directory.iterdir()):
        raise BadParameters(f"{directory} holds something else than a pool: choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    planned = _plan(materials, count, key, marked)
    facts = facts.model_copy(update={"split": split_facts(planned, write_split(directory, planned))})
    write_facts(directory, facts)
    return Pool(directory, facts)


def _resumed(directory: Path, wanted: PoolFacts) -> Pool:
    pool = Pool(directory, read_facts(directory))
    for name in _SAME:
        if getattr(pool.facts, name) != getattr(wanted, name):
            what = name.removesuffix("_digest").replace("_", " ")
            raise BadParameters(f"{directory} holds a pool of another {what}: choose another directory")
    return pool


def _reserve(
    data: Records, reserved: float | Collection[str] | None, key: bytes
) -> tuple[NDArray[np.bool_] | None, float | str | None]:
    """(which records members train on, how pool.json tells it: the share, or a digest of the ids)."""
    if reserved is None:
        return None, None
    subjects = np.asarray(data.subjects, dtype=str)
    if isinstance(reserved, float):
        return reserve_subjects(subjects, reserved, key), reserved
    marked = np.isin(subjects, np.unique(subjects[data.rows_of(reserved)]))
    return marked, forget_digest(np.asarray(data.ids)[marked])


def _plan(materials: Materials, count: int, key: bytes, marked: NDArray[np.bool_] | None) -> Planned:
    data, held_out = materials.data, materials.held_out
    ids, subjects = (held_out.ids, held_out.subjects) if held_out is not None else ([], [])
    others = np.asarray(subjects, dtype=str)
    split = plan_split(np.asarray(data.subjects, dtype=str), others, count, key, marked)
    return Planned(np.asarray(data.ids, dtype=str), np.asarray(ids, dtype=str), split)


def open_pool(
    directory: Path, task: str | None = None, data_digest: str | None = None, holdout_digest: str | None = None
) -> Pool:
    """A complete pool, checked against what it is to be used for; None leaves a fact unchecked.

    Raises BadParameters, one line, for a pool that is not complete, was made for another task or other data, or whose
    tables or split are not the ones that were written.
    """
    pool = Pool(directory, read_facts(directory))
    if not pool.complete:
        raise BadParameters(f"{directory}: not all references are trained; run `lethe references` again")
    for name, wanted in (("task", task), ("data_digest", data_digest), ("holdout_digest", holdout_digest)):
        if wanted is not None and getattr(pool.facts, name) != wanted:
            what = {"task": "another task", "data_digest": "other data"}.get(name, "another held-out set")
            raise BadParameters(f"{directory} is a reference pool of {what}; build one for this model")
    for name, digest in {SPLIT_FILE: pool.facts.split.digest, **pool.facts.tables}.items():
        path = directory / name
        if not path.is_file() or sha256_file(path) != digest:
            raise BadParameters(f"{path}: not the file that was written; run `lethe references` again")
    return pool


def affected_members(pool: Pool, record_ids: Iterable[str]) -> list[int]:
    """The numbers of the members that were trained on any of these records; an id that the pool lacks touches none."""
    return read_split(pool.directory).members_with(set(record_ids))


def deleted_records(pool: Pool, data: Records) -> list[str]:
    """Ids of records that the pool still holds and the data does not."""
    held = read_split(pool.directory).train
    return [str(name) for name in held[~np.isin(held, np.asarray(data.ids, dtype=str))]]


def refresh_member(pool: Pool, number: int, excluded: Collection[str], materials: Materials, context: Context) -> Path:
    """Train a member on its half without these records; answers the directory of its new generation.

    Nothing is done where the newest generation has seen none of them. The older one stays until `settle_pool`.
    """
    found = generations(pool.directory, number)
    if not _is_stale(pool.directory, number, excluded):
        return pool.directory / member_path(number, found[0])
    following = found[0] + 1 if found else 0
    return train_member(pool, number, materials, context, following, excluded)


def refresh_pool(pool: Pool, excluded: Collection[str], materials: Materials, context: Context) -> Pool:
    """Refresh every affected member, one after the other, and settle the pool without these records."""
    numbers = affected_members(pool, excluded)
    clock = timed(context)
    for at, number in enumerate(numbers):
        share = part_of(clock, at / len(numbers), (at + 1) / len(numbers), "refresh")
        refresh_member(pool, number, excluded, materials, share)
    return settle_pool(pool.directory, excluded)


def settle_pool(directory: Path, excluded: Collection[str] = ()) -> Pool:
    """Make the pool consist of its members' newest generations, without the `excluded` records, and write the tables.

    Removes older generations, the scores of excluded records, and what interrupted trainings left; nothing may be
    training meanwhile. Can be repeated after a crash. Raises JobError while a member is missing, was made for another
    pool, or has seen a record that is not in its half (any more): refresh it first.
    """
    standing = [_newest_generation(directory, number) for number in range(read_facts(directory).count)]
    pool = settle_members(directory, standing, excluded)
    for path in directory.glob("member-*"):
        if path.name not in {member.path for member in pool.facts.members}:
            shutil.rmtree(path)
    return pool


def rebind_pool(directory: Path, data: Records, data_digest: str) -> Pool:
    """Let a pool follow its data when deleted records were compacted away; no member is trained again.

    Raises BadParameters where the data is of another task or lacks a record that the pool still holds.
    """
    facts = read_facts(directory)
    held = read_split(directory).train
    missing = int(np.count_nonzero(~np.isin(held, np.asarray(data.ids, dtype=str))))
    if data.task != facts.task or missing:
        raise BadParameters(f"{directory}: the new data lacks {missing} records of the pool; settle it without them")
    former = (*facts.former_data, facts.data_digest)
    facts = facts.model_copy(update={"data_digest": data_digest, "former_data": former})
    write_facts(directory, facts)
    return Pool(directory, facts)


def _newest_generation(directory: Path, number: int) -> tuple[str, int]:
    """(name of its directory, generation) of what a member was trained to last."""
    found = generations(directory, number)
    if not found:
        raise JobError(f"{directory}: reference {number} is not trained yet")
    return member_path(number, found[0]), found[0]


def _is_stale(directory: Path, number: int, excluded: Collection[str]) -> bool:
    """Whether a member is missing, or its newest generation was trained on any of these records."""
    path = newest(directory, number)
    if path is None or not excluded:
        return path is None
    return seen_by(path, np.array(sorted(set(excluded)), dtype=str)) > 0
