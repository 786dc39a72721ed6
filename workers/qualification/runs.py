"""Simulated deletions: the method's candidate and a retrain without the records, scored side by side, run by run.

WORK/plan.json           what is being qualified; another plan is refused
WORK/planted/            a base model that was trained with copies, where the data has too few
WORK/retrained-NAME/     the retrain of one pack of forget sets, until all of its runs are done
WORK/runs/NAME.arrow     scores of one run, and NAME.json how it ended: the run is finished once that is there

One retrain serves all forget sets of its pack: it was trained on none of them. Everything follows from the plan and
its seed, so a run that was killed and started again ends in the same numbers. The scores are personal data.
"""

import contextlib
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.catalogue.recipes import Recipe
from service.catalogue.specs import MethodSpec
from service.errors import Cancelled, DiskFull, JobError, MethodRefused, OutOfMemory
from service.verification.policy import Policy
from workers.lineage.canaries import companions as chosen_companions
from workers.modeling.directories import canonical_json, write_atomic
from workers.modeling.fresh import provenance_of
from workers.modeling.loading import LoadedModel, load_model
from workers.modeling.problem import Context, Problem, ReferenceTable
from workers.modeling.progress import part_of
from workers.modeling.records import Records, held_out_key, joined, split_held_out
from workers.modeling.rounding import rounded
from workers.modeling.train import train_by_recipe
from workers.planning.assessment import Facts, assess
from workers.planning.attempt import run_attempt
from workers.planning.evaluation import evaluate
from workers.planning.problems import Line, build_problem, recording
from workers.planning.score_tables import CANDIDATE, FORGET, HELD_OUT, ORIGINAL, RETAIN, RETRAINED, read_tables
from workers.planning.traces import classes_forgotten
from workers.qualification.designs import CANARY, Job, seed_of
from workers.references.layout import write_table
from workers.references.tables import membership
from workers.scoring.score import score

ROUNDED = ("int8", "int4")
_RETRAIN = f"{RETRAINED}1"
_PARTS = (FORGET, RETAIN, HELD_OUT)
_NOT_ITS_FAULT = (Cancelled, DiskFull, MethodRefused, OutOfMemory)
"""What ends a qualification and says nothing of how the method forgets."""


@dataclass(frozen=True)
class Setting:
    """What is qualified and on what: the same for every run. `params` with their defaults."""

    spec: MethodSpec
    params: dict[str, Any]
    policy: Policy
    recipe: Recipe
    data_digest: str
    columns: dict[str, str]
    seed: int
    work: Path
    references: ReferenceTable | None = None

    @property
    def companions(self) -> int | None:
        """Canaries deleted along with people; None for a method that trains again."""
        return self.policy.verification.companions if self.spec.kind == "approximate" else None

    def problem(self, line: Line, ids: Sequence[str], companions: int | None = None) -> Problem:
        """The problem of forgetting these ids."""
        made = build_problem(line, ids, self.recipe, self.data_digest, self.columns, companions)
        return replace(made, references=self.references)


def finished(setting: Setting, job: Job) -> bool:
    """Whether the run of a job is done, whatever it came to."""
    return (setting.work / "runs" / f"{job.name}.json").is_file()


def train_planted(setting: Setting, line: Line, copies: Records, context: Context) -> Line:
    """The line of a base model that was trained on the people and these copies of some of them, without canaries.

    Trained once; its directory is there whole or not at all.
    """
    people = joined(line.people, copies)
    directory = setting.work / "planted"
    if not directory.is_dir():
        problem = setting.problem(line, [str(line.people.ids[0])])
        provenance = replace(provenance_of(problem), excluded=0)
        run = replace(context, seed=seed_of(setting.seed, "planted"))
        if "lineage" in setting.spec.needs:
            run = recording(problem, run)
        train_by_recipe(setting.recipe, people, directory, run.seed, run, provenance)
    return replace(line, base_dir=directory, people=people, canaries=None)


def run_pack(setting: Setting, line: Line, name: str, jobs: Sequence[Job], context: Context) -> None:
    """All runs of one pack: its retrain unless it is there, then each job that is not finished.

    The retrain is removed at the end: what is measured of it stands in the runs. Raises what methods, trainings and
    evaluations raise; other JobErrors, such as weights that are not finite, are how a run may end.
    """
    left = [job for job in jobs if not finished(setting, job)]
    retrained = setting.work / f"retrained-{name}"
    if left:
        _retrain(setting, line, retrained, jobs, part_of(context, 0.0, 0.5, f"retraining {name}"))
    for at, job in enumerate(left):
        share = part_of(context, 0.5 + at / len(left) / 2, 0.5 + (at + 1) / len(left) / 2, job.name)
        _run(setting, line, job, retrained, {name for one in jobs for name in one.ids}, share)
    shutil.rmtree(retrained, ignore_errors=True)


def _view(line: Line, job: Job) -> Line:
    """The line as a job sees it: the records of canaries count as people's where they are what is forgotten."""
    if job.design != CANARY or line.canaries is None:
        return line
    return replace(line, people=joined(line.people, line.canaries.unspent), canaries=None)


def _compared(line: Line, job: Job) -> Line:
    """The same with what the job's records are compared with: canaries with canaries that were never trained on."""
    view = _view(line, job)
    if view is line or line.canaries is None:
        return line
    return replace(view, held_out=line.canaries.outside, holdout_digest=line.canaries.commitment)


def _retrain(setting: Setting, line: Line, directory: Path, jobs: Sequence[Job], context: Context) -> None:
    """Train without every forget set of the pack, and without the canaries that go along with each."""
    if directory.is_dir():
        return
    gone = {name for job in jobs for name in job.ids}
    everything = line.people
    if line.canaries is not None:
        gone |= set(chosen_companions(line.canaries, setting.companions or 0))
        everything = joined(everything, line.canaries.unspent)
    ids = np.asarray(everything.ids)
    kept = everything.subset(np.flatnonzero(~np.isin(ids, np.array(sorted(gone), dtype=str))).tolist())
    problem = setting.problem(line, [str(line.people.ids[0])])
    provenance = replace(provenance_of(problem), excluded=len(everything) - len(kept))
    seed = seed_of(setting.seed, directory.name)
    train_by_recipe(setting.recipe, kept, directory, seed, replace(context, seed=seed), provenance)


def _run(setting: Setting, line: Line, job: Job, retrained: Path, gone: Collection[str], context: Context) -> None:
    """One run; `gone` are the records that the retrain has not seen, those of other jobs among them."""
    folder = setting.work / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    candidate = setting.work / f"candidate-{job.name}"
    shutil.rmtree(candidate, ignore_errors=True)
    problem = setting.problem(_view(line, job), job.ids, setting.companions)
    seeded = replace(context, seed=seed_of(setting.seed, "candidate", job.name))
    try:
        run_attempt(setting.spec.name, setting.params, problem, part_of(seeded, 0.0, 0.5, "method"), candidate)
        judging = part_of(context, 0.5, 1.0, "judging")
        told, table = _judged(setting, _compared(line, job), job, candidate, retrained, gone, judging)
        write_table(folder / f"{job.name}.arrow", table)
    except _NOT_ITS_FAULT:
        raise
    except JobError as error:
        told = {"broken": error.detail}
    # Written last: a run without it is begun again.
    write_atomic(folder / f"{job.name}.json", canonical_json(told))
    shutil.rmtree(candidate, ignore_errors=True)


def _judged(
    setting: Setting,
    line: Line,
    job: Job,
    candidate: Path,
    retrained: Path,
    gone: Collection[str],
    context: Context,
) -> tuple[dict[str, Any], pa.Table]:
    """(how candidate and retrain would be judged by measurement alone, the scores of both)."""
    seeded = replace(context, seed=setting.seed)
    found, tables = evaluate(
        line=line,
        candidate_dir=candidate,
        retrained_dirs=[retrained],
        forget_ids=job.ids,
        policy=setting.policy,
        alpha=setting.policy.attempt_alpha,
        ignore_record=True,
        context=part_of(seeded, 0.0, 0.6, "scores"),
        data_digest=setting.data_digest,
        recipe=setting.recipe,
    )
    per_byte = found.unit == "byte"
    known = Facts(per_byte=per_byte, seed=setting.seed, forgotten_classes=classes_forgotten(line, job.ids))
    control = _control(tables, setting, known)
    directories = {CANDIDATE: candidate, _RETRAIN: retrained}
    coarse = _coarse(line, job, directories, per_byte, part_of(seeded, 0.6, 1.0, "rounded weights"))
    told = {"candidate": found.verdict, "retrained": control}
    return told, _scores(tables, line.task, per_byte, coarse, gone)


def _control(tables: dict[str, pa.Table], setting: Setting, known: Facts) -> str:
    """The verdict on the retrain in the candidate's place, on the same records."""
    parts = pa.array(_PARTS)
    kept = {name: table.filter(pc.is_in(table["set"], value_set=parts)) for name, table in tables.items()}
    found = assess(
        {ORIGINAL: kept[ORIGINAL], CANDIDATE: kept[_RETRAIN]},
        setting.recipe.model.task,
        setting.policy,
        alpha=setting.policy.attempt_alpha,
        facts=known,
        ignore_record=True,
    )
    return found.verdict


def _coarse(
    line: Line, job: Job, directories: dict[str, Path], per_byte: bool, context: Context
) -> dict[str, dict[str, np.ndarray]]:
    """Model and precision -> membership of forgotten and held-out records, each in the order of their ids."""
    sets = {FORGET: line.people.subset(line.people.rows_of(job.ids).tolist())}
    if line.held_out is not None and line.holdout_digest is not None:
        sets[HELD_OUT] = split_held_out(line.held_out, held_out_key(line.holdout_digest))[1]
    made: dict[str, dict[str, np.ndarray]] = {}
    for name, directory in directories.items():
        loaded = load_model(directory, line.task, context.device)
        for precision in ROUNDED:
            model = LoadedModel(rounded(loaded.model, precision), loaded.task, loaded.dir)
            made[f"{name} {precision}"] = {
                part: _by_id(score(model, records, context).table, line.task, per_byte)
                for part, records in sets.items()
                if len(records)
            }
    return made


def _by_id(table: pa.Table, task: str, per_byte: bool) -> np.ndarray:
    order = np.argsort(np.asarray(table["record_id"].to_pylist(), dtype=str), kind="stable")
    return membership(table, task, per_byte)[order]


def _scores(
    tables: dict[str, pa.Table],
    task: str,
    per_byte: bool,
    coarse: dict[str, dict[str, np.ndarray]],
    gone: Collection[str],
) -> pa.Table:
    """One row per record: set, subject_id, then what candidate and retrain say of it. Ids are not kept.

    Retained records that the retrain has not seen, since other jobs share it, would make it look worse than it is.
    """
    models = read_tables(tables, task, per_byte)
    parts = []
    for part in (part for part in _PARTS if part in models[CANDIDATE]):
        first = models[CANDIDATE][part]
        columns: dict[str, Any] = {"set": [part] * len(first), "subject_id": first.subjects.tolist()}
        columns["tokens"] = np.full(len(first), float(first.tokens.mean()))
        for name, model in (("candidate", models[CANDIDATE][part]), ("retrained", models[_RETRAIN][part])):
            columns[name] = model.membership
            columns[f"{name}_accuracy"] = model.accuracy
            columns[f"{name}_nll"] = model.likelihood.nll if model.likelihood else np.zeros(len(model))
            columns[f"{name}_units"] = model.likelihood.units if model.likelihood else np.zeros(len(model))
        for name in (CANDIDATE, _RETRAIN):
            for precision in ROUNDED:
                values = coarse[f"{name} {precision}"].get(part, np.full(len(first), np.nan))
                columns[f"{name.removesuffix('-1')}_{precision}"] = values
        made = pa.table(columns)
        unseen = np.isin(first.ids, np.array(sorted(gone), dtype=str))
        parts.append(made.filter(pa.array(~unseen)) if part == RETAIN else made)
    return pa.concat_tables(parts)


def read_run(setting: Setting, job: Job) -> dict[str, Any]:
    """How a finished run ended: `broken`, or the verdicts on `candidate` and `retrained`."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((setting.work / "runs" / f"{job.name}.json").read_bytes()))
    raise JobError(f"{job.name}: its result cannot be read; remove it from {setting.work}/runs and start again")
