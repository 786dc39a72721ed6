"""What the reproductions of published findings share: a small world, models trained one after the other, kept cells.

Everything lies in benchmarks/out/reproduce, under a digest of what it is made of: a run that was stopped goes on where
it was, and a changed world begins anew. Changed code of a method does not: remove the folder to measure it again.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, TASK, make_world
from service.catalogue.recipes import Recipe
from service.datasets.records import RecordTable, open_records
from workers.lineage.recorder import TrainingRecorder
from workers.modeling.directories import sha256_json
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem, ReferenceTable
from workers.modeling.records import Records, held_out_key, split_held_out
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line
from workers.references.layout import Pool
from workers.references.members import Materials, train_member
from workers.references.pool import plan_pool, settle_pool
from workers.scoring.score import score

OUT = Path(__file__).parent / "out" / "reproduce"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SEEDS = (0, 1, 2)
DO_NOTHING, RETRAIN = "do nothing", "retrain"
REPRODUCED, NOT_REPRODUCED, CONTRADICTS = "reproduced", "not reproduced", "contradicts"

DIGITS = Recipe.model_validate(
    {
        "model": {
            "task": TASK,
            "config": {
                "model_type": "resnet", "num_channels": 1, "embedding_size": 24, "hidden_sizes": [24, 48],
                "depths": [1, 1], "layer_type": "basic",
            },
        },
        "training": {"epochs": 24, "batch_size": 64, "learning_rate": 4e-3},
    }
).bare()  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A folder with data, and models that are trained there when they are first asked for.

    `labels` of a classifier, None for a language model.
    """

    folder: Path
    recipe: Recipe
    labels: int | None
    context: Context = field(default_factory=lambda: Context(torch.device("cpu")))

    @property
    def task(self) -> str:
        return self.recipe.model.task

    @cached_property
    def train(self) -> RecordTable:
        """The training records."""
        return open_records(self.folder / "train.parquet", self.task)

    @cached_property
    def held_out(self) -> RecordTable:
        """Never-seen records: methods see their selection quarter."""
        return open_records(self.folder / "held_out.parquet", self.task)

    @cached_property
    def judging(self) -> Records:
        """The held-out records that no method sees."""
        return split_held_out(self.held_out, held_out_key(HELD_OUT_DIGEST))[1]

    def served(self, seed: int) -> Path:
        """The model of all records, with its learning events."""
        return self._trained(self.folder / f"served-{seed}", self.train, seed)

    def retrained(self, name: str, ids: Collection[str], seed: int) -> Path:
        """A model without these records; `name` is theirs."""
        directory = self.folder / f"retrained-{name}-{seed}"
        return self._trained(directory, self.train.without(sorted(ids)), 100 + seed, self.served(0))

    def read_retrained(
        self, name: str, ids: Collection[str], read: Callable[[Path], dict[str, Any]], seed: int
    ) -> dict[str, Any]:
        """What is read of a model without these records."""
        return read(self.retrained(name, ids, seed))

    def _trained(self, directory: Path, data: Records, seed: int, prepared: Path | None = None) -> Path:
        if not directory.is_dir():
            say(f"{directory.parent.name}: training {directory.name}")
            context = replace(self.context, recorder=TrainingRecorder) if prepared is None else self.context
            known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=self.labels, prepared=prepared)
            train_by_recipe(self.recipe, data, directory, seed, context, known)
        return directory

    def pool(self, count: int) -> Pool:
        """So many models of half of the records each."""
        materials = Materials(
            self.served(0), self.train, self.held_out, self.recipe.bare(), DIGEST, HELD_OUT_DIGEST, {}
        )
        pool = plan_pool(self.folder / f"pool-{count}", materials, count, seed=1)
        for number in range(count):
            if number % 20 == 0:
                say(f"{self.folder.name}: half-data models from {number} of {count}")
            train_member(pool, number, materials, self.context)
        return settle_pool(pool.directory)

    def problem(
        self, base: Path, ids: Collection[str], references: ReferenceTable | None = None, oracle: Path | None = None
    ) -> Problem:
        """Forget these records of a trained model."""
        line = open_line(base, self.task, self.train, self.held_out, HELD_OUT_DIGEST)
        made = build_problem(line, ids, self.recipe, DIGEST, {})
        return replace(made, references=references, oracle=oracle)

    def attempt(
        self, method: str, params: dict[str, Any], problem: Problem, seed: int, read: Callable[[Path], dict[str, Any]]
    ) -> dict[str, Any]:
        """What is read of the candidate of a method of the catalogue, which is then removed; and its cost."""
        out = self.folder / f"candidate-{sha256_json([method, params, sorted(problem.forget.ids.tolist()), seed])[:12]}"
        shutil.rmtree(out, ignore_errors=True)
        done = run_attempt(method, params, problem, replace(self.context, seed=seed), out)
        found = read(out)
        shutil.rmtree(out)
        return found | {"cpu_seconds": done.cpu_seconds, "steps": done.steps, "method_notes": done.notes}

    def scores(self, directory: Path, records: Records) -> pa.Table:
        """Every record's scores under a model."""
        return score(load_model(directory, self.task, self.context.device), records, self.context).table

    def cell(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured under this name, or is measured now and kept."""
        path = self.folder / "cells" / f"{name}.json"
        if not path.is_file():
            say(f"{self.folder.name}: {name}")
            found = measure()
            path.parent.mkdir(exist_ok=True)
            draft = path.with_suffix(".partial")
            draft.write_text(json.dumps(found))
            draft.replace(path)
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept


def digits_lab(quick: bool) -> Lab:
    """1,100 digits, 15 % of them labelled wrong, and 697 never seen (`benchmarks.reference_world`)."""
    recipe = DIGITS
    if quick:
        recipe = DIGITS.model_copy(update={"training": DIGITS.training.model_copy(update={"epochs": 4})})
    folder = OUT / f"digits-{sha256_json(recipe.model_dump(mode='json'))[:8]}"
    if not (folder / "held_out.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        make_world(folder)
    return Lab(folder, recipe, 10)


def wrong_ids(lab: Lab, part: str = "train") -> list[str]:
    """The records that are labelled wrong."""
    table = pq.read_table(lab.folder / f"{part}.parquet", columns=["record_id", "wrong"])
    return [
        name for name, wrong in zip(*(table[each].to_pylist() for each in table.column_names), strict=True) if wrong
    ]


def drawn(ids: Sequence[str], size: int, seed: int) -> list[str]:
    """So many of these ids at random."""
    return sorted(np.random.default_rng(seed).choice(np.array(ids), size, replace=False).tolist())


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column of a score table as float64."""
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def outcome(held: bool, opposite: bool = False) -> str:
    """One word for a finding."""
    return REPRODUCED if held else CONTRADICTS if opposite else NOT_REPRODUCED


def say(text: str) -> None:
    """Tell how far a run is."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
