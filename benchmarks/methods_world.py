"""Worlds of the benchmark of methods: records on disk, forget sets of five kinds, and every model that is compared.

A world has a served model for each seed, trained with lineage, and draws of its forget sets with retrains of each; the
pool of references serves them all. Everything is trained in processes of its own, one at a time, and stays on disk.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.methods_child import in_child
from benchmarks.methods_data import Counts, Writer
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST
from service.catalogue.recipes import Recipe, parse_recipe
from service.datasets.records import RecordTable, open_records
from workers.modeling.directories import sha256_json

if TYPE_CHECKING:
    from workers.modeling.problem import Context
    from workers.references.members import Materials

RETRAINS, POOL = 5, 16
RANDOM_1, RANDOM_10, TEN, MISLABELLED, ONE_CLASS = (
    "random 1 %",
    "random 10 %",
    "ten records",
    "mislabelled",
    "one class",
)
TOKENIZER_ENTRIES = 800
FIRST_RETRAIN = 101
"""Seeds of retrains begin here: served models have the small ones."""


@dataclass(frozen=True)
class Plan:
    """One world: its records, recipe, how many are forgotten of each kind, and how often forget sets are drawn.

    `sizes` 0: all records of the class. `by_person`: sets of a share of the data are drawn person by person.
    """

    name: str
    told: str
    task: str
    write: Writer
    counts: Counts
    recipe: Mapping[str, Any]
    sizes: Mapping[str, int]
    seeds: int = 3
    draws: int = 1
    retrains: int = RETRAINS
    by_person: bool = False

    def digest(self) -> str:
        """Eight digits that change with everything that the models are made of."""
        made = [self.write.__name__, vars(self.counts), self.recipe, self.sizes, self.draws, self.by_person, POOL]
        return sha256_json(made)[:8]

    def small(self) -> "Plan":
        """One seed, one draw and few retrains of two sets: does it run?"""
        sizes = {kind: self.sizes[kind] for kind in (TEN, RANDOM_10)}
        counts = Counts(400, 400, 100)
        return replace(self, counts=counts, sizes=sizes | {RANDOM_10: 40}, seeds=1, draws=1, retrains=3)

    def recipe_in(self, folder: Path) -> Recipe:
        """The recipe of the served models: with states of the training, without canaries or a reserve."""
        content = json.loads(json.dumps(self.recipe))
        if self.task == "causal-lm":
            content["model"]["tokenizer"] = str(folder / "tokenizer")
        content["lineage"] = {"canaries": "off", "reserve": "off"}
        return parse_recipe(content)


@dataclass(frozen=True)
class MethodWorld:
    """A plan in its folder."""

    plan: Plan
    folder: Path
    recipe: Recipe

    @property
    def labels(self) -> int | None:
        return None if self.plan.task == "causal-lm" else 10

    def records(self, part: str) -> RecordTable:
        """Records of "train", "held_out" or "test"."""
        return open_records(self.folder / f"{part}.parquet", self.plan.task)

    @property
    def pool(self) -> Path:
        return self.folder / "pool"

    def served(self, seed: int) -> Path:
        """The model that forgets."""
        return self.folder / f"served-{seed}"

    def retrained(self, kind: str, draw: int, number: int) -> Path:
        """One of the models that never saw a forget set."""
        return self.folder / f"retrained-{kind.replace(' ', '-').replace('%', 'pct')}-{draw}-{number}"

    def draw_of(self, seed: int) -> int:
        """Which draw of the forget sets a seed's served model has to forget."""
        return seed % self.plan.draws

    def forget_ids(self, kind: str, draw: int) -> list[str]:
        """Record ids of one forget set."""
        found: dict[str, list[list[str]]] = json.loads((self.folder / "sets.json").read_text())
        return found[kind][draw]


def open_world(plan: Plan, folder: Path, data: Path | None) -> MethodWorld:
    """The world in a folder; data, tokenizer and forget sets are written where they are not yet.

    Raises SystemExit or OSError where the plan needs `data` and does not find it.
    """
    if not (folder / "sets.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        plan.write(folder, plan.counts, data)
        if plan.task == "causal-lm":
            _write_tokenizer(plan, folder)
        # Last, and at once: without it a world that was interrupted is made again.
        (folder / "sets.json").write_text(json.dumps(_drawn(plan, folder)))
    return MethodWorld(plan, folder, plan.recipe_in(folder))


def _write_tokenizer(plan: Plan, folder: Path) -> None:
    """From the test texts, which no model is trained on: one made from the data would have to be made anew."""
    from workers.modeling.tokenizers import train_tokenizer

    texts = open_records(folder / "test.parquet", plan.task)
    length = plan.recipe["training"]["max_length"]
    shutil.rmtree(folder / "tokenizer", ignore_errors=True)
    train_tokenizer(texts, TOKENIZER_ENTRIES, length).save_pretrained(str(folder / "tokenizer"))


def _drawn(plan: Plan, folder: Path) -> dict[str, list[list[str]]]:
    """Kind -> record ids of every draw."""
    table = pq.read_table(folder / "train.parquet")
    ids, people, wrong = (np.array(table[name].to_pylist()) for name in ("record_id", "subject_id", "wrong"))
    found: dict[str, list[list[str]]] = {kind: [] for kind in plan.sizes}
    for draw in range(plan.draws):
        chance = np.random.default_rng([1, draw])
        for kind, size in plan.sizes.items():
            if kind == ONE_CLASS:
                rows = np.flatnonzero(np.array(table["label"].to_pylist()) == draw)
            elif kind == MISLABELLED:
                rows = chance.choice(np.flatnonzero(wrong), size, replace=False)
            elif plan.by_person and kind != TEN:
                order = chance.permutation(np.unique(people))
                rows = np.concatenate([np.flatnonzero(people == one) for one in order[:size]])[:size]
            else:
                rows = chance.choice(len(ids), size, replace=False)
            found[kind].append(sorted(ids[rows].tolist()))
    return found


def train_world(world: MethodWorld, tell: Callable[[str], None]) -> None:
    """Train what is missing: served models, the pool, retrains. `tell` is called with a line before each."""
    import workers.references.members  # noqa: F401 - here once, and not again in each process that is forked

    name = world.plan.name
    for seed in range(world.plan.seeds):
        if not world.served(seed).is_dir():
            tell(f"{name}: served model {seed + 1} of {world.plan.seeds}")
            in_child(partial(_serve, world, seed)).checked()
    if not _pool_complete(world):
        in_child(partial(_plan_pool, world)).checked()
        for number in range(POOL):
            tell(f"{name}: reference {number + 1} of {POOL}")
            in_child(partial(_reference, world, number)).checked()
        in_child(partial(_settle, world)).checked()
    for draw in range(world.plan.draws):
        for kind in world.plan.sizes:
            for number in range(world.plan.retrains):
                if not world.retrained(kind, draw, number).is_dir():
                    tell(f"{name}: retrain {number + 1} of {world.plan.retrains} without {kind}, draw {draw + 1}")
                    in_child(partial(_retrain, world, kind, draw, number)).checked()


def _serve(world: MethodWorld, seed: int) -> None:
    from workers.lineage.recorder import TrainingRecorder
    from workers.modeling.fresh import Provenance
    from workers.modeling.train import train_by_recipe

    context = replace(_context(), recorder=TrainingRecorder)
    known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=world.labels)
    train_by_recipe(world.recipe, world.records("train"), world.served(seed), seed, context, known)


def _retrain(world: MethodWorld, kind: str, draw: int, number: int) -> None:
    from workers.modeling.fresh import Provenance
    from workers.modeling.train import train_by_recipe

    kept = world.records("train").without(world.forget_ids(kind, draw))
    known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=world.labels, prepared=world.served(0))
    out = world.retrained(kind, draw, number)
    train_by_recipe(world.recipe.bare(), kept, out, FIRST_RETRAIN + number, _context(), known)


def _materials(world: MethodWorld) -> "Materials":
    from workers.references.members import Materials

    train, held_out = world.records("train"), world.records("held_out")
    return Materials(world.served(0), train, held_out, world.recipe, DIGEST, HELD_OUT_DIGEST, {})


def _plan_pool(world: MethodWorld) -> None:
    from workers.references.pool import plan_pool

    plan_pool(world.pool, _materials(world), POOL, seed=1)


def _reference(world: MethodWorld, number: int) -> None:
    from workers.references.layout import Pool, read_facts
    from workers.references.members import train_member

    train_member(Pool(world.pool, read_facts(world.pool)), number, _materials(world), _context())


def _pool_complete(world: MethodWorld) -> bool:
    from workers.references.layout import POOL_FILE, Pool, read_facts

    return (world.pool / POOL_FILE).is_file() and Pool(world.pool, read_facts(world.pool)).complete


def _settle(world: MethodWorld) -> None:
    from workers.references.pool import settle_pool

    settle_pool(world.pool)


def _context() -> "Context":
    import torch

    from workers.modeling.problem import Context

    return Context(torch.device("cpu"), threads=1)
