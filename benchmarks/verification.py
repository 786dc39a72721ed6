"""What does verifying one deletion cost, with 32 references prepared, as a fraction of one retraining?

Three models: digits and support conversations of the demo, which train in seconds, and a larger world of 20,000 images
whose training takes a minute or more. Each is asked to forget some people; the candidate is a retrain, judged by
measurement, so that every check runs. In one process, everything that `lethe evaluate` does after its imports: reading
and checking the data, opening the pool, scoring original and candidate, calibrating, all checks. As a command: the
whole process by the kernel's account. References are trained beforehand by a shorter recipe of the same model: what a
pool costs to look at does not depend on what its members learnt.

Models and pools stay in benchmarks/out/verification: a run that was stopped goes on where it was.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.processes import Run, environment, lethe, timed
from benchmarks.record import Result, Spread, Target
from benchmarks.verification_world import ROUNDS, Subject, prepare, subjects
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from workers.cli.common import digest_of, gate_references, open_data
from workers.modeling.problem import Context
from workers.modeling.training_record import read_record
from workers.planning import evaluation
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.problems import build_problem, open_line
from workers.scoring.score import Scored, score

OUT = Path(__file__).parent / "out" / "verification"
REFERENCES = 32
LIMIT = 0.25
VERDICTS = (0, 1, 3)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LETHE_THREADS": "1"}
COLUMNS = ("step", "wall s", "/retrain", "CPU s", "/retrain", "records scored")
_START = (
    "import workers.planning.evaluation, workers.planning.attempt, transformers.models.auto.modeling_auto, "
    "sklearn.isotonic, sklearn.linear_model, sklearn.model_selection"
)


@dataclass(frozen=True)
class Pass:
    """One call of the scoring: which model's folder, how many records and batches, and the CPU seconds it took."""

    model: str
    records: int
    batches: int
    cpu: float


@dataclass
class Measured:
    """Wall and CPU seconds by step, one a round, and what the last evaluation said and scored."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)
    seen: int = 0
    said: Evaluation | None = None

    def add(self, step: str, wall: float, cpu: float) -> None:
        """One more round of a step."""
        self.wall.setdefault(step, []).append(wall)
        self.cpu.setdefault(step, []).append(cpu)


def run(quick: bool = False) -> Result:
    """Measure; `quick` takes one round of the digits alone, with 16 references."""
    rounds, count = (1, 16) if quick else (ROUNDS, REFERENCES)
    folder = OUT.with_name("verification-quick") if quick else OUT
    result = Result("verification", f"One verification with {count} prepared references", rounds, COLUMNS)
    with environment(LETHE_HOME=str(folder / "home"), LETHE_LOG_LEVEL="WARNING", **ONE_THREAD):
        torch.set_num_threads(1)
        for subject in subjects(folder, quick):
            prepare(subject, count)
            _tell(result, subject, _measure(subject, rounds))
    result.settings = {"references": count, "threads": 1, "rounds": rounds}
    result.notes += [
        "median (lowest–highest); /retrain: of the median retrain in process, which is its work alone; start-up in its "
        "own row",
        "start-up: Python importing what the commands import, most of it torch, transformers and scikit-learn",
        "records scored: of each model, by set; a record that was scored twice would be counted twice",
    ]
    return result


def _measure(subject: Subject, rounds: int) -> Measured:
    found = Measured()
    for number in range(min(rounds, subject.retrains)):
        done = _retrained(subject, number)
        found.add("retrain, in process", done.seconds, done.cpu_seconds)
    for _ in range(rounds):
        _judge(subject, found)
        _command(subject, found, "start-up", [sys.executable, "-c", _START])
        _command(subject, found, "evaluate, as a command", lethe("evaluate", *_evaluated(subject)))
    return found


def _command(subject: Subject, found: Measured, step: str, command: Sequence[str]) -> None:
    done: Run = timed(command, subject.files.folder, accept=VERDICTS if "evaluate" in step else (0,))
    found.add(step, done.wall, done.cpu)


def _candidate(subject: Subject) -> Path:
    return subject.files.folder / "candidate-0"


def _evaluated(subject: Subject) -> list[str]:
    models = ["--original", str(subject.files.model), "--candidate", str(_candidate(subject))]
    rest = ["--forget", str(subject.forget), "--references", str(subject.pool), "--ignore-record", "--json"]
    return [*subject.given(), *models, *rest]


def _fresh(directory: Path) -> Path:
    """The path, with nothing there: an earlier run's candidate goes."""
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    return directory


def _retrained(subject: Subject, number: int) -> AttemptResult:
    """One retrain in this process; the first one is the candidate."""
    data, held_out = (open_data(path, subject.task, "") for path in (subject.files.train, subject.files.holdout))
    line = open_line(subject.files.model, subject.task, data, held_out, digest_of(subject.files.holdout))
    record = read_record(subject.files.model)
    assert record is not None
    problem = build_problem(line, subject.ids, record.recipe, digest_of(subject.files.train), {})
    out = _fresh(subject.files.folder / f"candidate-{number}")
    return run_attempt("retrain", {}, problem, Context(torch.device("cpu"), number, 1), out)


def _judge(subject: Subject, found: Measured) -> None:
    """Everything of `lethe evaluate` but starting Python and showing the answer."""
    files, began = subject.files, _clocks()
    data, held_out = (open_data(path, subject.task, "") for path in (files.train, files.holdout))
    pool = gate_references(subject.pool, subject.task, files.train, files.holdout)
    read = _clocks()
    with _watched() as (passes, rows):
        line = open_line(files.model, subject.task, data, held_out, digest_of(files.holdout))
        found.said, _ = evaluation.evaluate(
            line=line,
            candidate_dir=_candidate(subject),
            retrained_dirs=[],
            forget_ids=subject.ids,
            policy=Policy(),
            alpha=None,
            ignore_record=True,
            context=Context(torch.device("cpu"), 0, 1),
            references=pool,
        )
    ended = _clocks()
    found.passes, found.seen = passes, sum(rows)
    found.add("evaluate, in process", ended[0] - began[0], ended[1] - began[1])
    found.add("  of it reading", read[0] - began[0], read[1] - began[1])
    scoring = sum(one.cpu for one in passes)
    found.add("  of it scoring", scoring, scoring)
    found.add("  of it the rest", ended[0] - read[0] - scoring, ended[1] - read[1] - scoring)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@contextmanager
def _watched() -> Iterator[tuple[list[Pass], list[int]]]:
    """Lists that fill with every call of the scoring, and with the records of every forward pass of a base model."""
    from torch.nn.modules.module import register_module_forward_hook
    from transformers import PreTrainedModel

    passes: list[Pass] = []
    rows: list[int] = []

    def counted(loaded: Any, records: Any, *rest: Any) -> Scored:
        began = time.process_time()
        done = score(loaded, records, *rest)
        passes.append(Pass(loaded.dir.name, len(records), done.forward_passes, time.process_time() - began))
        return done

    def met(module: Any, _: Any, output: Any) -> None:
        if isinstance(module, PreTrainedModel) and module.base_model is module:
            rows.append(int(output[0].shape[0]))

    hook = register_module_forward_hook(met)
    try:
        with patch.object(evaluation, "score", counted):
            yield passes, rows
    finally:
        hook.remove()


def _tell(result: Result, subject: Subject, found: Measured) -> None:
    files = subject.files
    head = f"[bold]{subject.name}[/bold]: {len(subject.ids)} of {files.records}, {files.held_out} held out"
    result.rows.append([head, *[""] * (len(COLUMNS) - 1)])
    base = {"wall": _middle(found.wall, "retrain, in process"), "cpu": _middle(found.cpu, "retrain, in process")}
    for step in found.wall:
        wall, cpu = Spread.of(found.wall[step]), Spread.of(found.cpu[step])
        shares = [f"{wall.median / base['wall']:.3f}", f"{cpu.median / base['cpu']:.3f}"]
        told = _told(found.passes) if step == "  of it scoring" else ""
        result.rows.append([f"  {step}", wall.text(2), shares[0], cpu.text(2), shares[1], told])
        result.measurements.append(
            {"model": subject.name, "step": step.strip(), "wall_seconds": wall, "cpu_seconds": cpu}
        )
    net = (_middle(found.cpu, "evaluate, as a command") - _middle(found.cpu, "start-up")) / base["cpu"]
    share = _middle(found.cpu, "evaluate, in process") / base["cpu"]
    result.targets.append(Target(f"{subject.name}: evaluate / retrain, CPU in process", share, LIMIT))
    result.targets.append(Target(f"{subject.name}: evaluate as a command less start-up / retrain, CPU", net, LIMIT))
    _once(result, subject, found)


def _once(result: Result, subject: Subject, found: Measured) -> None:
    """Every set of every model was scored in one call, and models saw no record more often."""
    assert found.said is not None
    asked = sum(one.records for one in found.passes)
    result.measurements.append(
        {"model": subject.name, "passes": [vars(one) for one in found.passes], "rows_through_models": found.seen}
        | {"verdict": found.said.verdict, "batches": found.said.forward_passes}
    )
    result.targets.append(
        Target(f"{subject.name}: records through a model / records of the sets", found.seen / asked, 1.01)
    )
    result.notes.append(f"{subject.name}: {found.said.verdict}, {found.said.reason}")


def _told(passes: Sequence[Pass]) -> str:
    by_model: dict[str, list[str]] = {}
    for one in passes:
        by_model.setdefault(one.model, []).append(f"{one.records} in {one.batches}")
    return "; ".join(f"{model}: {', '.join(sets)}" for model, sets in by_model.items())


def _middle(by_step: Mapping[str, list[float]], step: str) -> float:
    return Spread.of(by_step[step]).median
