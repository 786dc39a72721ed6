"""What can happen to a job as a whole: progress, failure, cancellation, messages that are due, and reading."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock, reading, transaction
from service.deletion import lifecycle
from service.deletion.models import DeletionRequest, RequestTarget
from service.errors import Conflict, JobError, NotFound
from service.jobs import events, leases, waiting
from service.jobs.models import Attempt, Job
from service.jobs.stages import overall_progress
from service.registry import repository as registry
from service.settings import get_settings
from service.verification.policy import Policy
from service.verification.release import why_not_releasable


def get_job(session: Session, job_id: str) -> Job:
    """The row. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("there is no job of this id")
    return job


def attempts_of(session: Session, job_id: str) -> list[Attempt]:
    """All rungs tried so far, in order."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def requests_of(session: Session, job_id: str) -> list[str]:
    """Ids of the requests in the job that nobody has cancelled meanwhile."""
    query = (
        select(RequestTarget.request_id)
        .join(DeletionRequest, DeletionRequest.id == RequestTarget.request_id)
        .where(RequestTarget.job_id == job_id, DeletionRequest.status != "cancelled")
        .order_by(RequestTarget.request_id)
    )
    return list(session.scalars(query))


def scope_requests(job: Job) -> list[str]:
    """Ids of the requests that resolve found the records of; empty before it has run."""
    return sorted((job.scope or {}).get("requests", {}))


def is_abandoned(job_id: str) -> bool:
    """Whether every request of the job has been cancelled, so that going on would serve nobody."""
    with reading() as session:
        return not requests_of(session, job_id)


def report_progress(
    job_id: str, fence: int, stage: str, fraction: float, eta_seconds: float | None, metrics: dict[str, float]
) -> None:
    """Store progress of a running stage and put it on the event stream. Raises LeaseLost."""
    with leases.fenced(job_id, fence) as session:
        progress = overall_progress(stage, fraction)
        values = {"progress": progress, "eta_seconds": eta_seconds}
        session.execute(update(Job).where(Job.id == job_id).values(**values, metrics=metrics))
        attempts = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.job_id == job_id)) or 0
        lifecycle.set_progress(session, job_id, stage, progress, attempts)
        events.emit(session, job_id, "progress", stage=stage, **values)
        if metrics:
            events.emit(session, job_id, "metric", stage=stage, **metrics)


def enter_stage(claim: leases.Claim, device: str | None = None) -> None:
    """Make visible that a worker has begun a stage. Raises LeaseLost."""
    with leases.fenced(claim.job_id, claim.fence) as session:
        progress = overall_progress(claim.stage, 0.0)
        values: dict[str, Any] = {"progress": progress} | ({"device": device} if device else {})
        session.execute(update(Job).where(Job.id == claim.job_id).values(**values))
        attempts = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.job_id == claim.job_id)) or 0
        lifecycle.set_progress(session, claim.job_id, claim.stage, progress, attempts)
        events.emit(session, claim.job_id, "stage", stage=claim.stage, status="running", claim=claim.claims)


def fail(job_id: str, fence: int, error: JobError) -> None:
    """End the job with its cause; its requests become `failed` and can be retried. Raises LeaseLost."""
    with leases.fenced(job_id, fence) as session:
        cause = {"code": error.code, "detail": error.detail, "stage": get_job(session, job_id).stage}
        leases.finish(session, job_id, "failed", error=cause)
        unfinished = update(Attempt).where(Attempt.job_id == job_id, Attempt.state.in_(("running", "proposed")))
        session.execute(unfinished.values(state="error", error=cause, finished_at=clock(session)))
        # Released and not published all the same, for a full disk say: it may be released once more.
        back = update(Attempt).where(Attempt.job_id == job_id, Attempt.state == "released")
        session.execute(back.values(state="inconclusive"))
        offered = _date_files(session, job_id)
        lifecycle.mark_failed(session, job_id, error.detail)
        audit.record(session, "job.failed", actor="worker", ref=job_id, data=cause)
        told = waiting.begin(session, job_id, "release", offered, "worker") if offered else {}
        events.emit(session, job_id, "done", status="failed", error=cause, **told)


def _date_files(session: Session, job_id: str) -> list[int]:
    """The files of a failed job end at once, unless a reviewer may still release one of its candidates: which ones."""
    now = clock(session)
    registry.condemn_job_files(session, job_id, now)
    job = get_job(session, job_id)
    offered = releasable(job, attempts_of(session, job_id))
    if offered:
        keep = Policy.model_validate(job.policy).retention.destroy_retired_after_timedelta
        registry.date_job_files(session, job_id, now + keep)
    return offered


def releasable(job: Job, attempts: Sequence[Attempt]) -> list[int]:
    """Numbers of the attempts that policy and gate let a reviewer release, once the job has failed.

    None where one has passed and only its publication broke: a retry runs the ladder again, without an override.
    """
    if not Policy.model_validate(job.policy).approval.override or passed_attempt(attempts) is not None:
        return []
    judged = [row for row in attempts if row.state == "inconclusive" and row.verification and row.candidate_path]
    return [row.number for row in judged if why_not_releasable(row.verification or {}) is None]


def passed_attempt(attempts: Sequence[Attempt]) -> int | None:
    """Number of the attempt that passed the gate, if one has."""
    return next((row.number for row in attempts if row.state == "passed"), None)


def release_offer(job: Job, attempts: Sequence[Attempt], requests: Sequence[str]) -> dict[str, Any] | None:
    """Which attempts of a failed job a reviewer may release, and until when; None where none."""
    whole = list(requests) == scope_requests(job)
    if job.status != "failed" or job.finished_at is None or not whole:
        return None
    numbers = releasable(job, attempts)
    keep = Policy.model_validate(job.policy).retention.destroy_retired_after_timedelta
    return {"attempts": numbers, "until": (job.finished_at + keep).isoformat()} if numbers else None


def hold(session: Session, job_id: str, number: int) -> None:
    """Within `fenced`: the job waits before it publishes this attempt. No message goes out until a reviewer or a
    cancellation lets it go on (`reviews.approve`, `deletion.service.cancel`)."""
    leases.move_on(session, job_id, "publish", waits_for=waiting.REVIEWER)
    told = waiting.begin(session, job_id, "approval", [number], "worker")
    events.emit(session, job_id, "stage", stage="publish", status="waiting", **told)


def cancel(job_id: str, fence: int) -> None:
    """End a job whose requests were all cancelled. Raises LeaseLost."""
    with leases.fenced(job_id, fence) as session:
        leases.finish(session, job_id, "cancelled")
        registry.condemn_job_files(session, job_id, clock(session))
        audit.record(session, "job.cancelled", actor="worker", ref=job_id, data={})
        events.emit(session, job_id, "done", status="cancelled")


def restart(session: Session, job_id: str, why: str) -> None:
    """Within `fenced`: begin again at resolve, because the set of requests has shrunk. Old attempts are superseded."""
    session.execute(update(Attempt).where(Attempt.job_id == job_id).values(state="superseded"))
    leases.move_on(session, job_id, "resolve", plan=None, scope=None, verdict=None, grade=None, review=None)
    audit.record(session, "job.restarted", actor="worker", ref=job_id, data={"why": why})
    events.emit(session, job_id, "stage", stage="resolve", status="queued", why=why)


def judge_again(session: Session, attempt: Attempt, why: str) -> None:
    """Within `fenced`: back to verify with this attempt, whose judgement and what a reviewer made of it are void."""
    void = {"state": "proposed", "verification": None, "finished_at": None}
    session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**void))
    leases.move_on(session, attempt.job_id, "verify", verdict=None, grade=None, review=None)
    data = {"number": attempt.number, "method": attempt.method, "why": why}
    audit.record(session, "attempt.unjudged", actor="worker", ref=attempt.job_id, data=data)
    events.emit(session, attempt.job_id, "stage", stage="verify", status="queued", why=why)


def take_messages() -> list[tuple[str, str]]:
    """(job id, stage) of every open job that no worker holds and whose message is missing or overdue, with back-off."""
    settings = get_settings().jobs
    with transaction() as session:
        now = clock(session)
        free = or_(Job.lease_until.is_(None), Job.lease_until < now)
        ready = (Job.status.in_(leases.OPEN), Job.waits_for.is_(None), free)
        query = select(Job).where(*ready).order_by(Job.created_at).limit(200)
        due = []
        for job in session.scalars(query.with_for_update(skip_locked=True)):
            wait = timedelta(seconds=settings.resend_seconds * min(2**job.sends, 64))
            if job.sent_at is not None and job.sent_at + wait > now:
                continue
            job.sent_at, job.sends = now, job.sends + 1
            due.append((job.id, job.stage))
        return due


def require_open(job: Job) -> None:
    """Raises Conflict when the job has ended."""
    if job.status not in leases.OPEN:
        raise Conflict(f"job {job.id} has ended as {job.status}")
