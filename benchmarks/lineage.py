"""What does recording its lineage cost a training, and what does repeating one from a checkpoint save?

Both models of the demo and one epoch over many images, each trained with and without a recorder in turn, in this
process on one thread: wall time is what a user waits for, CPU time counts the thread that writes checkpoints as well.
Replay forgets the records that were met last in the first epoch, the case it is for, and ten drawn at random.
"""

import io
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.record import Result, Spread, Target
from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from service.datasets.records import open_records
from workers.demo.world import make_world
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import ModelHistory, folder_bytes
from workers.modeling.directories import sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.problem import Context
from workers.modeling.recipe import load_recipe
from workers.modeling.records import MemoryRecords, Records
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line

ROUNDS = 5
LATE, RANDOM = 10, 10
DIGEST = "00" * 32
COLUMNS = ("model", "without s", "with s", "overhead, wall", "overhead, CPU", "lineage KB", "of the weights")


@dataclass(frozen=True)
class Case:
    """One training: its name, recipe and records."""

    name: str
    recipe: Recipe
    data: Records


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


def run(quick: bool = False) -> Result:
    """Measure; `quick` does one round."""
    rounds = 1 if quick else ROUNDS
    result = Result("lineage", "Overhead of recording the lineage, and what replay saves", rounds, COLUMNS)
    result.settings = {"threads": 1, "late": LATE, "random": RANDOM}
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name:
        for case in _cases(Path(name), quick):
            _measure(result, case, Path(name) / case.name, rounds)
            _replays(result, case, Path(name) / case.name)
    result.notes = [
        "median (lowest-highest) of the rounds; overhead: the run with a recorder over the one without beside it, -1",
        "replay: optimiser steps and wall time as a fraction of the same repetition from the initial weights",
    ]
    return result


def _cases(folder: Path, quick: bool) -> list[Case]:
    world = make_world(folder / "data")
    cases = []
    for name, task, files in (
        ("digits", "image-classification", world.digits),
        ("support", "causal-lm", world.support),
    ):
        cases.append(Case(name, load_recipe(files.recipe), open_records(files.train, task)))
    many = cases[0]
    once = many.recipe.training.model_copy(update={"epochs": 1})
    data = _varied(many.data, 1 if quick else 20)
    return [*cases, Case("one epoch", many.recipe.model_copy(update={"training": once}), data)]


def _varied(records: Records, times: int) -> Records:
    """The images over and over under new ids, each with noise of its own: many images without a download."""
    noise, columns = np.random.default_rng(0), records.take(range(len(records)))
    images = []
    for _ in range(times):
        for packed in columns["image"]:
            pixels = np.asarray(Image.open(io.BytesIO(packed)).convert("L"), dtype=np.int16)
            held = io.BytesIO()
            changed = np.clip(pixels + noise.integers(-4, 5, pixels.shape), 0, 255).astype(np.uint8)
            Image.fromarray(changed).save(held, "PNG")
            images.append(held.getvalue())
    subjects = np.tile(np.asarray(records.subjects), times)
    ids = [f"r{at:06d}" for at in range(len(images))]
    return MemoryRecords(records.task, ids, subjects, {"image": images, "label": list(columns["label"]) * times})


def _measure(result: Result, case: Case, folder: Path, rounds: int) -> None:
    plain: list[Took] = []
    recorded: list[Took] = []
    train = partial(_train, case, folder)
    train(False)  # the first run pays for what the libraries set up once
    for number in range(rounds):
        # Each goes first in half of the rounds.
        for with_lineage in (number % 2 == 0, number % 2 == 1):
            (recorded if with_lineage else plain).append(train(with_lineage))
    train(True, keep=True)
    wall = Spread.of([mine.wall / base.wall - 1 for mine, base in zip(recorded, plain, strict=True)])
    cpu = Spread.of([mine.cpu / base.cpu - 1 for mine, base in zip(recorded, plain, strict=True)])
    size = folder_bytes(folder / LINEAGE)
    weights = (folder / "model.safetensors").stat().st_size
    seconds = [Spread.of([took.wall for took in runs]) for runs in (plain, recorded)]
    cells = [seconds[0].text(2), seconds[1].text(2), _percent(wall), _percent(cpu)]
    result.rows.append([case.name, *cells, f"{size / 1024:,.0f}", f"{size / weights:.1f}"])
    result.measurements.append(
        {"model": case.name, "records": len(case.data), "without": seconds[0], "with": seconds[1]}
        | {"overhead_wall": wall, "overhead_cpu": cpu, "lineage_bytes": size, "weights_bytes": weights}
    )
    result.targets.append(Target(f"{case.name}: overhead of lineage, wall time", wall.median, 0.05))


def _percent(spread: Spread) -> str:
    return f"{spread.median:+.1%} ({spread.low:+.1%}-{spread.high:+.1%})"


def _train(case: Case, folder: Path, with_lineage: bool, keep: bool = False) -> Took:
    shutil.rmtree(folder, ignore_errors=True)
    context = Context(torch.device("cpu"), recorder=TrainingRecorder if with_lineage else None)
    took = _timed(lambda: train_by_recipe(case.recipe, case.data, folder, 0, context, Provenance(DIGEST)))
    if not keep:
        shutil.rmtree(folder)
    return took


def _timed(work: Callable[[], object]) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def _replays(result: Result, case: Case, folder: Path) -> None:
    """Steps and time of a replay beside the same one from the beginning, for late records and for random ones."""
    if case.recipe.data_tokenizer:
        result.notes.append(f"{case.name}: its tokenizer is made from the data, so replay is refused unless it stays")
    history = ModelHistory(folder)
    first = history.log.first_steps(len(history.records.ids))
    order = np.argsort(first, kind="stable")
    drawn = np.random.default_rng(0).choice(len(order), RANDOM, replace=False)
    for name, places in (("latest", order[-LATE:]), ("random", drawn)):
        line = open_line(folder, case.recipe.model.task, case.data, None, None)
        problem = build_problem(line, history.records.ids[places].tolist(), case.recipe, DIGEST, {})
        if case.recipe.data_tokenizer:
            continue
        figures, digests = {}, set()
        for start in ("newest", "beginning"):
            out = folder.with_name(f"{folder.name}-{name}-{start}")
            context = replace(Context(torch.device("cpu")))
            outcome = run_attempt("replay", {"start": start}, problem, context, out)
            figures[start] = (outcome.steps, outcome.seconds)
            digests.add(sha256_file(out / "model.safetensors"))
        share = [figures["newest"][at] / figures["beginning"][at] for at in (0, 1)]
        told = f"replay without the {name} {len(places)}: {share[0]:.2f} of the steps, {share[1]:.2f} of the time"
        result.notes.append(f"{case.name}: {told}, same bytes: {'yes' if len(digests) == 1 else 'NO'}")
        result.measurements.append(
            {"model": case.name, "replay": name, "records": len(places), "steps_share": share[0]}
            | {"time_share": share[1], "same_bytes": len(digests) == 1}
        )
