"""What the gate's self-test is made of: generated records on disk, one a person but for a few people with many, and
retrains that each leave out ten disjoint forget sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.gate_data import CLASSES, Made, Maker
from benchmarks.reference_world import World
from service.catalogue.recipes import Recipe, parse_recipe
from workers.modeling.directories import sha256_json
from workers.modeling.records import MemoryRecords
from workers.modeling.tokenizers import train_tokenizer

BIG, BIG_PEOPLE = 40, 5
RANDOM, SMALL, MISLABELLED, ONE_CLASS, ONE_PERSON = "random", "random, few", "mislabelled", "of one class", "one person"
WHOLE_CLASS = "whole class"
SMALL_SIZE = 48
TOKENIZER_TEXTS = 2000
_PUBLIC = 1_000_003  # seed of the texts that the tokenizer is made from: no record of the world is among them


@dataclass(frozen=True)
class Plan:
    """One task of the self-test: its records, recipe and sizes.

    `sizes`: for random, mislabelled and one-class sets how many of them a retrain leaves out, and of how many records.
    `whole_classes`: how many classes are left out as a whole, by a retrain each. `entries` of the tokenizer.
    """

    name: str
    told: str
    task: str
    make: Maker
    train: int
    held_out: int
    recipe: Mapping[str, object]
    sizes: Mapping[str, tuple[int, int]]
    whole_classes: int = 0
    entries: int | None = None

    def small(self) -> "Plan":
        """One set of each kind in a world of 1,800 records: enough to see that everything runs."""
        sizes = {kind: (1, size) for kind, (_, size) in self.sizes.items()}
        return replace(self, train=1800, held_out=800, sizes=sizes, whole_classes=0)

    def digest(self, retrains: int) -> str:
        """Eight digits that change with everything that the models of so many retrains are made of."""
        made = [
            self.make.__name__,
            self.train,
            self.held_out,
            self.recipe,
            self.sizes,
            self.whole_classes,
            self.entries,
        ]
        return sha256_json([*made, retrains])[:8]

    def recipe_in(self, folder: Path) -> Recipe:
        """The bare recipe, with the tokenizer that lies in the folder of the world."""
        content = json.loads(json.dumps(self.recipe))
        if self.entries is not None:
            content["model"]["tokenizer"] = str(folder / "tokenizer")
        return parse_recipe(content).bare()


@dataclass(frozen=True)
class Set:
    """One forget set: which retrain leaves it out, its kind and its records."""

    retrain: str
    kind: str
    ids: list[str]


@dataclass(frozen=True)
class GateWorld(World):
    """A world whose retrains leave out several disjoint forget sets at once."""

    def sets(self) -> list[Set]:
        """All forget sets."""
        return [Set(**each) for each in json.loads((self.folder / "sets.json").read_text())]

    def forget_sets(self) -> dict[str, list[str]]:
        """Name of a retrain -> everything that it leaves out."""
        found: dict[str, list[str]] = {}
        for each in self.sets():
            found.setdefault(each.retrain, []).extend(each.ids)
        return found


def open_gate_world(plan: Plan, folder: Path, retrains: int) -> GateWorld:
    """The world in a folder; written there where it is not yet: data, tokenizer, and so many retrains' forget sets."""
    if not (folder / "sets.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_world(plan, folder, retrains)
    labels = None if plan.task == "causal-lm" else CLASSES
    return GateWorld(folder, plan.task, plan.recipe_in(folder), labels)


def _write_world(plan: Plan, folder: Path, retrains: int) -> None:
    draw = np.random.default_rng(0)
    made = plan.make(plan.train + plan.held_out, draw)
    _write(folder / "train.parquet", made, range(plan.train))
    _write(folder / "held_out.parquet", made, range(plan.train, plan.train + plan.held_out))
    if plan.entries is not None:
        _write_tokenizer(plan, folder / "tokenizer", plan.entries)
    sets = _drawn(plan, made, retrains, draw)
    # Last, and at once: without it a world that was interrupted is made again.
    (folder / "sets.json").write_text(json.dumps([vars(each) for each in sets]))


def _write_tokenizer(plan: Plan, folder: Path, entries: int) -> None:
    made = plan.make(TOKENIZER_TEXTS, np.random.default_rng(_PUBLIC))
    ids = _ids(range(TOKENIZER_TEXTS))
    records = MemoryRecords(plan.task, ids, ids, made.columns)
    train_tokenizer(records, entries, plan.recipe_in(folder.parent).training.max_length).save_pretrained(str(folder))


def _ids(rows: Sequence[int]) -> list[str]:
    return [f"record-{at:05d}" for at in rows]


def _write(path: Path, made: Made, rows: range) -> None:
    people = BIG * BIG_PEOPLE
    columns = {
        "record_id": _ids(rows),
        # The first ones of the training are a few people with many records.
        "subject_id": [f"big-{at // BIG}" if at < people else f"person-{at:05d}" for at in rows],
    }
    columns |= {role: values[rows.start : rows.stop] for role, values in made.columns.items()}
    pq.write_table(pa.table(columns), path)


def _drawn(plan: Plan, made: Made, retrains: int, draw: np.random.Generator) -> list[Set]:
    """Ten disjoint sets for each retrain, then the whole classes."""
    sets: list[Set] = []
    for number in range(retrains):
        taken = np.zeros(plan.train, dtype=bool)
        taken[: BIG * BIG_PEOPLE] = True
        name, person = f"retrain-{number:02d}", number % BIG_PEOPLE
        for kind, (count, size) in plan.sizes.items():
            for at in range(count):
                allowed = ~taken & _allowed(kind, made, plan.train, count * number + at)
                rows = draw.choice(np.flatnonzero(allowed), size, replace=False)
                taken[rows] = True
                sets.append(Set(name, kind, _ids(sorted(rows.tolist()))))
        sets.append(Set(name, ONE_PERSON, _ids(range(person * BIG, (person + 1) * BIG))))
    for one in range(min(retrains, plan.whole_classes)):
        rows = np.flatnonzero(made.groups[: plan.train] == one)
        sets.append(Set(f"class-{one}", WHOLE_CLASS, _ids(rows.tolist())))
    return sets


def _allowed(kind: str, made: Made, train: int, turn: int) -> NDArray[np.bool_]:
    if kind == MISLABELLED:
        return made.odd[:train]
    if kind == ONE_CLASS:
        return np.asarray(made.groups[:train] == turn % CLASSES)
    return np.ones(train, dtype=bool)
