"""Which deletions are simulated: forget sets of each size, from records that are easy, hard, repeated or planted.

Four designs (research: verification suite, method qualification): `random` records, `memorised` ones, drawn from those
that the training found hardest to learn, `duplicated` ones, forgotten with all their copies, and the model's `canary`
records. Where the data has too few copies they are planted, which takes a base model of its own that was trained with
them; a canary was planted when the model was trained, or there is none. Everything follows from seed and data.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.verification.policy import VerificationPolicy
from service.verification.qualification import REACH
from workers.modeling.records import MemoryRecords, Records

RANDOM, MEMORISED, DUPLICATED, CANARY = "random", "memorised", "duplicated", "canary"
SIZES = (1, 10, 100)
"""Of which those are the default that stand for sets on which an approximate attempt could pass."""
LARGEST_SHARE = 0.1
"""Of the data, for one forget set and for all sets that one retrain leaves out."""
COPIES = 2
_HARDEST = 0.05
_PREFIX = "lethe-copy"


@dataclass(frozen=True)
class Job:
    """One simulated deletion: the record ids to forget, `size` of them beside copies."""

    design: str
    size: int
    repetition: int
    ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.design}-{self.size}-{self.repetition:03d}"


@dataclass(frozen=True)
class Source:
    """What a design draws from: records with their copies, and which of them are drawn from at each size.

    `ids` [N]; `copies` maps an id to those that are forgotten along. `ranked`: the ids in descending order of
    difficulty, of which the first are drawn from; else all alike.
    """

    design: str
    ids: NDArray[Any]
    copies: Mapping[str, Sequence[str]]
    ranked: bool = False

    def pool(self, size: int) -> NDArray[Any]:
        """The ids that a forget set of this size is drawn from."""
        return self.ids[: max(2 * size, int(_HARDEST * len(self.ids)))] if self.ranked else self.ids


def default_sizes(policy: VerificationPolicy, records: int) -> list[int]:
    """Sizes of forget sets worth qualifying: those whose class holds a set that the gate could let pass, and that fit.

    A class of size s stands for up to ten times as many records. By the default policy no approximate attempt can pass
    on fewer than 33 records, so that the class of single ones would be measured for nothing. Never none: the smallest
    of SIZES where nothing else is left.
    """
    smallest = min(int(size) for size in policy.auc_margin)
    fitting = [size for size in SIZES if size <= LARGEST_SHARE * records]
    return [size for size in fitting if REACH * size > smallest] or [fitting[-1] if fitting else SIZES[0]]


def draw_jobs(
    sources: Sequence[Source], sizes: Sequence[int], repetitions: int, records: int, seed: int
) -> tuple[list[Job], list[str]]:
    """(jobs by repetition, notes on what was left out): no set larger than a tenth of the `records` of the data.

    Sets of one repetition are disjoint as far as the records reach, so that one retrain serves several.
    """
    jobs: list[Job] = []
    notes: dict[str, None] = {}
    for repetition in range(repetitions):
        taken: set[str] = set()
        # Small pools first: what is left of the data is enough for random sets.
        for source in sorted(sources, key=lambda one: len(one.ids)):
            for size in sorted(sizes):
                ids = _draw(source, size, repetition, records, seed, taken)
                if ids is None:
                    notes[f"{source.design}: no sets of {size} records, the data is too small for them"] = None
                    continue
                taken.update(ids)
                jobs.append(Job(source.design, size, repetition, tuple(sorted(ids))))
    return jobs, list(notes)


def _draw(source: Source, size: int, repetition: int, records: int, seed: int, taken: set[str]) -> list[str] | None:
    """One forget set; None where it would be too large a part of the data, or the source has too few records."""
    pool = source.pool(size)
    if len(pool) < size:
        return None
    draw = np.random.default_rng(seed_of(seed, source.design, size, repetition))
    order = pool[draw.permutation(len(pool))].tolist()
    free = [name for name in order if name not in taken]
    ids: set[str] = set()
    chosen = 0
    for name in [*free, *(name for name in order if name in taken)]:
        if chosen == size:
            break
        if name not in ids:
            ids |= {name, *source.copies.get(name, ())}
            chosen += 1
    return sorted(ids) if chosen == size and len(ids) <= LARGEST_SHARE * records else None


def seed_of(seed: int, *path: object) -> int:
    """A seed for one purpose, 63 bits: the same path gives the same, another an unrelated one."""
    told = "/".join(["lethe/qualification", str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") >> 1


def hardest(ids: NDArray[Any], memorization: NDArray[np.float64]) -> NDArray[Any]:
    """The ids [N] in descending order of memorization [N]; those without a number last."""
    return np.asarray(ids[np.argsort(-np.nan_to_num(memorization, nan=-np.inf), kind="stable")])


def copied(people: Records, table: pa.Table | None) -> dict[str, list[str]]:
    """Each record of `people` that has exact or near copies there, with the ids of these and of their copies."""
    if table is None:
        return {}
    known = set(np.asarray(people.ids).tolist())
    group: dict[str, set[str]] = {}
    for pair in zip(table["left"].to_pylist(), table["right"].to_pylist(), strict=True):
        if known.issuperset(pair):
            merged = {*pair}.union(*(group.get(name, ()) for name in pair))
            group |= dict.fromkeys(merged, merged)
    return {name: sorted(others - {name}) for name, others in group.items()}


def plant_copies(people: Records, sizes: Sequence[int], seed: int) -> tuple[MemoryRecords, dict[str, list[str]]] | None:
    """(copies to train on beside `people`, the ids of each original's): twice as many as the largest set takes.

    They belong to the person of the original and are at most a tenth of the data. None where not one set fits.
    """
    fitting = [size for size in sizes if (1 + COPIES) * size <= LARGEST_SHARE * len(people)]
    if not fitting:
        return None
    count = min(2 * max(fitting), int(LARGEST_SHARE / COPIES * len(people)))
    rows = np.random.default_rng(seed_of(seed, "copies")).choice(len(people), count, replace=False).tolist()
    ids, subjects = np.asarray(people.ids)[rows], np.asarray(people.subjects)[rows]
    names = {str(name): [f"{_PREFIX}-{at}-{name}" for at in range(COPIES)] for name in ids}
    values = people.take(rows)
    made = MemoryRecords(
        people.task,
        [names[str(name)][at] for at in range(COPIES) for name in ids],
        np.tile(subjects, COPIES),
        {role: column * COPIES for role, column in values.items()},
    )
    return made, names


def packed(jobs: Sequence[Job], limit: int) -> list[list[Job]]:
    """Jobs that share a retrain: disjoint forget sets of at most `limit` records together, first fit."""
    packs: list[tuple[list[Job], set[str]]] = []
    for job in jobs:
        wanted = set(job.ids)
        fitting = (pack for pack in packs if not wanted & pack[1] and len(wanted) + len(pack[1]) <= limit)
        chosen = next(fitting, None)
        if chosen is None:
            chosen = [], set()
            packs.append(chosen)
        chosen[0].append(job)
        chosen[1].update(wanted)
    return [pack for pack, _ in packs]
