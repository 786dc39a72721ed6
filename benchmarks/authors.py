"""Does a method bring a language model that has memorised its authors to where one that never read of ten of them is?

A small Llama learns questions and answers about a hundred fictional authors by heart; ten are to be forgotten. Beside
the untouched model stand two that never read of them: the gap is that of a record's mean token loss from the first of
these, and the second says how far such models lie apart. Costs are CPU seconds of the whole attempt over those of the
training. Trained models stay in benchmarks/out/authors: a run that was stopped goes on where it was.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.authors_world import AuthorsWorld, open_authors
from benchmarks.closeness import Read
from benchmarks.processes import environment
from benchmarks.record import Result, Target
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, Job, train_all
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records
from workers.modeling.training_record import read_record
from workers.planning.attempt import run_attempt
from workers.planning.problems import build_problem, open_line
from workers.scoring.score import score

OUT = Path(__file__).parent / "out"
SET, MOST_GAP, MOST_RETAIN_LOSS, BUDGET = "ten authors", 1.0, 0.2, 0.20
METHODS = ("nabla_tau", "negative_gradient_plus", "grad_diff", "npo", "simnpo", "undial", "finetune")
PICKED = METHODS[0]
"""What the planner tries first on a language model without a reference pool."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
COLUMNS = (
    "model", "forget NLL", "retain NLL", "held-out NLL", "gap median", "gap p95", "AUC", "CPU / training",
)  # fmt: skip
_RETAINED = 400
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Mean token losses of one model, nats: forgotten [N], retained [M] and held-out [H] records."""

    forget: Array
    retain: Array
    held_out: Array

    @property
    def auc(self) -> float:
        """The loss attack, forgotten against held-out records."""
        return Read(self.forget, self.held_out, 0.0).auc


def run(quick: bool = False, data: Path | None = None) -> Result:
    """Train what is missing and measure; `quick` trains one epoch. `data`: where the files lie, at first."""
    folder = OUT / ("authors-quick" if quick else "authors")
    with environment(LETHE_HOME=str(folder), **ONE_THREAD):
        torch.set_num_threads(1)
        world = open_authors(folder, data, quick)
        waiting = [] if world.served.is_dir() else [Job(0)]
        train_all(world, waiting) if waiting else None
        waiting = [Job(seed, forget=SET) for seed in (1, 2) if not world.retrained(SET, seed).is_dir()]
        train_all(world, waiting) if waiting else None
        return _measured(world)


def _measured(world: AuthorsWorld) -> Result:
    result = Result("authors", "Ten of a hundred authors forgotten by a small Llama", 1, COLUMNS)
    problem = _problem(world)
    kept = problem.retain.subset(list(range(0, len(problem.retain), max(1, len(problem.retain) // _RETAINED))))
    held_out = world.records("held_out")
    parts = problem.forget, kept, held_out
    without = [_seen(world.retrained(SET, seed), *parts) for seed in (1, 2)]
    whole = _training_seconds(world.served)
    _row(result, "do nothing", _seen(world.served, *parts), without[0], 0.0)
    _row(result, "another model without them", without[1], without[0], 1.0)
    for method in METHODS:
        out = world.folder / "candidate"
        shutil.rmtree(out, ignore_errors=True)
        done = run_attempt(method, {}, problem, Context(torch.device("cpu"), seed=7), out)
        _row(result, method, _seen(out, *parts), without[0], done.cpu_seconds / whole)
    shutil.rmtree(world.folder / "candidate", ignore_errors=True)
    result.settings = {"training_cpu_seconds": round(whole), "forget": len(problem.forget), "retain": len(kept)}
    result.notes.append("NLL and gap: nats a token of the answers; the gap is from the first model without them")
    return result


def _problem(world: AuthorsWorld) -> Problem:
    train, held_out = (world.records(part) for part in ("train", "held_out"))
    line = open_line(world.served, world.task, train, held_out, HELD_OUT_DIGEST)
    return build_problem(line, world.forget_sets()[SET], world.recipe, DIGEST, {})


def _seen(directory: Path, *parts: Records) -> Seen:
    loaded, context = load_model(directory, "causal-lm", torch.device("cpu")), Context(torch.device("cpu"))
    tables = (score(loaded, part, context).table for part in parts)
    return Seen(*(np.asarray(table["loss"], dtype=np.float64) for table in tables))


def _training_seconds(directory: Path) -> float:
    record = read_record(directory)
    assert record is not None  # it was trained here
    return float(record.cost["cpu_seconds"])


def _row(result: Result, model: str, seen: Seen, without: Seen, cost: float) -> None:
    gap = np.abs(seen.forget - without.forget)
    facts: dict[str, Any] = {
        "model": model,
        "forget": float(seen.forget.mean()),
        "retain": float(seen.retain.mean()),
        "held_out": float(seen.held_out.mean()),
        "median": float(np.median(gap)),
        "p95": float(np.quantile(gap, 0.95)),
        "auc": seen.auc,
        "cost": cost,
    }
    result.measurements.append(facts)
    result.rows.append([model, *(f"{value:.3f}" for key, value in facts.items() if key != "model")])
    if model == PICKED:
        result.targets += [
            Target(f"{model}: median gap", facts["median"], MOST_GAP),
            Target(f"{model}: retain NLL", facts["retain"], MOST_RETAIN_LOSS),
            Target(f"{model}: CPU of the training", cost, BUDGET),
        ]
