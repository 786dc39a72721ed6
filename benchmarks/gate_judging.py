"""The gate's verdicts on every job of a self-test: four candidates each, and noise drawn exactly at the margin."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.gate_candidates import AT_MARGIN, candidates, noise_by_population, noise_by_references, scores_of
from benchmarks.gate_power import WANTED, leak_free_power
from benchmarks.gate_world import GateWorld, Set
from benchmarks.reference_world import HELD_OUT_DIGEST
from service.verification.policy import Policy, margin_for
from service.verification.schema import Check, Verdict
from service.verification.statistics import NotMeasurable
from service.verification.verdict import BLIND, CHANCE, MEMBERSHIP, REFERENCE, decide, explain, judge
from workers.metrics.blind_baseline import extract
from workers.metrics.reference_auc import Judged as Beside
from workers.metrics.reference_auc import reference_design
from workers.modeling.loading import load_model
from workers.modeling.problem import Context
from workers.modeling.records import Records, held_out_key, split_held_out
from workers.planning.assessment import Facts, assess
from workers.planning.calibrated import Calibration, reference_checks
from workers.planning.checks import (
    BlindFeatures,
    blind_check,
    difficulty_check,
    distinct_check,
    membership_checks,
    sanity_check,
    utility_check,
)
from workers.planning.comparisons import Line as Scored
from workers.planning.evaluation import BLIND_SAMPLE
from workers.planning.problems import Line, open_line
from workers.planning.score_tables import CANDIDATE, FORGET, HELD_OUT, ORIGINAL, RETAIN, read_tables
from workers.planning.traces import difficulty_of
from workers.references.layout import HELD_OUT as POOL_HELD_OUT
from workers.references.layout import TRAIN
from workers.references.pool import open_pool
from workers.references.tables import SideTable, load_side
from workers.scoring.score import score

POLICY = Policy()
ATTEMPTS = 5
RETAINED = 1000
NO_POOL = NotMeasurable("not run: no references")

References = Calibration | NotMeasurable


@dataclass(frozen=True)
class Verdicts:
    """One candidate of one job: whether references were given, whether a leak-free model would pass, and the verdict.

    Of noise at the margin `attempts` are the verdicts of so many draws at alpha, `shared` those of the same draws at
    alpha over their number, and `estimates` the AUCs less what they were drawn at.
    """

    retrain: str
    kind: str
    candidate: str
    references: bool
    powered: bool
    verdict: Verdict
    reason: str
    attempts: tuple[Verdict, ...] = ()
    shared: tuple[Verdict, ...] = ()
    estimates: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Job:
    """One forget set with everything that its candidates are judged by."""

    set: Set
    task: str
    original: pa.Table
    blind: Check
    facts: Facts
    side: SideTable

    def beside(self) -> tuple[Beside, Beside]:
        """What the references say of forgotten and held-out records, in the order of the table."""
        forget, held_out = (self._beside(name, part) for name, part in ((FORGET, TRAIN), (HELD_OUT, POOL_HELD_OUT)))
        return forget, held_out

    def _beside(self, name: str, part: str) -> Beside:
        rows = self.original.filter(pc.equal(self.original["set"], name))
        ids, subjects = (np.array(rows[column].to_pylist(), dtype=str) for column in ("record_id", "subject_id"))
        labels = rows["label"].to_numpy() if "label" in rows.column_names else None
        return self.side.judged(part, ids, scores_of(rows), subjects, labels)


@dataclass(frozen=True)
class Court:
    """What all jobs of a world share: its records, the scores of the served model, and the gate's side of the pool."""

    world: GateWorld
    line: Line
    certified: Records
    served: Mapping[str, pa.Table]
    side: SideTable

    @classmethod
    def of(cls, world: GateWorld) -> "Court":
        """Open a world whose models are trained."""
        train, everybody = world.records("train"), world.records("held_out")
        line = open_line(world.served, world.task, train, everybody, HELD_OUT_DIGEST)
        certified = split_held_out(everybody, held_out_key(HELD_OUT_DIGEST))[1]
        pool = open_pool(world.folder / "pool")
        return cls(world, line, certified, _scored(world, world.served, train, certified), load_side(pool, "gate"))

    def verdicts(self, retrain: str) -> Iterator[Verdicts]:
        """Every candidate of every job of a retrain, with references and without; its model is scored once."""
        train = self.line.people
        scores = _scored(self.world, self.world.retrained(retrain, 1), train, self.certified)
        for number, each in enumerate(self.world.sets()):
            if each.retrain == retrain:
                kept = _kept(train, each, number)
                original = _table(self.served, each, kept)
                job = _job(self.world, self.line, self.certified, each, original, self.side)
                yield from _judged(job, _table(scores, each, kept), np.random.default_rng([7, number]))


def _judged(job: _Job, retrained: pa.Table, draw: np.random.Generator) -> Iterator[Verdicts]:
    design = reference_design(*job.beside(), draw)
    for given in (Calibration(job.side, per_byte=False), NO_POOL):
        powered = False
        for name, table in candidates(job.original, retrained).items():
            checks, verdict, reason = assessed(job, table, given)
            powered = leak_free_power(checks, design, POLICY.verification) >= WANTED
            yield Verdicts(job.set.retrain, job.set.kind, name, given is not NO_POOL, powered, verdict, reason)
        yield _at_margin(job, given, powered, draw)


def assessed(job: _Job, candidate: pa.Table, given: References) -> tuple[list[Check], Verdict, str]:
    """The whole evaluation; the blind baseline, which no candidate changes, comes from the job."""
    tables = {ORIGINAL: job.original, CANDIDATE: candidate}
    found = assess(tables, job.task, POLICY, facts=job.facts, references=given)
    return _decided([job.blind if check.id == BLIND else check for check in found.checks])


def gates(job: _Job, candidate: pa.Table, given: References, alpha: float) -> tuple[list[Check], Verdict, str]:
    """The same from the checks that gate, or that take a gate's say away, alone."""
    models = read_tables({ORIGINAL: job.original, CANDIDATE: candidate}, job.task, per_byte=False)
    before, after, rules = models[ORIGINAL], models[CANDIDATE], POLICY.verification
    return _decided(
        [
            distinct_check(before, after, files_differ=True),
            sanity_check(before, after, weights_finite=True),
            *membership_checks(before, after, rules, alpha),
            job.blind,
            difficulty_check(job.facts.difficulty, alpha, before),
            utility_check(before, after, rules, alpha),
            *reference_checks(Scored(before, after, []), given, rules, alpha)[0],
        ]
    )


def _decided(raw: list[Check]) -> tuple[list[Check], Verdict, str]:
    checks = judge(raw, "measurement", POLICY.verification)
    return checks, decide(checks, "measurement")[0], explain(checks, "measurement")


def _at_margin(job: _Job, given: References, powered: bool, draw: np.random.Generator) -> Verdicts:
    """Noise whose true AUC lies on the upper margin, and on the lower one in every other attempt."""
    alpha = POLICY.verification.alpha
    margin = margin_for(POLICY.verification.auc_margin, len(job.set.ids)) or 0.0
    found: list[tuple[Verdict, Verdict, float]] = []
    for number in range(ATTEMPTS):
        true = CHANCE + margin * (-1) ** number
        noise = _noise(job, given, true, draw)
        (checks, verdict, _), (_, shared, _) = (gates(job, noise, given, level) for level in (alpha, alpha / ATTEMPTS))
        found.append((verdict, shared, _estimate(checks, given) - true))
    attempts, shares, off = zip(*found, strict=True)
    first = (job.set.retrain, job.set.kind, AT_MARGIN, given is not NO_POOL, powered, attempts[0], "")
    return Verdicts(*first, attempts, shares, off)


def _noise(job: _Job, given: References, auc: float, draw: np.random.Generator) -> pa.Table:
    if given is NO_POOL:
        return noise_by_population(job.original, auc, draw)
    return noise_by_references(job.original, job.beside(), auc, draw)


def _estimate(checks: list[Check], given: References) -> float:
    wanted = MEMBERSHIP if given is NO_POOL else REFERENCE
    return next(check.estimate for check in checks if check.id == wanted and check.estimate is not None)


def _job(world: GateWorld, line: Line, certified: Records, each: Set, original: pa.Table, side: SideTable) -> _Job:
    forgotten = line.people.subset(line.people.rows_of(each.ids).tolist())
    sample = certified.subset(_sample(len(certified), BLIND_SAMPLE, 1))
    features = [extract(part.take(range(len(part)))) for part in (forgotten, sample)]
    subjects = [np.asarray(part.subjects) for part in (forgotten, sample)]
    blind = BlindFeatures(features[0], subjects[0], features[1], subjects[1])
    return _Job(
        each,
        world.task,
        original,
        blind_check(blind, True, POLICY.verification.alpha, 0),
        Facts(difficulty=difficulty_of(line, each.ids)),
        side,
    )


def _sample(size: int, most: int, seed: int) -> list[int]:
    if size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(seed).choice(size, most, replace=False).tolist())


def _kept(train: Records, each: Set, seed: int) -> pa.Array:
    """Ids of a sample of the retained records: what is retained decides nothing in the gate but which classes stay."""
    ids = np.asarray(train.ids)[~np.isin(np.asarray(train.ids), np.array(each.ids))]
    return pa.array(ids[_sample(len(ids), RETAINED, seed)].tolist())


def _scored(world: GateWorld, directory: Path, train: Records, held_out: Records) -> dict[str, pa.Table]:
    loaded, context = load_model(directory, world.task, torch.device("cpu")), Context(torch.device("cpu"), threads=1)
    return {name: score(loaded, part, context).table for name, part in (("train", train), (HELD_OUT, held_out))}


def _table(scores: Mapping[str, pa.Table], each: Set, kept: pa.Array) -> pa.Table:
    """The score table of a job: its forget set, retained records, the held-out records."""
    ids = scores["train"]["record_id"]
    parts: tuple[tuple[str, Any], ...] = (
        (FORGET, scores["train"].filter(pc.is_in(ids, value_set=pa.array(each.ids)))),
        (RETAIN, scores["train"].filter(pc.is_in(ids, value_set=kept))),
        (HELD_OUT, scores[HELD_OUT]),
    )
    return pa.concat_tables([part.append_column("set", pa.array([name] * part.num_rows)) for name, part in parts])
