"""What do unlearning and verification cost, as a fraction of retraining without the forgotten records?

Both models of the demo, each asked to forget twelve people, through the command line as a user would: every figure is
that of a whole process, by the kernel's own account (wait4), on one thread. In each round all methods take their turn
with the round's seed, so that a fraction compares neighbours in time.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Run, checked, environment, lethe, timed
from benchmarks.record import Result, Spread
from workers.demo.cast import choose_cast
from workers.demo.conversations import conversation
from workers.demo.world import Files, World, make_world

ROUNDS = 3
BUDGET_SECONDS = 390
METHODS = ("retrain", "nabla_tau", "negative_gradient_plus")
VERDICTS = {0: "pass", 1: "fail", 3: "inconclusive"}
COLUMNS = ("step", "wall s", "/retrain", "CPU s", "/retrain", "less start-up", "peak MB", "/retrain", "verdict")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_START = "import torch, transformers"
_EVALUATE = "evaluate"


@dataclass(frozen=True)
class Subject:
    """One model of the demo, trained, and the records that it shall forget."""

    name: str
    task: str
    files: Files
    forget: Path
    forgotten: int

    def options(self) -> list[str]:
        """What `unlearn` and `evaluate` both take."""
        files = [("--data", self.files.train), ("--holdout", self.files.holdout), ("--forget", self.forget)]
        return ["--task", self.task, *(str(part) for pair in files for part in pair), "--json"]


@dataclass
class Costs:
    """Runs by step, and what they said: seconds of the work alone, and verdicts by method."""

    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    own_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    verdicts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def spread(self, step: str, of: Callable[[Run], float]) -> Spread:
        """A figure of one step over the rounds."""
        return Spread.of([of(run) for run in self.runs[step]])

    def fractions(self, step: str, of: Callable[[Run], float], floor: float = 0.0) -> Spread:
        """The figure as a fraction of that of `retrain`, both above `floor`.

        Within a round where the step ran once a round, else against the median retrain.
        """
        ours, theirs = ([of(run) - floor for run in self.runs[name]] for name in (step, "retrain"))
        if len(ours) != len(theirs):
            theirs = [Spread.of(theirs).median] * len(ours)
        return Spread.of([mine / base for mine, base in zip(ours, theirs, strict=True)])


def run(quick: bool = False) -> Result:
    """Measure; `quick` does one round."""
    rounds, done = 1 if quick else ROUNDS, 0
    with tempfile.TemporaryDirectory(prefix="lethe-bench-") as name:
        folder = Path(name)
        with environment(LETHE_HOME=str(folder / "home"), LETHE_LOG_LEVEL="WARNING", **ONE_THREAD):
            world = make_world(folder / "data")
            subjects = [_train(*each, folder) for each in _asked(world)]
            costs = {subject.name: Costs() for subject in subjects}
            began = time.monotonic()
            # On a busy machine fewer rounds are better than none: the next one must still fit.
            while done == 0 or (done < rounds and (time.monotonic() - began) * (done + 1) / done < BUDGET_SECONDS):
                for subject in subjects:
                    _round(subject, costs[subject.name], folder, done)
                done += 1
    result = _result(subjects, costs, done)
    if done < rounds:
        result.notes.append(f"the machine was busy: {done} of {rounds} rounds within {BUDGET_SECONDS} s")
    return result


def _asked(world: World) -> list[tuple[str, str, Files, list[str]]]:
    """(name, task, files, record ids) of each model and the twelve people that the demo forgets first."""
    cast = choose_cast(world)
    digits = [record.record_id for record in cast.written_by(cast.writers)]
    talks = [f"{who.subject_id}-{at}" for who in cast.members for at in range(len(conversation(who)))]
    return [
        ("digits", "image-classification", world.digits, digits),
        ("support", "causal-lm", world.support, talks),
    ]


def _train(name: str, task: str, files: Files, ids: Sequence[str], folder: Path) -> Subject:
    forget = folder / f"{name}.txt"
    forget.write_text("".join(f"{record_id}\n" for record_id in ids))
    options = ["--recipe", str(files.recipe), "--data", str(files.train), "--holdout", str(files.holdout)]
    checked("train", *options, "--out", str(files.model))
    return Subject(name, task, files, forget, len(ids))


def _round(subject: Subject, costs: Costs, folder: Path, number: int) -> None:
    costs.runs["start-up"].append(timed([sys.executable, "-c", _START], folder))
    for method in METHODS:
        out = folder / f"{subject.name}-{method}-{number}"
        options = ["--model", str(subject.files.model), "--method", method, "--out", str(out), "--seed", str(number)]
        done = timed(lethe("unlearn", *subject.options(), *options), folder)
        costs.runs[method].append(done)
        costs.own_seconds[method].append(float(done.document()["seconds"]))
        # An exact candidate is judged by procedure, and always alike: once is enough.
        if method != "retrain" or number == 0:
            models = ["--original", str(subject.files.model), "--candidate", str(out)]
            command = lethe("evaluate", *subject.options(), *models)
            judged = timed(command, folder, accept=tuple(VERDICTS))
            costs.runs[_EVALUATE].append(judged)
            costs.verdicts[method].append(str(judged.document()["verdict"]))


def _result(subjects: Sequence[Subject], costs: dict[str, Costs], rounds: int) -> Result:
    title = "Unlearning and verification, as a fraction of retraining in the same run"
    result = Result("cost", title, rounds, COLUMNS)
    for subject in subjects:
        result.rows.append([f"[bold]{subject.name}[/bold]: {subject.forgotten} of {subject.files.records}"] + [""] * 8)
        for step in ("start-up", *METHODS, _EVALUATE):
            _add_step(result, subject.name, step, costs[subject.name])
    result.settings = {"threads": 1, "seeds": list(range(rounds)), "people": 12}
    result.notes = [
        "median (lowest–highest); whole processes: wall and CPU seconds, peak resident set; start-up: Python importing "
        "torch and transformers",
        "/retrain: as a fraction of the same figure of `retrain` in the same round; less start-up: the fraction of CPU "
        "seconds above those of the start-up",
        f"verdicts of `lethe evaluate`, one for each seed 0 to {rounds - 1} (retraining: judged by procedure, once)",
    ]
    return result


def _add_step(result: Result, name: str, step: str, costs: Costs) -> None:
    floor = costs.spread("start-up", _cpu).median
    wall, cpu, peak = (costs.spread(step, of) for of in (_wall, _cpu, _peak))
    of_wall, of_cpu, of_peak = (costs.fractions(step, of) for of in (_wall, _cpu, _peak))
    net = None if step == "start-up" else costs.fractions(step, _cpu, floor)
    verdicts = costs.verdicts.get(step, [])
    told = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    cells = [
        f"  {step}",
        wall.text(1),
        of_wall.text(2),
        f"{cpu.median:.1f}",
        of_cpu.text(2),
        net.text(2) if net else "",
    ]
    result.rows.append([*cells, f"{peak.median:.0f}", f"{of_peak.median:.2f}", told])
    result.measurements.append(
        {"model": name, "step": step, "wall_seconds": wall, "cpu_seconds": cpu, "peak_mb": peak}
        | {"wall_of_retrain": of_wall, "cpu_of_retrain": of_cpu, "cpu_of_retrain_without_start": net}
        | {"memory_of_retrain": of_peak, "own_seconds": costs.own_seconds.get(step, []), "verdicts": verdicts}
    )


def _wall(run: Run) -> float:
    return run.wall


def _cpu(run: Run) -> float:
    return run.cpu


def _peak(run: Run) -> float:
    return run.peak_mb
