"""/v1/jobs: reading, the event stream of a job, and what a reviewer decides on its publication."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from service.auth.guards import require
from service.auth.http import body_problems, json_body, parse, problems, takes
from service.auth.service import Principal
from service.database import clock, reading
from service.deletion import lifecycle
from service.errors import Conflict, Invalid, NotFound
from service.jobs import events, reviews, service
from service.jobs.leases import OPEN
from service.jobs.models import Job
from service.jobs.schemas import Approval, Release, job_view
from service.jobs.waiting import Decision, awaiting, awaiting_any
from service.registry.pages import Page, page_of

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=[Depends(require("reviewer", "auditor", "operator"))])

Reviewer = Annotated[Principal, Depends(require("reviewer"))]
Body = Annotated[bytes, Depends(json_body)]

_POLL_SECONDS = 0.3
_HEARTBEAT_SECONDS = 15.0


@router.get("", responses=problems(Invalid))
def list_jobs(
    page: Annotated[Page, Depends()],
    status: str | None = None,
    model: str | None = None,
    waiting: Annotated[
        Decision | Literal["any"] | None, Query(description="only jobs in which a reviewer has to decide this")
    ] = None,
) -> dict[str, Any]:
    """Jobs, newest first."""
    query = select(Job)
    if status:
        query = query.where(Job.status == status)
    if model:
        query = query.where(Job.model_name == model)
    with reading() as session:
        if waiting:
            now = clock(session)
            query = query.where(awaiting_any(now) if waiting == "any" else awaiting(waiting, now))
        return page_of(session, query, Job, page, lambda job: _view(session, job))


@router.get("/{job_id}", responses=problems(NotFound))
def read_job(job_id: str) -> dict[str, Any]:
    """One job with its plan, attempts and progress."""
    with reading() as session:
        return _view(session, service.get_job(session, job_id))


def _view(session: Any, job: Job) -> dict[str, Any]:
    requests = service.requests_of(session, job.id)
    due_at = lifecycle.earliest_due(session, requests) or job.due_at
    attempts = service.attempts_of(session, job.id)
    offer = service.release_offer(job, attempts, requests)
    return job_view(job, attempts, requests, due_at, clock(session)) | {"releasable": offer}


@router.post("/{job_id}/release", responses=body_problems(NotFound, Conflict), openapi_extra=takes(Release))
def release_attempt(job_id: str, principal: Reviewer, raw: Body) -> dict[str, Any]:
    """Publish an inconclusive attempt of a failed job all the same, where its policy has `approval.override`."""
    body = parse(Release, raw)
    reviews.release(job_id, body.attempt, body.reason, principal)
    return read_job(job_id)


@router.post(
    "/{job_id}/approve-publication", responses=body_problems(NotFound, Conflict), openapi_extra=takes(Approval)
)
def approve_publication(job_id: str, principal: Reviewer, raw: Body) -> dict[str, Any]:
    """Let a job go on that waits before its publication, where its policy has `approval.publication`."""
    reviews.approve(job_id, parse(Approval, raw).attempt, principal)
    return read_job(job_id)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses=problems(NotFound) | {200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}},
)
async def stream_events(
    job_id: str,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="start behind this event id")] = None,
) -> StreamingResponse:
    """Events as they happen (text/event-stream); `Last-Event-ID` replays what a reader missed."""
    await run_in_threadpool(read_job, job_id)
    if last_event_id is not None and not re.fullmatch(r"[0-9]{1,9}", last_event_id):
        raise Invalid("Last-Event-ID must be the number of an event")
    start = int(last_event_id) if last_event_id else after or 0
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(job_id, start), media_type="text/event-stream", headers=headers)


def _new_events(job_id: str, after: int) -> tuple[list[tuple[int, str, str]], bool]:
    """Formatted events, and whether the job has ended and nothing more will come."""
    with reading() as session:
        ended = service.get_job(session, job_id).status not in OPEN
        rows = events.since(session, job_id, after)
    return [(row.id, row.kind, json.dumps(row.data | {"at": row.at.isoformat()})) for row in rows], ended


async def _stream(job_id: str, after: int) -> AsyncIterator[str]:
    # Waiting happens on the event loop: a thousand readers hold no thread of the pool that serves requests.
    silent = 0.0
    while True:
        rows, ended = await run_in_threadpool(_new_events, job_id, after)
        for number, kind, data in rows:
            after, silent = number, 0.0
            yield f"id: {number}\nevent: {kind}\ndata: {data}\n\n"
        if ended and not rows:
            return
        await asyncio.sleep(_POLL_SECONDS)
        silent += _POLL_SECONDS
        if silent >= _HEARTBEAT_SECONDS:
            silent = 0.0
            yield ": still here\n\n"
