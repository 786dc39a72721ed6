"""A reviewer's part in a publication: releasing what the gate left undecided, approving what passed it.

A release is one transaction: the job is open again at its publish stage, its requests run, its files have no end, and
the log holds who did it with the digest of the reason. Before it the candidate is compared with its digest; the publish
stage does so once more. An approval lets a job go on that waits. Neither changes a verdict.
"""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.auth.service import Principal
from service.database import clock, reading, transaction
from service.deletion import lifecycle
from service.errors import (
    CandidateUnusable,
    Conflict,
    JobNotFailed,
    NotReleasable,
    NotWaiting,
    Outdated,
    PolicyForbids,
    RequestsChanged,
    UnknownAttempt,
)
from service.jobs import events, leases, service
from service.jobs.models import Attempt, Job
from service.jobs.waiting import REVIEWER
from service.registry import files
from service.registry import service as registry
from service.registry.models import Model
from service.verification.policy import Policy
from service.verification.release import PUBLISHED_STATES, why_not_releasable

RELEASED, APPROVED = "released", "approved"


def release(job_id: str, number: int, reason: str, principal: Principal) -> None:
    """Publish an inconclusive attempt of a failed job all the same; the reason is kept with the job, its digest logged.

    Raises NotFound, UnknownAttempt, PolicyForbids, JobNotFailed, NotReleasable, RequestsChanged, Outdated,
    CandidateUnusable, or Conflict where another job of the model is open.
    """
    with reading() as session:
        attempt = _refuse_release(session, job_id, number)
    _refuse_changed_files(attempt)
    try:
        with transaction() as session:
            requests = service.scope_requests(service.get_job(session, job_id))
            lifecycle.resume(session, requests, job_id, principal.id)
            # Again, now that the requests are locked: one may have been cancelled in this very moment.
            attempt = _refuse_release(session, job_id, number)
            _release(session, attempt, reason, principal)
    except IntegrityError:
        raise Conflict("another job of the model is open; release the attempt when it has ended") from None


def _refuse_release(session: Session, job_id: str, number: int) -> Attempt:
    """The attempt, if nothing but its files can be in the way of its release."""
    job, attempt = service.get_job(session, job_id), _attempt(session, job_id, number)
    if not Policy.model_validate(job.policy).approval.override:
        raise PolicyForbids("the policy of the job does not allow releases (approval.override)")
    if job.status != "failed":
        raise JobNotFailed(f"the job is {job.status}; only what a failed job has left can be released")
    if attempt.state != "inconclusive":
        raise NotReleasable(f"attempt {number} is {attempt.state}; only an inconclusive one can be released")
    why = why_not_releasable(attempt.verification or {})
    if why is not None:
        raise NotReleasable(f"attempt {number} cannot be released: {why}")
    passed = service.passed_attempt(service.attempts_of(session, job_id))
    if passed is not None:
        raise NotReleasable(
            f"attempt {passed} of the job passed the gate; retry the request rather than release another"
        )
    if service.requests_of(session, job_id) != service.scope_requests(job):
        raise RequestsChanged("a request of the job was cancelled or retried since; a new job has to serve the others")
    model = session.get_one(Model, job.model_id)
    if (model.serving_version_id, model.dataset_id) != (job.base_version_id, (job.scope or {}).get("dataset_id")):
        raise Outdated("the model serves another version, or has other data, since the job began; retry the request")
    return attempt


def _attempt(session: Session, job_id: str, number: int) -> Attempt:
    found = next((row for row in service.attempts_of(session, job_id) if row.number == number), None)
    if found is None:
        raise UnknownAttempt(f"the job has no attempt {number}", pointer="/attempt")
    return found


def _refuse_changed_files(attempt: Attempt) -> None:
    """Outside of a transaction: hashing gigabytes takes time, and SQLite has one writer."""
    place = Path(str(attempt.candidate_path))
    if not place.is_dir():
        raise CandidateUnusable("the candidate is not there any more; retry the request")
    if files.manifest_digest(files.digest_directory(place)) != attempt.candidate_digest:
        raise CandidateUnusable("the candidate's files changed after verification; retry the request")


def _release(session: Session, attempt: Attempt, reason: str, principal: Principal) -> None:
    job, now = service.get_job(session, attempt.job_id), clock(session)
    review = _review(RELEASED, attempt, principal, now, reason)
    reopened = update(Job).where(Job.id == job.id, Job.status == "failed")
    values = {"status": "queued", "error": None, "finished_at": None, "review": review}
    if not _changed(session, reopened.values(**values, verdict="inconclusive", grade=None)):
        raise JobNotFailed("the job was released in this very moment")
    if not registry.keep_job_files(session, job.id):
        raise CandidateUnusable("the candidate is not there any more; retry the request")
    session.execute(update(Attempt).where(Attempt.id == attempt.id).values(state=RELEASED))
    data = _logged(attempt) | {"verdict": "inconclusive", "reason_sha256": review["reason_sha256"]}
    audit.record(session, "attempt.released", actor=principal.id, ref=job.id, data=data, at=now)
    events.emit(session, job.id, "attempt", number=attempt.number, method=attempt.method, state=RELEASED)
    leases.move_on(session, job.id, "publish")


def approve(job_id: str, number: int, principal: Principal) -> None:
    """Let a job publish its attempt that passed. Raises NotFound, UnknownAttempt, or NotWaiting."""
    with transaction() as session:
        attempt, now = _waiting(session, job_id, number), clock(session)
        waiting = update(Job).where(Job.id == job_id, Job.waits_for == REVIEWER, Job.stage == "publish")
        review = _review(APPROVED, attempt, principal, now)
        if not _changed(session, waiting.values(waits_for=None, review=review, sent_at=None, sends=0)):
            raise NotWaiting("the job went on in this very moment")
        data = _logged(attempt)
        audit.record(session, "publication.approved", actor=principal.id, ref=job_id, data=data, at=now)
        events.emit(session, job_id, "stage", stage="publish", status=APPROVED, attempt=number)


def _waiting(session: Session, job_id: str, number: int) -> Attempt:
    job, attempt = service.get_job(session, job_id), _attempt(session, job_id, number)
    if job.waits_for != REVIEWER:
        raise NotWaiting(f"the job is {job.status} in stage {job.stage} and does not wait for a reviewer")
    if attempt.state not in PUBLISHED_STATES:
        raise NotWaiting(f"attempt {number} is {attempt.state}; another one waits for a reviewer")
    return attempt


def _review(
    kind: str, attempt: Attempt, principal: Principal, now: datetime, reason: str | None = None
) -> dict[str, Any]:
    """What the job keeps and its report tells."""
    return {
        "kind": kind,
        "attempt": attempt.number,
        "at": audit.timestamp(now),
        "key_id": principal.id,
        "reason": reason,
        "reason_sha256": hashlib.sha256(reason.encode()).hexdigest() if reason is not None else None,
    }


def _logged(attempt: Attempt) -> dict[str, Any]:
    return {"number": attempt.number, "method": attempt.method, "digest": attempt.candidate_digest}


def _changed(session: Session, statement: Any) -> bool:
    result: Any = session.execute(statement.execution_options(synchronize_session=False))
    return bool(result.rowcount == 1)
