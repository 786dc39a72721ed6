"""What does forgetting cost in a model of ten shards, beside training all shards again?

SISA on digits with 15 % wrong labels, each record a person of its own, so that deletions scatter as they please: the
worst case of the paper. With five slices and with one. One to fifty records are forgotten from the same model, by
`sharded` and by training everything again, in turn.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import Result, Spread, Target
from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from workers.demo.digits import Digit, digits
from workers.lineage.recorder import TrainingRecorder
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.parts import FOLDER, StoredParts
from workers.modeling.problem import Context
from workers.modeling.records import MemoryRecords
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.costs import exact_options
from workers.planning.problems import build_problem, open_line
from workers.scoring.score import score

TASK = "image-classification"
SHARDS, SLICES = 10, (5, 1)
PUBLISHED = {"Purchase": 4.63, "SVHN": 2.45}
DIGEST = "00" * 32
COLUMNS = ("forgotten", "shards met", "share of steps", "planned", "speed-up, CPU", "speed-up, steps", "CPU s", "equal")
MODEL = {
    "task": TASK,
    "config": {
        "model_type": "resnet", "num_channels": 1, "embedding_size": 16, "hidden_sizes": [16, 32, 64],
        "depths": [2, 2, 2], "layer_type": "basic",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    people: int
    epochs: int
    rounds: int
    counts: tuple[int, ...]


FULL, QUICK = Sizes(150, 15, 3, (1, 5, 10, 25, 50)), Sizes(40, 4, 1, (1, 10))


@dataclass(frozen=True)
class Case:
    """A model of so many slices, and its data."""

    base: Path
    recipe: Recipe
    data: MemoryRecords

    def attempt(self, method: str, ids: Sequence[str], out: Path) -> AttemptResult:
        """Forget these records by a method."""
        problem = build_problem(open_line(self.base, TASK, self.data, None, None), ids, self.recipe, DIGEST, {})
        return run_attempt(method, {}, problem, Context(torch.device("cpu")), out)


@dataclass(frozen=True)
class Forgotten:
    """One deletion: what it took as fractions of training everything again, and what it left alone."""

    shards: int
    share: float
    planned: float
    cpu_seconds: float
    cpu_speed_up: float
    step_speed_up: float
    untouched: int
    equal: int


def run(quick: bool = False) -> Result:
    """Train and measure; `quick` does one round on few records."""
    sizes = QUICK if quick else FULL
    title = f"Forgetting in {SHARDS} shards, against training all of them again"
    result = Result("sisa", title, sizes.rounds, COLUMNS)
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name:
        train, held_out = (_records(part) for part in digits(sizes.people, seed=0))
        cases = {slices: _train(Path(name) / f"slices-{slices}", train, sizes, slices) for slices in SLICES}
        found = {slices: {count: list[Forgotten]() for count in sizes.counts} for slices in SLICES}
        for number in range(sizes.rounds):
            for slices, case in cases.items():
                _round(case, found[slices], Path(name) / f"{slices}-{number}", number)
        _accuracy(result, cases, held_out, Path(name) / "single")
    for slices in SLICES:
        _report(result, slices, found[slices])
    result.settings |= {"shards": SHARDS, "slices": SLICES, "records": len(train), "epochs": sizes.epochs, "threads": 1}
    published = ", ".join(f"{value} ({data})" for data, value in PUBLISHED.items())
    result.notes += [
        "median (lowest–highest) of the rounds; speed-up: cost of training all shards again without the same records "
        f"over that of `sharded`; published over retraining from scratch: {published} "
        "(Bourtoule et al. 2021)",
        "planned: the share of the training that the planner expects; equal: states of shards and slices that met no "
        "forgotten record and came out byte for byte as they were",
    ]
    return result


def _records(found: Sequence[Digit]) -> MemoryRecords:
    ids = [one.record_id for one in found]
    columns: dict[str, list[Any]] = {"image": [one.image for one in found], "label": [one.label for one in found]}
    return MemoryRecords(TASK, ids, [f"person-{name}" for name in ids], columns)


def _recipe(sizes: Sizes, slices: int) -> Recipe:
    training = {"epochs": sizes.epochs, "batch_size": 16, "learning_rate": 3e-3}
    return Recipe.model_validate(
        {"model": MODEL, "training": training, "sharding": {"shards": SHARDS, "slices": slices}}
    )


def _train(base: Path, data: MemoryRecords, sizes: Sizes, slices: int) -> Case:
    recipe = _recipe(sizes, slices)
    context = Context(torch.device("cpu"), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, base, 0, context, Provenance(DIGEST))
    return Case(base, recipe, data)


def _round(case: Case, found: dict[int, list[Forgotten]], folder: Path, number: int) -> None:
    drawn = np.random.default_rng(number).permutation(np.asarray(case.data.ids)).tolist()
    for count in sorted(found):
        ids, results = drawn[:count], dict[str, AttemptResult]()
        for method in ("retrain", "sharded") if number % 2 else ("sharded", "retrain"):
            results[method] = case.attempt(method, ids, folder / f"{method}-{count}")
        whole, result = results["retrain"], results["sharded"]
        untouched, equal = _compared(case.base, folder / f"sharded-{count}", ids)
        found[count].append(
            Forgotten(
                shards=len(StoredParts(case.base, "shards").affected(ids)),
                share=result.steps / whole.steps,
                planned=next(
                    one.share for one in exact_options(case.base, case.recipe, ids) if one.method == "sharded"
                ),
                cpu_seconds=result.cpu_seconds,
                cpu_speed_up=whole.cpu_seconds / result.cpu_seconds,
                step_speed_up=whole.steps / max(1, result.steps),
                untouched=untouched,
                equal=equal,
            )
        )
        shutil.rmtree(folder)


def _compared(base: Path, out: Path, ids: Sequence[str]) -> tuple[int, int]:
    """(files of states that met no forgotten record, how many of them are byte-equal)."""
    stored = StoredParts(base, "shards")
    first, slices = stored.affected(ids), stored.facts.slices
    untouched = [state for state in stored.facts.states if state.slice < first.get(state.part, slices)]
    places = [
        Path(LINEAGE) / FOLDER / f"{state.part:03d}" / f"slice-{state.slice:02d}" / name
        for state in untouched
        for name in state.files
    ]
    return len(places), sum((base / place).read_bytes() == (out / place).read_bytes() for place in places)


def _accuracy(result: Result, cases: dict[int, Case], held_out: MemoryRecords, single: Path) -> None:
    """What sharding costs in accuracy on records that no model has seen."""
    context = Context(torch.device("cpu"))
    case = next(iter(cases.values()))
    train_by_recipe(case.recipe.bare(), case.data, single, 0, context, Provenance(DIGEST))
    models = {f"{slices} slices": case.base for slices, case in cases.items()} | {"one model": single}
    told = {}
    for name, directory in models.items():
        table = score(load_model(directory, TASK, context.device), held_out, context).table
        told[name] = float(table["correct"].to_numpy().mean())
    result.measurements.append({"part": "accuracy", "held_out": len(held_out)} | told)
    result.notes.append(
        "accuracy on held-out records (15 % of their labels are wrong): "
        + ", ".join(f"{name} {value:.3f}" for name, value in told.items())
    )


def _report(result: Result, slices: int, found: dict[int, list[Forgotten]]) -> None:
    result.rows.append([f"[bold]{slices} slices[/bold]" if slices > 1 else "[bold]1 slice[/bold]", *[""] * 7])
    for count, each in found.items():
        cpu, steps = (Spread.of([getattr(one, name) for one in each]) for name in ("cpu_speed_up", "step_speed_up"))
        seconds, share = (Spread.of([getattr(one, name) for one in each]) for name in ("cpu_seconds", "share"))
        planned = Spread.of([one.planned for one in each])
        shards = Spread.of([float(one.shards) for one in each])
        equal, untouched = sum(one.equal for one in each), sum(one.untouched for one in each)
        result.rows.append(
            [
                f"  {count}",
                shards.text(0),
                share.text(2),
                f"{planned.median:.2f}",
                cpu.text(2),
                steps.text(2),
                f"{seconds.median:.1f}",
                f"{equal} of {untouched}",
            ]
        )
        result.measurements.append(
            {"part": "forgetting", "slices": slices, "forgotten": count, "shards": shards, "share": share}
            | {"planned": planned, "cpu_seconds": seconds, "cpu_speed_up": cpu, "step_speed_up": steps}
            | {"untouched": untouched, "equal": equal}
        )
    each = [one for several in found.values() for one in several]
    ratio = sum(one.equal for one in each) / max(1, sum(one.untouched for one in each))
    name = f"{slices} slices" if slices > 1 else "1 slice"
    result.targets.append(Target(f"{name}: untouched states that are byte-equal", ratio, 1.0, at_most=False))
    one = Spread.of([each.cpu_speed_up for each in found[min(found)]]).median
    result.targets.append(Target(f"{name}: speed-up of one deletion", one, PUBLISHED["Purchase"], False, "x"))
