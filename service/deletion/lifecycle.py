"""What jobs do to requests: the half of a request's life that no caller drives. Always in the job's transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock
from service.deletion import repository
from service.deletion.models import DeletionRequest, RequestTarget
from service.deletion.states import FINAL, STEPS
from service.subjects import vault

OUTCOMES = ("published", "no_records", "already_deleted")


def mark_running(session: Session, request_ids: Sequence[str], job_id: str) -> None:
    """A job has taken these requests up. One that has failed for another model stays `failed`."""
    waiting = and_(DeletionRequest.id.in_(request_ids), DeletionRequest.status == "accepted")
    _run(session, update(DeletionRequest).where(waiting).values(status="running"))
    # Not `request_ids`: somebody may have cancelled one in this very moment.
    taken = and_(DeletionRequest.id.in_(request_ids), DeletionRequest.status.in_(STEPS["run"]))
    ids = session.scalars(select(DeletionRequest.id).where(taken).order_by(DeletionRequest.id))
    events = [(request_id, {"job": job_id}) for request_id in ids]
    audit.record_all(session, "request.running", actor="scheduler", events=events)


def lock(session: Session, request_ids: Sequence[str]) -> None:
    """Whoever cancels or retries one of these requests comes before this, or after the caller's transaction."""
    these = DeletionRequest.id.in_(request_ids)
    session.execute(select(DeletionRequest.id).where(these).order_by(DeletionRequest.id).with_for_update())


def resume(session: Session, request_ids: Sequence[str], job_id: str, actor: str) -> None:
    """A failed job goes on with these requests. One that has failed for another model too stays `failed`."""
    lock(session, request_ids)
    these = DeletionRequest.id.in_(request_ids)
    held = repository.failed_elsewhere(session, job_id, request_ids)
    failed = and_(these, DeletionRequest.status == "failed", DeletionRequest.id.not_in(held))
    ids = list(session.scalars(select(DeletionRequest.id).where(failed).order_by(DeletionRequest.id)))
    _run(session, update(DeletionRequest).where(failed).values(status="running", reason=None))
    audit.record_all(session, "request.running", actor=actor, events=[(each, {"job": job_id}) for each in ids])


def set_progress(session: Session, job_id: str, stage: str, progress: float, attempts: int) -> None:
    """Show a job's progress (0..1) on its requests: the mean over a request's targets, never going back."""
    mine = select(RequestTarget.request_id).where(RequestTarget.job_id == job_id, RequestTarget.outcome.is_(None))
    here = RequestTarget.request_id == DeletionRequest.id
    total = select(func.count()).select_from(RequestTarget).where(here).scalar_subquery()
    done = select(func.count()).select_from(RequestTarget).where(here, RequestTarget.outcome.is_not(None))
    overall = (done.scalar_subquery() + progress) * 1.0 / total
    forward = case((overall > DeletionRequest.progress, overall), else_=DeletionRequest.progress)
    running = and_(DeletionRequest.id.in_(mine), DeletionRequest.status == "running")
    _run(session, update(DeletionRequest).where(running).values(stage=stage, progress=forward, attempts=attempts))


def seal_cancellation(session: Session, request_ids: Sequence[str]) -> list[str]:
    """The point of no return: none of these can be cancelled from now on. Answers the ids that were still wanted."""
    wanted = and_(DeletionRequest.id.in_(request_ids), DeletionRequest.status.not_in(FINAL))
    _run(session, update(DeletionRequest).where(wanted).values(cancellable=False))
    return sorted(session.scalars(select(DeletionRequest.id).where(wanted)))


def earliest_due(session: Session, request_ids: Sequence[str]) -> datetime | None:
    """The first deadline among these requests; None where there is none."""
    return session.scalar(select(func.min(DeletionRequest.due_at)).where(DeletionRequest.id.in_(request_ids)))


def open_subjects(session: Session, request_ids: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Request id -> identifiers ({type, value, format}); empty where they have been destroyed already."""
    query = select(DeletionRequest.id, DeletionRequest.sealed, DeletionRequest.data_key)
    rows = session.execute(query.where(DeletionRequest.id.in_(list(request_ids))))
    return {row.id: _open(row.id, row.sealed, row.data_key) for row in rows}


def _open(request_id: str, sealed: bytes | None, data_key: bytes | None) -> list[dict[str, str]]:
    if sealed is None or data_key is None:
        return []
    identifiers: list[dict[str, str]] = vault.unseal(sealed, data_key, request_id)["identifiers"]
    return identifiers


def record_outcome(
    session: Session,
    job_id: str,
    request_id: str,
    *,
    outcome: str,
    records: int,
    base_version: int | None = None,
    new_version: int | None = None,
    verdict: str | None = None,
    grade: str | None = None,
    report_path: str | None = None,
) -> None:
    """Close the target that a job had of a request; closing it again with the same job changes nothing else."""
    if outcome not in OUTCOMES:
        raise ValueError(f"unknown outcome {outcome!r}")
    values = {"outcome": outcome, "records": records, "base_version": base_version, "new_version": new_version}
    values |= {"verdict": verdict, "grade": grade}
    if report_path is not None:
        values["report_path"] = report_path
    here = and_(RequestTarget.job_id == job_id, RequestTarget.request_id == request_id)
    _run(session, update(RequestTarget).where(here).values(**values))


def complete(session: Session, request_id: str, actor: str = "worker") -> bool:
    """Complete a request whose targets all have an outcome, and destroy its identifiers; False when one is open.

    Idempotent: a request that is completed, cancelled or rejected stays as it is.
    """
    targets = repository.targets_of(session, [request_id])[request_id]
    if any(target.outcome is None for target in targets):
        return False
    ended = {"status": "completed", "completed_at": clock(session), "stage": None, "progress": 1.0, "reason": None}
    shredded = {"sealed": None, "data_key": None, "cancellable": False}
    if repository.change(session, request_id, STEPS["complete"], **ended, **shredded):
        data = {"targets": [_target_data(target) for target in targets]}
        audit.record(session, "request.completed", actor=actor, ref=request_id, data=data)
    return True


def _target_data(target: RequestTarget) -> dict[str, Any]:
    return {
        "model": target.model_id,
        "job": target.job_id,
        "outcome": target.outcome,
        "new_version": target.new_version,
        "verdict": target.verdict,
        "grade": target.grade,
    }


def mark_failed(session: Session, job_id: str, reason: str) -> list[str]:
    """A job has failed: its unfinished requests wait for a person. `reason` is one line without personal data."""
    open_targets = and_(RequestTarget.job_id == job_id, RequestTarget.outcome.is_(None))
    ids = list(session.scalars(select(RequestTarget.request_id).where(open_targets)))
    published = select(RequestTarget.request_id).where(RequestTarget.outcome == "published")
    beyond = set(session.scalars(published.where(RequestTarget.request_id.in_(ids))))
    failed = [
        # Nothing of it is published yet, so it can be cancelled again.
        each
        for each in ids
        if repository.change(
            session, each, STEPS["fail"], status="failed", reason=reason, cancellable=each not in beyond
        )
    ]
    events = [(request_id, {"job": job_id, "reason": reason}) for request_id in failed]
    audit.record_all(session, "request.failed", actor="worker", events=events)
    return failed


def _run(session: Session, statement: Any) -> None:
    session.execute(statement.execution_options(synchronize_session=False))
