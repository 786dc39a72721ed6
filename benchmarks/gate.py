"""Does the gate, by measurement alone, pass what has forgotten nothing, and does it fail what never knew?

Each retrain leaves out five disjoint forget sets, which serve as five jobs; one a class. For every job the whole
gate judges four candidates: the untouched model with its scores nudged, the retrain, a model whose scores have
collapsed to one value, and one whose margin is constant. With a pool of references (the gate's side of 16) and
without. Power is computed from sizes and the untouched model, before a candidate is looked at: "power allows" where a
model without any leak passes the whole gate with probability 0.9 at least.

Trained models stay in benchmarks/out/gate: a run that was stopped goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.gate_world import GateWorld, Set, make_gate_world
from benchmarks.processes import environment
from benchmarks.record import Result, Target
from benchmarks.reference_world import DIGEST, HELD_OUT_DIGEST, RECIPE, TASK, Job, train_all
from service.verification.equivalence import gate_power
from service.verification.policy import Policy
from service.verification.schema import Evaluation
from service.verification.statistics import NotMeasurable
from workers.metrics.blind_baseline import extract
from workers.modeling.loading import load_model
from workers.modeling.problem import Context
from workers.modeling.records import held_out_key, split_held_out
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import Calibration
from workers.planning.checks import BlindFeatures
from workers.planning.problems import open_line
from workers.planning.traces import difficulty_of
from workers.references.members import Materials
from workers.references.pool import plan_pool, settle_pool
from workers.references.tables import SideTable, load_side
from workers.scoring.score import score

OUT = Path(__file__).parent / "out" / "gate"
RETRAINS, POOL = 40, 16
CANDIDATES = ("do nothing", "retrain", "collapsed", "constant margin")
COLUMNS = ("forget sets, candidate", "jobs", "pass", "fail", "inconclusive", "pass where power allows")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Judged:
    """One candidate of one job: its kind of set, whether a leak-free model would pass, and the verdict."""

    kind: str
    candidate: str
    references: bool
    powered: bool
    verdict: str
    reason: str


def run(quick: bool = False) -> Result:
    """Train what is missing and judge; `quick` takes two retrains and no class."""
    retrains = 2 if quick else RETRAINS
    folder = OUT.with_name("gate-quick") if quick else OUT
    folder.mkdir(parents=True, exist_ok=True)
    with environment(LETHE_HOME=str(folder), **ONE_THREAD):
        world, side, seconds = _trained(folder, retrains)
        found = list(_jobs(world, side))
    result = Result("gate", "The gate's verdicts by measurement alone, on digits with 15 % wrong labels", 1, COLUMNS)
    result.settings = {"retrains": retrains, "references": POOL, "jobs": len(world.sets()), "seconds": round(seconds)}
    for with_references in (True, False):
        _tell(result, [each for each in found if each.references == with_references], with_references)
    return result


def _trained(folder: Path, retrains: int) -> tuple[GateWorld, SideTable, float]:
    world = GateWorld(folder) if (folder / "sets.json").is_file() else make_gate_world(folder, retrains)
    seconds = 0.0 if world.served.is_dir() else train_all(world, [Job(0)])
    train, held_out = (world.records(part) for part in ("train", "held_out"))
    materials = Materials(world.served, train, held_out, RECIPE, DIGEST, HELD_OUT_DIGEST, {})
    pool = plan_pool(folder / "pool", materials, POOL, seed=1)
    if not pool.complete:
        seconds += train_all(world, [Job(number, pool.directory) for number in range(POOL)])
        pool = settle_pool(pool.directory)
    waiting = [Job(1, forget=name) for name in world.forget_sets() if not world.retrained(name, 1).is_dir()]
    return world, load_side(pool, "gate"), seconds + (train_all(world, waiting) if waiting else 0.0)


def _jobs(world: GateWorld, side: SideTable) -> Iterator[Judged]:
    """Every job of the world, each model scored once."""
    train, everybody = world.records("train"), world.records("held_out")
    line = open_line(world.served, TASK, train, everybody, HELD_OUT_DIGEST)
    certified = split_held_out(everybody, held_out_key(HELD_OUT_DIGEST))[1]
    served = _scored(world.served, train, certified)
    held_features = extract(certified.take(range(len(certified))))
    retrained: dict[str, dict[str, pa.Table]] = {}
    for job in world.sets():
        if job.retrain not in retrained:
            retrained = {job.retrain: _scored(world.retrained(job.retrain, 1), train, certified)}
        forgotten = train.subset(train.rows_of(job.ids).tolist())
        subjects = np.asarray(forgotten.subjects), np.asarray(certified.subjects)
        blind = BlindFeatures(extract(forgotten.take(range(len(forgotten)))), subjects[0], held_features, subjects[1])
        original, facts = _table(served, job), Facts(difficulty=difficulty_of(line, job.ids))
        for name, table in _candidates(original, _table(retrained[job.retrain], job)).items():
            for given in (Calibration(side, per_byte=False), NotMeasurable("not run: no references")):
                tables = {"original": original, "candidate": table}
                found = assess(tables, TASK, Policy(), blind=blind, facts=facts, references=given)
                powered = _power(found) >= 0.9
                yield Judged(job.kind, name, isinstance(given, Calibration), powered, found.verdict, found.reason)


def _scored(directory: Path, train: Any, held_out: Any) -> dict[str, pa.Table]:
    loaded, context = load_model(directory, TASK, torch.device("cpu")), Context(torch.device("cpu"))
    return {name: score(loaded, part, context).table for name, part in (("train", train), ("held_out", held_out))}


def _table(scores: Mapping[str, pa.Table], job: Set) -> pa.Table:
    """The score table of a job: its forget set, everything else of the training, the held-out records."""
    inside = pc.is_in(scores["train"]["record_id"], value_set=pa.array(job.ids))
    parts = (
        ("forget", scores["train"].filter(inside)),
        ("retain", scores["train"].filter(pc.invert(inside))),
        ("held_out", scores["held_out"]),
    )
    return pa.concat_tables([part.append_column("set", pa.array([name] * part.num_rows)) for name, part in parts])


def _candidates(original: pa.Table, retrained: pa.Table) -> dict[str, pa.Table]:
    scores = original["confidence"].to_numpy()
    rows = np.arange(len(scores))
    correct = original["correct"].to_numpy(zero_copy_only=False).astype(float)
    changed = {
        "do nothing": scores + 1e-6 * np.cos(rows),
        "collapsed": 1e-6 * np.cos(rows),
        # As sure of every right answer as of every other: nothing but right and wrong is left to tell apart.
        "constant margin": np.where(correct > 0, 2.0, -2.0) + 1e-6 * np.cos(rows),
    }
    at = original.column_names.index("confidence")
    made = {name: original.set_column(at, "confidence", pa.array(values)) for name, values in changed.items()}
    return {name: retrained if name == "retrain" else made[name] for name in CANDIDATES}


def _power(found: Evaluation) -> float:
    """Probability, at least, that a model without any leak passes every gate of this job."""
    powers = [check.power_at_zero for check in found.checks if check.role == "gate" and check.power_at_zero is not None]
    attack = [check for check in found.checks if check.role == "gate" and check.statistic.startswith(("AUC", "mean z"))]
    if not attack or any(check.power_at_zero is None for check in attack):
        return 0.0
    return gate_power(powers).at_least


def _tell(result: Result, found: Sequence[Judged], with_references: bool) -> None:
    title = "with references" if with_references else "without references"
    result.rows.append([f"[bold]{title}[/bold]", "", "", "", "", ""])
    for kind in dict.fromkeys(each.kind for each in found):
        for name in CANDIDATES:
            group = [each for each in found if (each.kind, each.candidate) == (kind, name)]
            counts = {verdict: sum(each.verdict == verdict for each in group) for verdict in ("pass", "fail")}
            powered = [each for each in group if each.powered]
            passed = sum(each.verdict == "pass" for each in powered)
            cells = [str(len(group)), str(counts["pass"]), str(counts["fail"])]
            cells += [str(len(group) - sum(counts.values())), f"{passed} of {len(powered)}"]
            result.rows.append([f"  {kind}: {name}", *cells])
            reasons = {each.reason for each in group if each.verdict == "fail"} if name == "retrain" else set()
            result.measurements.append(
                {"references": with_references, "kind": kind, "candidate": name, "jobs": len(group), **counts}
                | {"powered": len(powered), "powered_pass": passed, "why_failed": sorted(reasons)}
            )
    _promises(result, found, title)


def _promises(result: Result, found: Sequence[Judged], title: str) -> None:
    def share(name: str, verdict: str, powered: bool = False) -> float:
        group = [each for each in found if each.candidate == name and (each.powered or not powered)]
        return sum(each.verdict == verdict for each in group) / len(group) if group else float("nan")

    result.targets += [
        Target(f"{title}: doing nothing passes", share("do nothing", "pass"), 0.05),
        Target(f"{title}: a true retrain fails", share("retrain", "fail"), 0.0),
        Target(f"{title}: a collapsed model passes", share("collapsed", "pass"), 0.0),
        Target(f"{title}: a constant margin passes", share("constant margin", "pass"), 0.0),
    ]
    if any(each.powered and each.candidate == "retrain" for each in found):
        value = share("retrain", "pass", powered=True)
        result.targets.append(Target(f"{title}: a retrain passes where power allows", value, 0.9, at_most=False))
    else:
        result.notes.append(f"{title}: no set reached power 0.9")
