"""The ladder without the service: run, judge, keep what passes. The service does the same stage by stage."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Cancelled, DiskFull, LetheError
from service.verification.policy import Policy
from service.verification.schema import Use
from service.verification.statistics import NotMeasurable
from workers.modeling.directories import publish_directory, refuse_existing
from workers.modeling.problem import Context, Problem
from workers.modeling.training_record import read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.calibrated import NO_REFERENCES, References
from workers.planning.choice import leave_as_classes
from workers.planning.costs import exact_options
from workers.planning.evaluation import evaluate
from workers.planning.ladder import Plan, Rung, Situation, plan_ladder
from workers.planning.problems import Line, as_edit
from workers.planning.qualifying import Documents, unqualified, use_of, with_qualification


@dataclass(frozen=True)
class _Judging:
    """What every rung is judged with."""

    policy: Policy
    references: References | NotMeasurable
    qualifications: Documents
    use: Use


@dataclass(frozen=True)
class Climbed:
    """The plan, what each rung came to, and the attempt that passed (None: none did)."""

    plan: Plan
    attempts: list[dict[str, Any]]
    passed: AttemptResult | None


def climb(
    problem: Problem,
    line: Line,
    policy: Policy,
    context: Context,
    out: Path,
    references: References | NotMeasurable = NO_REFERENCES,
    qualifications: Documents = (),
) -> Climbed:
    """Try the rungs of the plan in order, each from the base weights; the first to pass is renamed to `out`.

    `references`: the gate's side of a pool, or why there is none. `qualifications` may cover approximate methods.
    """
    record = read_record(problem.base_dir)
    digests = problem.data_digest, line.given_digest
    use = use_of(problem.task_name, problem.recipe, digests, policy, len(problem.forget))
    case = Situation(
        task=problem.task_name,
        forget_records=len(problem.forget),
        forget_subjects=len(np.unique(problem.forget.subjects)),
        data_records=len(line.people),
        has_held_out=line.held_out is not None,
        exact=exact_options(problem.base_dir, problem.recipe, problem.forget.ids.tolist()),
        train_seconds=record.seconds if record else None,
        edits=record.edits if record else 0,
        edited_records=record.edited_records if record else 0,
        unqualified=unqualified(policy, qualifications, use),
        has_references=problem.references is not None and not _as_classes(problem, line),
    )
    plan = plan_ladder(policy, case)
    attempts: list[dict[str, Any]] = []
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        judging = _Judging(policy, references, qualifications, use)
        passed = _climb(plan, attempts, problem, line, judging, context, Path(folder))
        if passed is None:
            return Climbed(plan, attempts, None)
        publish_directory(Path(passed.out), out)
    return Climbed(plan, attempts, replace(passed, out=str(out)))


def _as_classes(problem: Problem, line: Line) -> bool:
    """Whether the forgotten records leave as whole classes."""
    people = line.people
    return "label" in people.roles and leave_as_classes(people.column("label"), people.rows_of(problem.people.ids))


def _climb(
    plan: Plan,
    attempts: list[dict[str, Any]],
    problem: Problem,
    line: Line,
    judging: _Judging,
    context: Context,
    folder: Path,
) -> AttemptResult | None:
    """The first rung to pass, with its directory below `folder`; `attempts` is told how each one ended."""
    for number, rung in enumerate(plan.rungs, 1):
        candidate = folder / f"attempt-{number}"
        try:
            result, told = _try(rung, number, problem, line, judging, context, candidate)
            attempts.append(told)
            if told["verdict"] == "pass":
                return result
        except (Cancelled, MemoryError, DiskFull):
            raise
        except Exception as error:  # noqa: BLE001 - whatever broke this rung, the next one starts from the base weights
            detail = error.detail if isinstance(error, LetheError) else type(error).__name__
            attempts.append({"number": number, "method": rung.method, "error": detail, "verdict": None})
        shutil.rmtree(candidate, ignore_errors=True)
    return None


def _try(
    rung: Rung,
    number: int,
    problem: Problem,
    line: Line,
    judging: _Judging,
    context: Context,
    candidate: Path,
) -> tuple[AttemptResult, dict[str, Any]]:
    policy = judging.policy
    posed = as_edit(problem, line, policy.verification.companions) if rung.kind == "approximate" else problem
    result = run_attempt(rung.method, rung.params, posed, replace(context, seed=context.seed + number), candidate)
    evaluation, _ = evaluate(
        line=line,
        candidate_dir=candidate,
        retrained_dirs=[],
        forget_ids=[str(name) for name in problem.forget.ids],
        policy=policy,
        alpha=policy.attempt_alpha,
        ignore_record=False,
        context=context,
        data_digest=problem.data_digest,
        recipe=problem.recipe,
        references=judging.references,
    )
    evaluation = with_qualification(evaluation, rung.method, rung.params, judging.qualifications, judging.use)
    told = {"number": number, "method": rung.method, "params": result.params, "seconds": result.seconds}
    return result, told | {"verdict": evaluation.verdict, "evaluation": evaluation.as_json()}
