"""Jobs in which a reviewer has to decide: who is told when that begins, and which they are.

Two decisions: `approval` of a version that passed the gate and waits before its publication, and `release` of what a
failed job has left undecided and its policy lets a person publish.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock
from service.deletion.models import DeletionRequest, RequestTarget
from service.jobs import leases
from service.jobs.models import Job
from service.notify import outbox
from service.registry.models import Artefact
from service.registry.repository import JOB_FILES

REVIEWER = "reviewer"

Decision = Literal["approval", "release"]
DECISIONS: tuple[Decision, ...] = ("approval", "release")


def begin(session: Session, job_id: str, decision: Decision, attempts: Sequence[int], actor: str) -> dict[str, Any]:
    """Within the transaction in which a job begins to wait: the log has it, and callbacks of its requests are due.

    `attempts`: numbers of what can be approved or released. Answers what the job's own event has to tell.
    """
    told = {"waits_for": REVIEWER, "decision": decision, "attempts": list(attempts)}
    audit.record(session, "job.waiting", actor=actor, ref=job_id, data=told)
    mine = and_(RequestTarget.job_id == job_id, RequestTarget.request_id == DeletionRequest.id)
    query = select(DeletionRequest.id).where(
        exists().where(mine), DeletionRequest.status != "cancelled", DeletionRequest.callback_url.is_not(None)
    )
    for request_id in session.scalars(query.order_by(DeletionRequest.id)):
        outbox.put(session, outbox.WAITING, request_id)
    return told


def awaiting(decision: Decision, now: datetime) -> ColumnElement[bool]:
    """Condition on jobs: a reviewer has to take this decision.

    What can be released is what a failed job's files are kept for: all others end with the job, and these end when
    one of its requests is cancelled or retried.
    """
    if decision == "approval":
        return and_(Job.status.in_(leases.OPEN), Job.waits_for == REVIEWER)
    kept = and_(Artefact.job_id == Job.id, Artefact.kind == JOB_FILES, Artefact.destroyed_at.is_(None))
    return and_(Job.status == "failed", exists().where(kept, Artefact.destroy_by > now))


def awaiting_any(now: datetime) -> ColumnElement[bool]:
    """Condition on jobs: a reviewer has to decide something."""
    return or_(*(awaiting(decision, now) for decision in DECISIONS))


def of_request(session: Session, request_id: str) -> list[dict[str, str]]:
    """The jobs of a request in which a reviewer has to decide now, as its callback tells them: id and decision."""
    now = clock(session)
    mine = select(RequestTarget.job_id).where(RequestTarget.request_id == request_id, RequestTarget.outcome.is_(None))
    found = []
    for decision in DECISIONS:
        jobs = select(Job.id).where(Job.id.in_(mine), awaiting(decision, now)).order_by(Job.id)
        found += [{"id": job_id, "decision": decision} for job_id in session.scalars(jobs)]
    return found
