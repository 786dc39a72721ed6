"""What the benchmark of references is made of: noisy digits on disk, and many small models trained in two processes."""

import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.catalogue.recipes import Recipe
from service.datasets.records import RecordTable, open_records
from workers.demo.digits import Digit, digits

TASK = "image-classification"
WRITERS = 110
BIG_SUBJECT = "person-big"
BIG_RECORDS = 40
PROCESSES = 2
DIGEST, HELD_OUT_DIGEST = "ab" * 32, "cd" * 32
RECIPE = Recipe.model_validate(
    {
        "model": {
            "task": TASK,
            "config": {
                "model_type": "resnet", "num_channels": 1, "embedding_size": 32, "hidden_sizes": [32, 64],
                "depths": [1, 1], "layer_type": "basic",
            },
        },
        "training": {"epochs": 24, "batch_size": 32, "learning_rate": 3e-3},
    }
).bare()  # fmt: skip


@dataclass(frozen=True)
class World:
    """The folder of a run: data, the served model, pools, and retrained models; what it trains, and by which recipe.

    `labels`: classes of a classifier, None for a language model.
    """

    folder: Path
    task: str = TASK
    recipe: Recipe = RECIPE
    labels: int | None = 10

    @property
    def served(self) -> Path:
        return self.folder / "served"

    def records(self, part: str) -> RecordTable:
        """Records of "train" or "held_out"."""
        return open_records(self.folder / f"{part}.parquet", self.task)

    def retrained(self, name: str, seed: int) -> Path:
        """The directory of a model that never saw a forget set."""
        return self.folder / f"retrained-{name}-{seed}"

    def forget_sets(self) -> dict[str, list[str]]:
        """Name -> record ids: a tenth at random, fifty mislabelled ones, a class, a person."""
        table = pq.read_table(self.folder / "train.parquet", columns=["record_id", "subject_id", "label", "wrong"])
        ids, subjects, labels, wrong = (np.array(table[name].to_pylist()) for name in table.column_names)
        draw = np.random.default_rng(0)
        return {
            "random 110": sorted(draw.choice(ids, 110, replace=False).tolist()),
            "mislabelled 50": sorted(draw.choice(ids[wrong], 50, replace=False).tolist()),
            "one class": ids[labels == 3].tolist(),
            "one person": ids[subjects == BIG_SUBJECT].tolist(),
        }


def make_world(folder: Path) -> World:
    """1,100 training and 697 held-out digits, 15 % of both labelled wrong; ten a person, one person has forty."""
    train, held_out = digits(WRITERS, seed=0)
    _write(folder / "train.parquet", train, BIG_RECORDS)
    _write(folder / "held_out.parquet", held_out, 0)
    return World(folder)


def _write(path: Path, records: Sequence[Digit], big: int) -> None:
    columns = {
        "record_id": [record.record_id for record in records],
        "subject_id": [BIG_SUBJECT if at < big else record.subject_id for at, record in enumerate(records)],
        "image": [record.image for record in records],
        "label": [record.label for record in records],
        "wrong": [record.mislabelled for record in records],
    }
    pq.write_table(pa.table(columns), path)


@dataclass(frozen=True)
class Job:
    """One model to train: a member of a pool, or with a forget set's name a retrained model."""

    seed: int
    pool: Path | None = None
    forget: str | None = None


def train_all(world: World, jobs: Sequence[Job]) -> float:
    """Train in two processes of one thread each; tells how far it is. Returns the seconds it took."""
    began = told = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn, initializer=_open, initargs=(world,)) as workers:
        waiting = [workers.submit(_train, job) for job in jobs]
        for done, future in enumerate(as_completed(waiting), 1):
            future.result()
            now = time.monotonic()
            if now - told > 10 or done == len(jobs):
                left = (now - began) / done * (len(jobs) - done)
                print(f"  {done} of {len(jobs)} models, {left:.0f} s left", file=sys.stderr, flush=True)
                told = now
    return time.monotonic() - began


_opened: dict[str, RecordTable] = {}
_worlds: list[World] = []


def _open(world: World) -> None:
    """In a worker: the data is read once for all its models."""
    _worlds.append(world)
    _opened.update({part: world.records(part) for part in ("train", "held_out")})


def _train(job: Job) -> None:
    import torch

    from workers.lineage.recorder import TrainingRecorder
    from workers.modeling.fresh import Provenance
    from workers.modeling.problem import Context
    from workers.modeling.train import train_by_recipe
    from workers.references.layout import Pool, read_facts
    from workers.references.members import Materials, train_member

    world, context = _worlds[0], Context(torch.device("cpu"), threads=1)
    train, held_out = _opened["train"], _opened["held_out"]
    if job.pool is not None:
        materials = Materials(world.served, train, held_out, world.recipe, DIGEST, HELD_OUT_DIGEST, {})
        train_member(Pool(job.pool, read_facts(job.pool)), job.seed, materials, context)
    elif job.forget is not None:
        kept = train.without(world.forget_sets()[job.forget])
        known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=world.labels, prepared=world.served)
        train_by_recipe(world.recipe, kept, world.retrained(job.forget, job.seed), job.seed, context, known)
    else:
        recorded = replace(context, recorder=TrainingRecorder)
        known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=world.labels)
        train_by_recipe(world.recipe, train, world.served, job.seed, recorded, known)
