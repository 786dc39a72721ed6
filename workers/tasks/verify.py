"""Stage verify: the gate. A candidate that does not pass is never published; the next rung starts from the base."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from service.audit import service as audit
from service.catalogue.precisions import check_precision
from service.database import clock
from service.errors import JobError
from service.jobs import events, leases
from service.jobs.models import Attempt, Job
from service.verification.schema import Evaluation, Use
from workers.tasks import materials
from workers.tasks.broken import record_broken
from workers.tasks.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

_STATES = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}


def run(work: Work) -> None:
    """Judge the proposed candidate; one that cannot be judged hands over to the rung after it."""
    proposed = [row for row in work.attempts() if row.state == "proposed"]
    if not proposed or proposed[-1].candidate_path is None:
        raise JobError("there is no candidate to verify; retry the request")
    attempt = proposed[-1]
    materials.refuse_changed_data(work)
    try:
        evaluation, tables = _judge(work, attempt)
    except Exception as error:  # noqa: BLE001 - a candidate that cannot be judged is not published; the next rung is tried
        record_broken(work, attempt.id, attempt.number, attempt.method, error)
        return
    _write_tables(work.scratch / f"scores-{attempt.number}", tables)
    _store(work, attempt, evaluation.as_json())


def _judge(work: Work, attempt: Attempt) -> "tuple[Evaluation, dict[str, pa.Table]]":
    """The evaluation under the policy that was fixed before the run, and the score tables."""
    from workers.planning.evaluation import evaluate
    from workers.planning.qualifying import with_qualification

    found, tables = evaluate(
        line=materials.line_of(work),
        candidate_dir=Path(str(attempt.candidate_path)),
        retrained_dirs=[],
        forget_ids=work.forget_ids(),
        policy=work.policy,
        alpha=work.policy.attempt_alpha,
        ignore_record=False,
        context=materials.context_of(work, attempt.seed),
        data_digest=work.dataset.digest,
        recipe=materials.recipe_of(work),
        references=materials.references_of(work),
        serve_precision=check_precision(work.model.serve_precision),
    )
    documents = materials.qualifications_of()
    return with_qualification(found, attempt.method, attempt.params, documents, _use_of(work, attempt)), tables


def _use_of(work: Work, attempt: Attempt) -> Use:
    """What has to be qualified is what made the candidate: other code and packages may be judging."""
    result = attempt.result or {}
    made = {key: result[key] for key in ("code_version",) if key in result} | result.get("made_with", {})
    return materials.use_of(work).model_copy(update=made)


def _write_tables(folder: Path, tables: "dict[str, pa.Table]") -> None:
    from pyarrow import feather

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, table in tables.items():
        feather.write_feather(table, str(folder / f"{name}.arrow"), compression="uncompressed")


def _store(work: Work, attempt: Attempt, evaluation: dict[str, Any]) -> None:
    verdict, job_id = evaluation["verdict"], work.job.id
    result = (attempt.result or {}) | {"scores": str(work.scratch / f"scores-{attempt.number}")}
    with work.fenced() as session:
        ended = {
            "state": _STATES[verdict],
            "verification": evaluation,
            "finished_at": clock(session),
            "result": result,
        }
        session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**ended))
        data = {
            "number": attempt.number,
            "method": attempt.method,
            "verdict": verdict,
            "basis": evaluation["basis"],
        }
        audit.record(session, "attempt.judged", actor="worker", ref=job_id, data=data | {"grade": evaluation["grade"]})
        events.emit(session, job_id, "verdict", grade=evaluation["grade"], **data)
        if verdict == "pass":
            values = {"verdict": verdict, "grade": evaluation["grade"]}
            session.execute(update(Job).where(Job.id == job_id).values(**values))
            leases.move_on(session, job_id, "publish")
        else:
            leases.move_on(session, job_id, "unlearn")
