"""Does an approximate method come as near to a retrain as retrains come to each other, at a fifth of the cost?

On 20,000 images with a tenth of the labels wrong, four forget sets, five retrains each. A model lies inside the band
where its per-record loss gap (95th percentile), its loss-attack AUC and its test accuracy are no further from the mean
of the retrains than one of them is from the others. Costs are CPU seconds of the whole attempt, loading and encoding
included, over those of a whole retrain in the same run; the reference pool, which serves every later deletion too, is
reported beside. Trained models stay in benchmarks/out/bar: a run that was stopped goes on where it was.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bar_world import FULL, QUICK, BarWorld, Sizes, open_bar_world
from benchmarks.closeness import Band, Distance, Read, band, distance, within
from benchmarks.processes import environment
from benchmarks.record import Result, Target
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, TASK, Job, train_all
from workers.modeling.fresh import Provenance
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line
from workers.references.members import Materials
from workers.references.pool import plan_pool, settle_pool
from workers.references.tables import SideTable, load_side
from workers.scoring.score import score

OUT = Path(__file__).parent / "out"
BUDGET = 0.20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("finetune", {}),
    ("nabla_tau", {}),
    ("negative_gradient_plus", {}),
    ("nabla_tau_ref", {}),
)
COLUMNS = ("forget set, model", "loss gap p95", "median", "AUC gap", "accuracy gap", "CPU / retrain", "in the band")


@dataclass(frozen=True)
class Bar:
    """The trained world and what every row is compared with."""

    world: BarWorld
    side: SideTable
    test: Records

    def problem(self, name: str) -> Problem:
        """The unlearning problem of a forget set, with the methods' side of the pool."""
        line = open_line(
            self.world.served, TASK, self.world.records("train"), self.world.records("held_out"), HELD_OUT_DIGEST
        )
        made = build_problem(line, self.world.forget_sets()[name], self.world.recipe, DIGEST, {})
        return Problem(**(vars(made) | {"references": self.side}))

    def read(self, directory: Path, forget: Records) -> Read:
        """Score one model on forgotten and test records."""
        loaded, context = load_model(directory, TASK, torch.device("cpu")), Context(torch.device("cpu"))
        forgotten, test = (score(loaded, part, context).table for part in (forget, self.test))
        losses = [np.asarray(table["loss"], dtype=np.float64) for table in (forgotten, test)]
        return Read(losses[0], losses[1], float(np.mean(test["correct"])))


def run(quick: bool = False, data: Path | None = None) -> Result:
    """Train what is missing and measure; `quick` takes a small world. `data`: the folder of the images, at first."""
    sizes, folder = (QUICK, OUT / "bar-quick") if quick else (FULL, OUT / "bar")
    with environment(LETHE_HOME=str(folder), **ONE_THREAD):
        torch.set_num_threads(1)
        bar = _trained(open_bar_world(folder, data, sizes), sizes)
        told = f"Approximate methods beside retrains, {sizes.train:,} images, 10 % wrong labels"
        result = Result("bar", told, 1, COLUMNS)
        for name in bar.world.forget_sets():
            _measure(result, bar, name, sizes.retrains)
    pool = sum(_seconds(path) for path in (folder / "pool").glob("member-*"))
    result.settings = {"retrains": sizes.retrains, "references": sizes.pool, "pool_seconds": round(pool)}
    result.notes.append(f"{sizes.pool} references took {pool:,.0f} s of training, once for all deletions to come")
    return result


def _trained(world: BarWorld, sizes: Sizes) -> Bar:
    if not world.served.is_dir():
        train_all(world, [Job(0)])
    train, held_out = (world.records(part) for part in ("train", "held_out"))
    materials = Materials(world.served, train, held_out, world.recipe, DIGEST, HELD_OUT_DIGEST, {})
    pool = plan_pool(world.folder / "pool", materials, sizes.pool, seed=1)
    waiting = [] if pool.complete else [Job(number, pool.directory) for number in range(sizes.pool)]
    for seed in range(1, sizes.retrains + 1):
        names = [name for name in world.forget_sets() if not world.retrained(name, seed).is_dir()]
        waiting += [Job(seed, forget=name) for name in names]
    if waiting:
        train_all(world, waiting)
    return Bar(world, load_side(settle_pool(pool.directory), "method"), world.records("test"))


def _seconds(member: Path) -> float:
    from workers.modeling.training_record import read_record

    record = read_record(member)
    return record.seconds if record is not None else 0.0


def _measure(result: Result, bar: Bar, name: str, retrains: int) -> None:
    """The rows of one forget set, with one retrain timed beside the methods."""
    problem = bar.problem(name)
    reads = [bar.read(bar.world.retrained(name, seed), problem.forget) for seed in range(1, retrains + 1)]
    allowed = band(reads)
    cells = [f"{allowed.p95:.2f}", "", f"{allowed.auc:.3f}", f"{allowed.accuracy:.4f}"]
    result.rows.append([f"[bold]{name}[/bold]: a retrain from the others, at most", *cells, "", ""])
    whole = _timed_retrain(bar, name)
    _row(result, name, "do nothing", distance(bar.read(bar.world.served, problem.forget), reads), allowed, 0.0)
    for method, params in METHODS:
        out = bar.world.folder / "candidate"
        shutil.rmtree(out, ignore_errors=True)
        done = run_attempt(method, params, problem, Context(torch.device("cpu"), seed=7), out)
        found = distance(bar.read(out, problem.forget), reads)
        _row(result, name, method, found, allowed, done.cpu_seconds / whole)
    shutil.rmtree(bar.world.folder / "candidate", ignore_errors=True)


def _timed_retrain(bar: Bar, name: str) -> float:
    """CPU seconds of a whole retrain, from the records on disk to the model on disk."""
    out = bar.world.folder / "timed"
    shutil.rmtree(out, ignore_errors=True)
    began = time.process_time()
    kept = bar.world.records("train").without(bar.world.forget_sets()[name])
    known = Provenance(DIGEST, HELD_OUT_DIGEST, num_labels=bar.world.labels, prepared=bar.world.served)
    train_by_recipe(bar.world.recipe, kept, out, 99, Context(torch.device("cpu")), known)
    spent = time.process_time() - began
    shutil.rmtree(out, ignore_errors=True)
    return spent


def _row(result: Result, name: str, model: str, found: Distance, allowed: Band, cost: float) -> None:
    inside = within(found, allowed)
    told = ", ".join(key for key, value in inside.items() if value) or "none"
    cells = [f"{found.p95:.2f}", f"{found.median:.2f}", f"{found.auc:+.3f}", f"{found.accuracy:+.4f}", f"{cost:.2f}"]
    result.rows.append([f"  {model}", *cells, "all three" if all(inside.values()) else told])
    facts: dict[str, Any] = {"set": name, "model": model, "cost": cost, "inside": inside, "band": asdict(allowed)}
    result.measurements.append(facts | asdict(found))
    if model == METHODS[-1][0]:
        result.targets += _promises(name, found, allowed, cost)


def _promises(name: str, found: Distance, allowed: Band, cost: float) -> Sequence[Target]:
    return (
        Target(f"{name}: loss gap p95", found.p95, allowed.p95),
        Target(f"{name}: |AUC gap|", abs(found.auc), allowed.auc),
        Target(f"{name}: |accuracy gap|", abs(found.accuracy), allowed.accuracy),
        Target(f"{name}: CPU of a retrain", cost, BUDGET),
    )
