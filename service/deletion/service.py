"""What callers can do with deletion requests. Each function is one unit of work and answers the request object."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from service import telemetry
from service.audit import service as audit
from service.auth.service import Principal
from service.database import clock, reading, transaction
from service.deletion import repository
from service.deletion.intake import Draft, draft, fingerprint
from service.deletion.models import DeletionRequest
from service.deletion.regulations import REGULATIONS
from service.deletion.schemas import CreateRequest, request_view
from service.deletion.states import FINAL, STEPS
from service.errors import (
    Conflict,
    IdempotencyMismatch,
    NotFound,
    TooLate,
    Unavailable,
    UnknownIdentifier,
    UnknownModel,
)
from service.notify import outbox
from service.registry import service as registry
from service.registry.pages import Page, rows_of
from service.registry.service import intake_models, model_ids
from service.settings import get_settings

_TRIES = 3


@dataclass(frozen=True)
class Answer:
    """The request object, and whether it is the remembered answer to an earlier call."""

    request: dict[str, Any]
    replayed: bool = False


class _StaleModelsError(Exception):
    """A model was registered or removed since the draft was made."""


def create(body: CreateRequest, principal: Principal, key: str | None = None) -> Answer:
    """Accept a request, in one transaction of at most eight statements. Raises Invalid and its kinds."""
    for attempt in range(_TRIES):
        made = _draft(body, principal, refresh=attempt > 0)
        try:
            with transaction() as session:
                answer = _remembered(session, made, body, principal, key)
                if answer is not None:
                    return answer
                _write(session, [made], principal.id)
        except _StaleModelsError:
            continue
        telemetry.REQUESTS_RECEIVED.labels(body.regulation).inc()
        return Answer(made.view())
    raise Unavailable("models are being registered at this moment; send the request again")


def _draft(body: CreateRequest, principal: Principal, *, refresh: bool) -> Draft:
    now = datetime.now(UTC)
    try:
        return draft(body, principal, intake_models(refresh=refresh), now)
    except (UnknownModel, UnknownIdentifier):
        if refresh:
            raise
        # Perhaps what it names was registered within the last second.
        return draft(body, principal, intake_models(refresh=True), now)


def _remembered(
    session: Session, made: Draft, body: CreateRequest, principal: Principal, key: str | None
) -> Answer | None:
    if key is None:
        return None
    expires_at = made.request["created_at"] + timedelta(hours=get_settings().api.idempotency_hours)
    mark = fingerprint(body)
    known = repository.claim_key(session, principal.id, key, mark, made, made.view(), expires_at)
    if known is None:
        return None
    if known.fingerprint != mark:
        raise IdempotencyMismatch("this Idempotency-Key was used with another body; take a new key for a new request")
    return Answer(known.response, replayed=True)


def _write(session: Session, drafts: Sequence[Draft], actor: str) -> None:
    meant = {made.all_models for made in drafts if made.all_models is not None}
    if meant and meant != {frozenset(model_ids(session))}:
        raise _StaleModelsError
    repository.insert_drafts(session, drafts, actor)


def create_many(bodies: Sequence[CreateRequest], principal: Principal) -> list[dict[str, Any]]:
    """Accept several checked requests in one transaction: all of them, or an exception and none.

    The caller has drafted each alone before, so that what is wrong with one of them has been answered already.
    """
    for attempt in range(_TRIES):
        drafts = [_draft(body, principal, refresh=attempt > 0) for body in bodies]
        try:
            with transaction() as session:
                _write(session, drafts, principal.id)
        except _StaleModelsError:
            continue
        for body in bodies:
            telemetry.REQUESTS_RECEIVED.labels(body.regulation).inc()
        return [made.view() for made in drafts]
    raise Unavailable("models are being registered at this moment; send the requests again")


def check(body: CreateRequest, principal: Principal) -> None:
    """Raises what `create` would raise before it writes."""
    _draft(body, principal, refresh=False)


def get(request_id: str, principal: Principal) -> dict[str, Any]:
    """One request with its history. Raises NotFound, also for one that the caller may not see."""
    with reading() as session:
        return _whole_view(session, _visible(session, request_id, principal))


def list_requests(principal: Principal, page: Page, **filters: Any) -> dict[str, Any]:
    """A page of requests, newest first; callers who may not read all see their own."""
    query = repository.filtered(submitted_by=None if principal.reads_all else principal.id, **filters)
    with reading() as session:
        rows, following = rows_of(session, query, DeletionRequest, page)
        targets = repository.targets_of(session, [row.id for row in rows])
    now = datetime.now(UTC)
    items = [request_view(row, targets[row.id], now) for row in rows]
    return {"items": items, "next_cursor": following, "limit": page.limit}


def approve(request_id: str, principal: Principal) -> dict[str, Any]:
    """A reviewer lets a pending request go on. Raises NotFound or Conflict."""
    with transaction() as session:
        _visible(session, request_id, principal)
        if not repository.change(session, request_id, STEPS["approve"], status="accepted"):
            raise _refusal(session, request_id, "approved")
        models = repository.free_targets(session, request_id)
        outbox.put_all(session, outbox.REQUEST_ACCEPTED, models, clock(session))
        return _done(session, request_id, "request.approved", principal, {"models": models})


def reject(request_id: str, principal: Principal, reason: str | None = None) -> dict[str, Any]:
    """A reviewer refuses a request that has not been accepted yet; its identifiers are destroyed."""
    with transaction() as session:
        _visible(session, request_id, principal)
        gone = {"status": "rejected", "reason": reason, "sealed": None, "data_key": None, "cancellable": False}
        if not repository.change(session, request_id, STEPS["reject"], **gone):
            raise _refusal(session, request_id, "rejected")
        _give_up(session, request_id)
        return _done(session, request_id, "request.rejected", principal, {})


def cancel(request_id: str, principal: Principal) -> dict[str, Any]:
    """Withdraw a request until a job's publish stage has begun; its identifiers are destroyed. Raises TooLate."""
    with transaction() as session:
        if _visible(session, request_id, principal).status == "cancelled":
            return _whole_view(session, _visible(session, request_id, principal))
        gone = {"status": "cancelled", "sealed": None, "data_key": None, "cancellable": False}
        if not repository.change(session, request_id, STEPS["cancel"], DeletionRequest.cancellable, **gone):
            raise _refusal(session, request_id, "cancelled", TooLate)
        _leave_jobs(session, request_id)
        _give_up(session, request_id)
        return _done(session, request_id, "request.cancelled", principal, {})


def extend(request_id: str, principal: Principal, reason: str | None = None) -> dict[str, Any]:
    """Take the one extension of the regulation. Raises TooLate after the due date, Conflict the second time."""
    with transaction() as session:
        request, now = _visible(session, request_id, principal), clock(session)
        due_at = REGULATIONS[request.regulation].extended_due_at(request.received_at)
        if request.status not in FINAL and request.extended_at is None and request.due_at <= now:
            raise TooLate("the request is past its due date; an extension must be taken before")
        values = {"due_at": due_at, "extended_at": now, "reason": reason}
        if not repository.change(session, request_id, STEPS["extend"], DeletionRequest.extended_at.is_(None), **values):
            raise _refusal(session, request_id, "extended")
        return _done(session, request_id, "request.extended", principal, {"due_at": audit.timestamp(due_at)})


def retry(request_id: str, principal: Principal) -> dict[str, Any]:
    """Let a failed request be taken up by a new job. Raises Conflict when it has not failed."""
    with transaction() as session:
        _visible(session, request_id, principal)
        fresh = {"status": "accepted", "reason": None, "stage": None, "progress": 0.0}
        if not repository.change(session, request_id, STEPS["retry"], **fresh):
            raise _refusal(session, request_id, "retried")
        _leave_jobs(session, request_id)
        models = repository.free_targets(session, request_id)
        outbox.put_all(session, outbox.REQUEST_ACCEPTED, models, clock(session))
        return _done(session, request_id, "request.retried", principal, {"models": models})


def _visible(session: Session, request_id: str, principal: Principal) -> DeletionRequest:
    request = repository.find(session, request_id) if len(request_id) <= 40 else None
    if request is None or not (principal.reads_all or request.submitted_by == principal.id):
        raise NotFound("there is no deletion request with this id")
    return request


def _refusal(session: Session, request_id: str, action: str, kind: type[Conflict] = Conflict) -> Conflict:
    session.expire_all()
    request = repository.find(session, request_id)
    status = request.status if request is not None else "gone"
    if status not in FINAL and kind is TooLate:
        return TooLate(f"the request can no longer be {action}: publication of its result has begun")
    if action == "extended" and request is not None and request.extended_at is not None:
        return Conflict("the request has been extended before; there is one extension")
    return kind(f"the request is {status} and cannot be {action}")


def _leave_jobs(session: Session, request_id: str) -> None:
    """What an ended job has kept for a reviewer covers requests that are no longer together: it ends now."""
    for job_id in repository.let_go_on(session, request_id):
        registry.condemn_job_files(session, job_id, clock(session))


def _give_up(session: Session, request_id: str) -> None:
    repository.forget_suppression(session, request_id)
    request = repository.find(session, request_id)
    if request is not None and request.callback_url:
        outbox.put(session, outbox.WEBHOOK, request_id)


def _done(session: Session, request_id: str, kind: str, principal: Principal, data: dict[str, Any]) -> dict[str, Any]:
    audit.record(session, kind, actor=principal.id, ref=request_id, data=data)
    session.expire_all()
    return _whole_view(session, _visible(session, request_id, principal))


def _whole_view(session: Session, request: DeletionRequest) -> dict[str, Any]:
    targets = repository.targets_of(session, [request.id])[request.id]
    history = audit.events_of(session, [request.id])
    return request_view(request, targets, datetime.now(UTC), history)
