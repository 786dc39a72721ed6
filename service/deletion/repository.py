"""Rows of deletion requests. Intake writes one statement a table, however many requests."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, column, delete, exists, or_, select, table, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import Insert, insert_all, new_id
from service.deletion.intake import Draft
from service.deletion.models import DeletionRequest, IdempotencyRecord, RequestTarget
from service.notify import outbox
from service.subjects.models import SuppressionEntry

_KEYS: Any = IdempotencyRecord.__table__

_INSERT_REQUESTS = Insert(
    DeletionRequest.__table__,
    "id",
    "status",
    "regulation",
    "external_id",
    "submitted_by",
    "pseudonym",
    "sealed",
    "data_key",
    "callback_url",
    "cancellable",
    "progress",
    "attempts",
    "created_at",
    "received_at",
    "acknowledged_at",
    "due_at",
)
_INSERT_TARGETS = Insert(RequestTarget.__table__, "id", "request_id", "model_id", "model_name")
_INSERT_SUPPRESSED = Insert(SuppressionEntry.__table__, "id", "pseudonym", "request_id", "created_at")

# Named, not imported: jobs are a layer above. Asked is which have ended or wait for a person.
_JOBS = table("jobs", column("id"), column("status"), column("waits_for"))


def insert_drafts(session: Session, drafts: Sequence[Draft], actor: str) -> None:
    """Write requests, targets, suppression entries, audit events and outbox rows: five statements in all."""
    now = drafts[0].request["created_at"]
    suppressed = [
        {"id": new_id("sup"), "pseudonym": pseudonym, "request_id": draft.id, "created_at": now}
        for draft in drafts
        for pseudonym in draft.pseudonyms
    ]
    waiting = {target["model_id"] for draft in drafts if draft.accepted for target in draft.targets}
    events = [
        audit.written(kind, actor=actor, events=[each.event[1:] for each in drafts if each.event[0] == kind], at=now)
        for kind in dict.fromkeys(draft.event[0] for draft in drafts)
    ]
    insert_all(
        session,
        (_INSERT_REQUESTS, [draft.request for draft in drafts]),
        (_INSERT_TARGETS, [target for draft in drafts for target in draft.targets]),
        (_INSERT_SUPPRESSED, suppressed),
        *events,
        outbox.written(outbox.REQUEST_ACCEPTED, sorted(waiting), now),
    )


def claim_key(
    session: Session,
    principal: str,
    key: str,
    fingerprint: str,
    draft: Draft,
    response: dict[str, Any],
    expires_at: datetime,
) -> IdempotencyRecord | None:
    """Remember an answer under a key; None when the key was free (or expired), else the record that holds it.

    A concurrent holder of the same key is waited for: the unique key decides who was first.
    """
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = {"fingerprint": fingerprint, "request_id": draft.id, "response": response, "expires_at": expires_at}
    insert: Any = dialect.insert(_KEYS)
    free = insert.on_conflict_do_update(
        index_elements=["principal", "key"],
        set_={name: insert.excluded[name] for name in row},
        where=_KEYS.c.expires_at <= draft.request["created_at"],
    )
    mine = session.connection().execute(free.returning(_KEYS.c.key), {"principal": principal, "key": key, **row})
    return None if mine.first() is not None else session.get(IdempotencyRecord, (principal, key))


def purge_keys(session: Session, now: datetime) -> int:
    """Forget expired idempotency records; answers how many."""
    result: Any = session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.expires_at <= now))
    return int(result.rowcount)


def find(session: Session, request_id: str) -> DeletionRequest | None:
    """The request, or None."""
    return session.get(DeletionRequest, request_id)


def targets_of(session: Session, request_ids: Iterable[str]) -> dict[str, list[RequestTarget]]:
    """Targets by request id, by name of the model."""
    ids = list(request_ids)
    found: dict[str, list[RequestTarget]] = {request_id: [] for request_id in ids}
    query = select(RequestTarget).where(RequestTarget.request_id.in_(ids)).order_by(RequestTarget.model_name)
    for target in session.scalars(query):
        found[target.request_id].append(target)
    return found


def change(session: Session, request_id: str, statuses: Iterable[str], *conditions: Any, **values: Any) -> bool:
    """One conditional step: true when the request was in one of these statuses and met the conditions."""
    here = and_(DeletionRequest.id == request_id, DeletionRequest.status.in_(list(statuses)), *conditions)
    result: Any = session.execute(
        update(DeletionRequest).where(here).values(**values).execution_options(synchronize_session=False)
    )
    return bool(result.rowcount == 1)


def forget_suppression(session: Session, request_id: str) -> None:
    """Take back the suppression entries of a request that will not be carried out."""
    session.execute(delete(SuppressionEntry).where(SuppressionEntry.request_id == request_id))


def free_targets(session: Session, request_id: str) -> list[str]:
    """Let go of jobs that ended without an outcome; answers the models that wait for a new one."""
    ended = select(_JOBS.c.id).where(_JOBS.c.status.in_(("failed", "cancelled")))
    unfinished = and_(RequestTarget.request_id == request_id, RequestTarget.outcome.is_(None))
    free = update(RequestTarget).where(unfinished, RequestTarget.job_id.in_(ended)).values(job_id=None)
    session.execute(free.execution_options(synchronize_session=False))
    waiting = select(RequestTarget.model_id).where(unfinished, RequestTarget.job_id.is_(None))
    return sorted(session.scalars(waiting))


def let_go_on(session: Session, request_id: str) -> list[str]:
    """A request leaves its jobs: one that waits for a person looks again what is left of it.

    Answers those that have ended without an outcome: nobody can release what they made any more.
    """
    mine = and_(RequestTarget.request_id == request_id, RequestTarget.outcome.is_(None))
    jobs = select(RequestTarget.job_id).where(mine, RequestTarget.job_id.is_not(None))
    waiting = update(_JOBS).where(_JOBS.c.id.in_(jobs), _JOBS.c.waits_for.is_not(None))
    session.execute(waiting.values(waits_for=None))
    ended = select(_JOBS.c.id).where(_JOBS.c.id.in_(jobs), _JOBS.c.status == "failed")
    return sorted(session.scalars(ended))


def failed_elsewhere(session: Session, job_id: str, request_ids: Sequence[str]) -> list[str]:
    """Those of the requests that another job than this one has failed, too."""
    failed = select(_JOBS.c.id).where(_JOBS.c.status == "failed", _JOBS.c.id != job_id)
    theirs = and_(RequestTarget.request_id.in_(request_ids), RequestTarget.outcome.is_(None))
    return sorted(session.scalars(select(RequestTarget.request_id).where(theirs, RequestTarget.job_id.in_(failed))))


def filtered(
    *,
    submitted_by: str | None,
    status: Sequence[str] | None,
    regulation: str | None,
    model: str | None,
    due_before: datetime | None,
    external_id: str | None,
) -> Select[Any]:
    """The list query; what is None does not filter."""
    query = select(DeletionRequest)
    if submitted_by is not None:
        query = query.where(DeletionRequest.submitted_by == submitted_by)
    if status:
        query = query.where(or_(*(DeletionRequest.status == each for each in status)))
    if regulation is not None:
        query = query.where(DeletionRequest.regulation == regulation)
    if due_before is not None:
        query = query.where(DeletionRequest.due_at < due_before)
    if external_id is not None:
        query = query.where(DeletionRequest.external_id == external_id)
    if model is not None:
        here = and_(RequestTarget.request_id == DeletionRequest.id, RequestTarget.model_name == model)
        query = query.where(exists().where(here))
    return query
