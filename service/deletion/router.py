"""/v1/deletion-requests: thin routes over service.py and batch.py."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from service.auth.guards import require
from service.auth.http import (
    JSON,
    body_of,
    body_problems,
    json_body,
    media_type,
    optional_json_body,
    parse,
    problems,
    schema_of,
    takes,
)
from service.auth.service import Principal
from service.deletion import batch, service
from service.deletion.intake import parse_idempotency_key
from service.deletion.regulations import find_regulation
from service.deletion.schemas import CreateRequest, Reason, RequestList, RequestView
from service.errors import BadRequest, Conflict, Invalid, NotFound, TooLate
from service.registry.pages import Page

router = APIRouter(prefix="/v1", tags=["deletion requests"])

Submitter = Annotated[Principal, Depends(require("submitter"))]
Reader = Annotated[Principal, Depends(require("submitter", "reviewer", "auditor", "operator"))]
Reviewer = Annotated[Principal, Depends(require("reviewer"))]
Canceller = Annotated[Principal, Depends(require("submitter", "reviewer", "operator"))]
Operator = Annotated[Principal, Depends(require("reviewer", "operator"))]

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="A quoted string or a bare token; the first answer is kept for a day.",
        json_schema_extra={"minLength": 1, "maxLength": 255},
    ),
]
Status = Literal["verifying", "pending", "accepted", "running", "completed", "rejected", "cancelled", "failed"]
Filter = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]

Moment = Annotated[
    Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})] | None, Query(max_length=40)
]

_RETRY_AFTER = "5"
_PATH = "/deletion-requests/{request_id}"
_BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"type": "array", "items": schema_of(CreateRequest)}},
            batch.NDJSON[0]: {"schema": {"type": "string"}},
        },
    }
}


@router.post(
    "/deletion-requests",
    status_code=202,
    response_model=RequestView,
    responses=body_problems(BadRequest),
    openapi_extra=takes(CreateRequest),
)
def create_request(
    principal: Submitter, raw: Annotated[bytes, Depends(json_body)], idempotency_key: IdempotencyKey = None
) -> Response:
    """Accept a deletion request."""
    answer = service.create(parse(CreateRequest, raw), principal, parse_idempotency_key(idempotency_key))
    headers = {"location": answer.request["links"]["self"], "retry-after": _RETRY_AFTER}
    if answer.replayed:
        headers["idempotency-replayed"] = "true"
    return JSONResponse(answer.request, 202, headers)


@router.post("/deletion-requests:batch", responses=body_problems(BadRequest), openapi_extra=_BATCH_BODY)
def create_requests(
    request: Request,
    principal: Submitter,
    raw: Annotated[bytes, Depends(body_of(JSON, *batch.NDJSON))],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept many requests: a result for each, NDJSON for NDJSON and a JSON array for a JSON array.

    `line` is the line of the NDJSON that was sent, blank ones counted, or the place in the array, from 1.
    """
    kind = media_type(request)
    key = parse_idempotency_key(idempotency_key)
    lines = [json.dumps(result) for result in batch.create_batch(batch.split(raw, kind), principal, key)]
    if kind in batch.NDJSON:
        return Response("\n".join(lines) + "\n", media_type=kind)
    return Response("[" + ",\n".join(lines) + "]\n", media_type=JSON)


@router.get("/deletion-requests", response_model=RequestList, responses=problems(BadRequest))
def list_requests(
    principal: Reader,
    page: Annotated[Page, Depends()],
    status: Annotated[list[Status] | None, Query(max_length=8)] = None,
    regulation: Filter = None,
    model: Filter = None,
    due_before: Moment = None,
    external_id: Filter = None,
) -> Response:
    """Requests, newest first; a submitter sees those of its own key."""
    if regulation is not None:
        find_regulation(regulation)
    return JSONResponse(
        service.list_requests(
            principal,
            page,
            status=status,
            regulation=regulation,
            model=model,
            due_before=_moment(due_before) if due_before is not None else None,
            external_id=external_id,
        )
    )


@router.get(_PATH, response_model=RequestView, responses=problems(NotFound))
def read_request(request_id: str, principal: Reader) -> Response:
    """One request with its history."""
    return JSONResponse(service.get(request_id, principal))


@router.post(f"{_PATH}/approve", response_model=RequestView, responses=problems(NotFound, Conflict))
def approve_request(request_id: str, principal: Reviewer) -> Response:
    """Let a pending request go on."""
    return JSONResponse(service.approve(request_id, principal))


@router.post(
    f"{_PATH}/reject",
    response_model=RequestView,
    responses=body_problems(NotFound, Conflict),
    openapi_extra=takes(Reason, required=False),
)
def reject_request(
    request_id: str, principal: Reviewer, raw: Annotated[bytes, Depends(optional_json_body)]
) -> Response:
    """Refuse a request that has not been accepted yet."""
    return JSONResponse(service.reject(request_id, principal, _reason(raw)))


@router.post(
    f"{_PATH}/extend",
    response_model=RequestView,
    responses=body_problems(NotFound, Conflict),
    openapi_extra=takes(Reason, required=False),
)
def extend_request(
    request_id: str, principal: Reviewer, raw: Annotated[bytes, Depends(optional_json_body)]
) -> Response:
    """Take the one extension of the deadline."""
    return JSONResponse(service.extend(request_id, principal, _reason(raw)))


@router.post(f"{_PATH}/cancel", response_model=RequestView, responses=problems(NotFound, TooLate))
def cancel_request(request_id: str, principal: Canceller) -> Response:
    """Withdraw a request; possible until the publication of its result begins."""
    return JSONResponse(service.cancel(request_id, principal))


@router.post(f"{_PATH}/retry", response_model=RequestView, responses=problems(NotFound, Conflict))
def retry_request(request_id: str, principal: Operator) -> Response:
    """Let a failed request be taken up by a new job."""
    return JSONResponse(service.retry(request_id, principal))


def _reason(raw: bytes) -> str | None:
    return parse(Reason, raw).reason if raw else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Invalid("due_before must be a time with its zone, such as 2026-11-21T12:00:00Z", pointer="/due_before")
