"""One cell of the table of methods: every method of the catalogue on one forget set of one served model.

Each attempt runs in a process forked for it, from the served model on disk to a candidate on disk, with the method's
defaults. Its CPU seconds and its peak of resident memory (`VmHWM`, interpreter and libraries included) are divided by
those of `retrain` in the same cell, which runs before and after the others. Candidates are scored once, compared with
the retrains of the world, and judged by the gate by measurement alone, whatever made them.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.closeness import band, distance, within
from benchmarks.methods_child import in_child, resident
from benchmarks.methods_judging import Judging, Scores
from benchmarks.methods_names import BETWEEN, DO_NOTHING, ORACLE, RETRAIN
from benchmarks.methods_world import MethodWorld
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST
from service.catalogue.methods import METHODS
from service.verification.policy import Policy
from workers.metrics.klom import klom_gaussian, klom_gaussian_null
from workers.metrics.tug_of_war import tow
from workers.modeling.directories import sha256_file, sha256_json
from workers.modeling.loading import load_model
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records, held_out_key, split_held_out
from workers.modeling.training_record import read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.choice import leave_as_classes
from workers.planning.costs import exact_options
from workers.planning.ladder import Situation, plan_ladder
from workers.planning.problems import Line, build_problem, open_line
from workers.planning.score_tables import FORGET, HELD_OUT, RETAIN
from workers.references.layout import Pool, read_facts
from workers.references.tables import load_side
from workers.scoring.score import score

ROOT = Path(__file__).parent.parent
RETAINED = 1000
"""Retained records that are scored."""
ATTEMPT_SEED = 1000
_CPU = torch.device("cpu")
_TEST = "test"
_OURS = ("cells", "judging", "child")
_READ = ("workers/*/*.py", "service/catalogue/**/*.py", "service/verification/*.py", "benchmarks/closeness.py")


@cache
def code_version() -> str:
    """Eight digits that change with the code that unlearns, scores and judges."""
    own = [f"benchmarks/methods_{name}.py" for name in _OURS]
    files = sorted({path for pattern in (*_READ, *own) for path in ROOT.glob(pattern)})
    return sha256_json({str(path.relative_to(ROOT)): sha256_file(path) for path in files})[:8]


def cell_file(world: MethodWorld, kind: str, seed: int) -> Path:
    """Where the figures of a cell are kept."""
    slug = kind.replace(" ", "-").replace("%", "pct")
    return world.folder / f"cell-{code_version()}-{slug}-{seed}.json"


def measured_cell(world: MethodWorld, kind: str, seed: int) -> dict[str, Any]:
    """The figures of a cell: measured now, unless the same code has measured them before."""
    path = cell_file(world, kind, seed)
    if not path.is_file():
        draft = path.with_suffix(".partial")
        draft.write_text(json.dumps(Cell(world, kind, seed).measure(), indent=1, ensure_ascii=False))
        draft.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@dataclass(frozen=True)
class Cell:
    """A forget set and the served model of a seed."""

    world: MethodWorld
    kind: str
    seed: int

    @cached_property
    def ids(self) -> list[str]:
        return self.world.forget_ids(self.kind, self.world.draw_of(self.seed))

    @cached_property
    def line(self) -> Line:
        train, held_out = self.world.records("train"), self.world.records("held_out")
        return open_line(self.world.served(self.seed), self.world.plan.task, train, held_out, HELD_OUT_DIGEST)

    @cached_property
    def pool(self) -> Pool:
        return Pool(self.world.pool, read_facts(self.world.pool))

    @cached_property
    def problem(self) -> Problem:
        made = build_problem(self.line, self.ids, self.world.recipe, DIGEST, {})
        return replace(made, references=load_side(self.pool, "method"))

    @cached_property
    def certified(self) -> Records:
        """Held-out records that no method has touched."""
        return split_held_out(self.world.records("held_out"), held_out_key(HELD_OUT_DIGEST))[1]

    @cached_property
    def retained(self) -> Records:
        """A sample of the retained records."""
        whole = self.problem.retain
        rows = np.random.default_rng(0).permutation(len(whole))[:RETAINED]
        return whole.subset(sorted(rows.tolist()))

    @cached_property
    def retrains(self) -> list[Scores]:
        draw = self.world.draw_of(self.seed)
        count = range(self.world.plan.retrains)
        return [self.scores(self.world.retrained(self.kind, draw, number)) for number in count]

    @cached_property
    def served(self) -> Scores:
        return self.scores(self.world.served(self.seed))

    @cached_property
    def judging(self) -> Judging:
        side = load_side(self.pool, "gate")
        return Judging.of(self.served.table, self.line, self.problem, self.certified, side)

    def scores(self, directory: Path) -> Scores:
        """Score a model directory once."""
        loaded, context = load_model(directory, self.world.plan.task, _CPU), Context(_CPU)
        parts = ((FORGET, self.problem.forget), (RETAIN, self.retained), (HELD_OUT, self.certified))
        tables = [
            score(loaded, records, context).table.append_column("set", pa.array([name] * len(records)))
            for name, records in parts
        ]
        test = score(loaded, self.world.records(_TEST), context).table
        return Scores(pa.concat_tables(tables), test, self.world.plan.task == "causal-lm")

    def measure(self) -> dict[str, Any]:
        """Run every method that the task has, and read what each left."""
        oracle, out = (self.world.folder / name for name in ("oracle", "candidate"))
        rows = [self._row(DO_NOTHING, self.served, self.world.served(self.seed)), self._between()]
        first = self._retrain(oracle)
        rows.append(self._row(RETRAIN, self.scores(oracle), oracle) | first)
        refused: dict[str, str] = {}
        failed: dict[str, str] = {}
        for spec in METHODS:
            if spec.name == RETRAIN or self.world.plan.task not in spec.tasks:
                continue
            shutil.rmtree(out, ignore_errors=True)
            problem = replace(self.problem, oracle=oracle) if spec.name == ORACLE else self.problem
            answer = in_child(partial(_run, spec.name, problem, self.seed, out))
            if answer.value is not None:
                rows.append(self._row(spec.name, self.scores(out), out) | answer.value)
            elif answer.refused is not None:
                refused[spec.name] = answer.refused
            else:
                failed[spec.name] = answer.failed or ""
        last = self._retrain(out)
        for path in (oracle, out):
            shutil.rmtree(path, ignore_errors=True)
        return self._facts() | {"retrain": [first, last], "rows": rows, "refused": refused, "failed": failed}

    def _facts(self) -> dict[str, Any]:
        """What the cell is, what retrains differ by among themselves, and what the planner would do."""
        return {
            "world": self.world.plan.name,
            "set": self.kind,
            "seed": self.seed,
            "draw": self.world.draw_of(self.seed),
            "forgotten": len(self.ids),
            "people": len(np.unique(self.problem.forget.subjects)),
            "band": asdict(band([each.read for each in self.retrains])),
            "plan": self._plan(),
        }

    def _retrain(self, out: Path) -> dict[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        found: dict[str, Any] = in_child(partial(_run, RETRAIN, self.problem, self.seed, out)).checked()
        return found

    def _row(self, model: str, scores: Scores, directory: Path) -> dict[str, Any]:
        """How near a model comes to the retrains, what it is worth, and what the gate says of it."""
        reads = [each.read for each in self.retrains]
        found = distance(scores.read, reads)
        margins = np.stack([each.margins for each in self.retrains])
        apart = klom_gaussian(scores.margins[None, :], margins)
        towards = [tow(scores.levels, each.levels) for each in self.retrains]
        verdict, reason = self.judging.verdict(scores, directory, same=model == DO_NOTHING)
        told = {"model": model, "utility": scores.utility, "verdict": verdict, "reason": reason}
        told |= {"inside": within(found, band(reads)), "tow": float(np.mean(towards))}
        return told | asdict(found) | {"klom": float(np.median(apart)), "klom_p95": float(np.quantile(apart, 0.95))}

    def _between(self) -> dict[str, Any]:
        """Retrains beside each other: the floor of every column."""
        reads = [each.read for each in self.retrains]
        apart = [asdict(distance(one, [each for each in reads if each is not one])) for one in reads]
        margins = klom_gaussian_null(np.stack([each.margins for each in self.retrains]))
        levels = [each.levels for each in self.retrains]
        towards = [tow(one, other) for one in levels for other in levels if one is not other]
        found = {name: float(np.mean([abs(each[name]) for each in apart])) for name in apart[0]}
        told = {"model": BETWEEN, "utility": float(np.mean([each.utility for each in self.retrains]))}
        told |= {"tow": float(np.mean(towards)), "klom": float(np.median(margins))}
        return told | found | {"klom_p95": float(np.quantile(margins, 0.95)), "verdict": ""}

    def _plan(self) -> dict[str, Any]:
        """What `auto` would try on this set, by the default policy."""
        record = read_record(self.problem.base_dir)
        case = Situation(
            task=self.world.plan.task,
            forget_records=len(self.problem.forget),
            forget_subjects=len(np.unique(self.problem.forget.subjects)),
            data_records=len(self.line.people),
            has_held_out=True,
            exact=exact_options(self.problem.base_dir, self.world.recipe, self.ids),
            train_seconds=record.seconds if record else None,
            has_references=not self._as_classes(),
        )
        plan = plan_ladder(Policy(), case)
        return {"rungs": [rung.model_dump(mode="json") for rung in plan.rungs], "why": plan.why}

    def _as_classes(self) -> bool:
        people = self.line.people
        return "label" in people.roles and leave_as_classes(people.column("label"), people.rows_of(self.ids))


def _run(method: str, problem: Problem, seed: int, out: Path) -> dict[str, Any]:
    """In a child: one attempt, and what it took."""
    before = resident()
    done: AttemptResult = run_attempt(method, {}, problem, Context(_CPU, seed=ATTEMPT_SEED + seed), out)
    return {
        "seconds": done.seconds,
        "cpu_seconds": done.cpu_seconds,
        "peak_memory_bytes": done.peak_memory_bytes,
        "memory_before_bytes": before,
        "steps": done.steps,
        "notes": done.notes,
    }
