"""The ladder without the service: run, judge, keep what passes. The service does the same stage by stage."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import Cancelled, LetheError
from service.verification.policy import Policy
from service.verification.statistics import NotMeasurable
from workers.modeling.problem import Context, Problem
from workers.modeling.training_record import read_record
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.calibrated import NO_REFERENCES, References
from workers.planning.costs import exact_options
from workers.planning.evaluation import evaluate
from workers.planning.ladder import Plan, Rung, Situation, plan_ladder
from workers.planning.problems import Line


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
) -> Climbed:
    """Try the rungs of the plan in order, each from the base weights; the first to pass is renamed to `out`.

    `references`: the gate's side of a pool, or why there is none.
    """
    record = read_record(problem.base_dir)
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
    )
    plan = plan_ladder(policy, case)
    attempts: list[dict[str, Any]] = []
    for number, rung in enumerate(plan.rungs, 1):
        candidate = out.with_name(f"{out.name}.attempt-{number}")
        try:
            result, told = _try(rung, number, problem, line, policy, context, candidate, references)
            attempts.append(told)
            if told["verdict"] == "pass":
                candidate.rename(out)
                return Climbed(plan, attempts, replace(result, out=str(out)))
        except Cancelled:
            raise
        except LetheError as error:
            attempts.append({"number": number, "method": rung.method, "error": error.detail, "verdict": None})
        finally:
            shutil.rmtree(candidate, ignore_errors=True)
    return Climbed(plan, attempts, None)


def _try(
    rung: Rung,
    number: int,
    problem: Problem,
    line: Line,
    policy: Policy,
    context: Context,
    candidate: Path,
    references: References | NotMeasurable,
) -> tuple[AttemptResult, dict[str, Any]]:
    result = run_attempt(rung.method, rung.params, problem, replace(context, seed=context.seed + number), candidate)
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
        references=references,
    )
    told = {"number": number, "method": rung.method, "params": result.params, "seconds": result.seconds}
    return result, told | {"verdict": evaluation.verdict, "evaluation": evaluation.as_json()}
