"""Grouping: accepted requests of one model become one job when their batch is due.

A batch is due when its window has closed, when it is full, or when the earliest deadline minus the safety margin and
the estimated run time is near. One job per model at a time; requests that arrive meanwhile wait for the next.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock, new_id, reading, transaction
from service.deletion import lifecycle
from service.deletion.models import DeletionRequest, RequestTarget
from service.jobs import events
from service.jobs.leases import OPEN
from service.jobs.models import Job
from service.jobs.stages import HEAVY
from service.references.messages import Jobs
from service.registry.models import Model, Version
from service.verification.policy import Policy

WAITING = ("accepted", "running", "failed")


@dataclass(frozen=True)
class Waiting:
    """What waits for one model: number of requests and people, the oldest arrival, the earliest deadline."""

    model_id: str
    requests: int
    subjects: int
    oldest: datetime
    due_at: datetime


def is_due(waiting: Waiting, policy: Policy, now: datetime, estimate: timedelta) -> bool:
    """Whether the batch should start now. Pure."""
    batch = policy.batch
    if waiting.due_at - batch.safety_timedelta - estimate <= now:
        return True
    if waiting.requests >= batch.max_requests:
        return True
    return waiting.oldest + batch.window_timedelta <= now and waiting.subjects >= batch.min_subjects


def _open_targets() -> tuple[object, ...]:
    return (
        RequestTarget.job_id.is_(None),
        RequestTarget.outcome.is_(None),
        DeletionRequest.status.in_(WAITING),
        DeletionRequest.id == RequestTarget.request_id,
    )


def waiting_batches(session: Session) -> list[Waiting]:
    """One row per model that has waiting requests and no open job."""
    busy = select(Job.model_id).where(Job.status.in_(OPEN))
    query = (
        select(
            RequestTarget.model_id,
            func.count(),
            func.count(func.distinct(DeletionRequest.pseudonym)),
            func.min(DeletionRequest.created_at),
            func.min(DeletionRequest.due_at),
        )
        .where(*_open_targets(), RequestTarget.model_id.not_in(busy))  # type: ignore[arg-type]
        .group_by(RequestTarget.model_id)
    )
    return [Waiting(*row) for row in session.execute(query)]


def what_jobs_need() -> Jobs:
    """What the training of references has to leave room for."""
    with reading() as session:
        now = clock(session)
        free = or_(Job.lease_until.is_(None), Job.lease_until < now)
        waiting = select(Job.id).where(Job.status.in_(OPEN), Job.stage.in_(HEAVY), free)
        busy = set(session.scalars(select(Job.model_id).where(Job.status.in_(OPEN))))
        busy.update(batch.model_id for batch in waiting_batches(session))
        return Jobs(busy, session.scalar(waiting.limit(1)) is not None)


def dispatch() -> list[str]:
    """Start a job for every batch that is due; safe to run in several processes at once."""
    with reading() as session:
        candidates = waiting_batches(session)
    started = []
    for waiting in candidates:
        try:
            with transaction() as session:
                job_id = _start(session, waiting)
        except IntegrityError:
            continue  # another dispatcher was first: one open job per model is a unique index
        if job_id:
            started.append(job_id)
    return started


def _start(session: Session, waiting: Waiting) -> str | None:
    model = session.get_one(Model, waiting.model_id)
    policy = Policy.model_validate(model.policy)
    now = clock(session)
    if not is_due(waiting, policy, now, _estimate(session, model)):
        return None
    job_id = new_id("job")
    # Flushed first, so that the loser of a race fails on the unique index before it touches any request.
    session.add(
        Job(
            id=job_id,
            model_id=model.id,
            model_name=model.name,
            status="queued",
            stage="resolve",
            base_version_id=model.serving_version_id,
            policy=model.policy,
            policy_digest=model.policy_digest,
            due_at=waiting.due_at,
            created_at=now,
        )
    )
    session.flush()
    chosen = (
        select(RequestTarget.id, RequestTarget.request_id)
        .where(*_open_targets(), RequestTarget.model_id == model.id)  # type: ignore[arg-type]
        .order_by(DeletionRequest.due_at, DeletionRequest.id)
        .limit(policy.batch.max_requests)
    )
    rows = session.execute(chosen).all()
    target_ids = [row.id for row in rows]
    session.execute(update(RequestTarget).where(RequestTarget.id.in_(target_ids)).values(job_id=job_id))
    lifecycle.mark_running(session, sorted({row.request_id for row in rows}), job_id)
    audit.record(session, "job.created", actor="scheduler", ref=job_id, data={"model": model.id, "requests": len(rows)})
    events.emit(session, job_id, "stage", stage="resolve", status="queued", requests=len(rows))
    return job_id


def _estimate(session: Session, model: Model) -> timedelta:
    """Run time to leave before the deadline: the longest job of this model so far, else the time its training took."""
    query = select(Job.started_at, Job.finished_at).where(Job.model_id == model.id, Job.status == "completed")
    spans = [end - start for start, end in session.execute(query) if start and end]
    if spans:
        return max(spans)
    version = session.get(Version, model.serving_version_id) if model.serving_version_id else None
    seconds = float((version.manifest.get("training") or {}).get("seconds") or 0.0) if version else 0.0
    return timedelta(seconds=2 * seconds)
