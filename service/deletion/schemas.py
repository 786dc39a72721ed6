"""Bodies of the deletion API, and the request object that it answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from service.audit.service import timestamp
from service.deletion.models import DeletionRequest, RequestTarget
from service.deletion.regulations import REGULATIONS
from service.deletion.states import FINAL

# NUL and other control characters: PostgreSQL refuses the one, terminals and logs suffer from the others.
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identifier(_Body):
    """One identifier; hashed formats hold the digest of the normalised value."""

    type: Annotated[str, Field(max_length=64)]
    value: Annotated[str, Field(max_length=1024)]
    format: Literal["raw", "sha256", "md5", "sha1"] = "raw"


class Subject(_Body):
    """The person: everything by which the records may be known."""

    identifiers: Annotated[list[Identifier], Field(max_length=100, json_schema_extra={"minItems": 1})] = []


class CreateRequest(_Body):
    """A deletion request. Absent `models` means all registered ones; absent `received_at` means now."""

    regulation: Annotated[str, Field(max_length=20, json_schema_extra={"enum": list(REGULATIONS)})]
    subject: Subject
    models: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    received_at: Annotated[AwareDatetime, Field(strict=True)] | None = None
    external_id: Annotated[Line, Field(max_length=200)] | None = None
    callback_url: Annotated[Line, Field(max_length=2000, json_schema_extra={"format": "uri"})] | None = None
    identity: dict[str, Any] | None = None
    note: Text | None = None


class Reason(_Body):
    """Why, for the person who asked. It is kept with the request: name nobody in it."""

    reason: Text


class TargetView(BaseModel):
    """One model that the request asks to forget."""

    model: str
    job_id: str | None
    outcome: Literal["published", "no_records", "already_deleted"] | None
    records: int | None
    base_version: int | None
    new_version: int | None
    verdict: str | None
    grade: str | None


class EventView(BaseModel):
    """One audit event about the request."""

    id: str
    kind: str
    at: datetime
    actor: str
    data: dict[str, Any]


class RequestView(BaseModel):
    """The request object. `progress` goes from 0 to 1; `history` is left out of lists."""

    id: str
    status: Literal["verifying", "pending", "accepted", "running", "completed", "rejected", "cancelled", "failed"]
    stage: str | None
    progress: float
    regulation: str
    external_id: str | None
    reason: str | None
    cancellable: bool
    received_at: datetime
    due_at: datetime
    days_left: int
    acknowledged_at: datetime | None
    extended_at: datetime | None
    completed_at: datetime | None
    attempts: int
    targets: list[TargetView]
    links: dict[str, str]
    history: list[EventView] | None = None


class RequestList(BaseModel):
    """A page of requests, newest first."""

    items: list[RequestView]
    next_cursor: str | None
    limit: int


def days_left(due_at: datetime, now: datetime) -> int:
    """Calendar days (UTC) until the due date; 0 on the day itself, negative when it has passed."""
    return (due_at.date() - now.date()).days


def links_of(request_id: str) -> dict[str, str]:
    """Where to go on from a request."""
    link = f"/v1/deletion-requests/{request_id}"
    return {"self": link, "report": f"{link}/report", "bundle": f"{link}/report/bundle"}


def target_view(target: RequestTarget) -> dict[str, Any]:
    """One target as the API shows it."""
    return {
        "model": target.model_name,
        "job_id": target.job_id,
        "outcome": target.outcome,
        "records": target.records,
        "base_version": target.base_version,
        "new_version": target.new_version,
        "verdict": target.verdict,
        "grade": target.grade,
    }


def request_view(
    request: DeletionRequest,
    targets: list[RequestTarget],
    now: datetime,
    history: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The request object; nothing in it names the person."""
    view: dict[str, Any] = {
        "id": request.id,
        "status": request.status,
        "stage": request.stage,
        "progress": request.progress,
        "regulation": request.regulation,
        "external_id": request.external_id,
        "reason": request.reason,
        "cancellable": request.cancellable and request.status not in FINAL,
        "received_at": timestamp(request.received_at),
        "due_at": timestamp(request.due_at),
        "days_left": days_left(request.due_at, request.completed_at or now),
        "acknowledged_at": timestamp(request.acknowledged_at) if request.acknowledged_at else None,
        "extended_at": timestamp(request.extended_at) if request.extended_at else None,
        "completed_at": timestamp(request.completed_at) if request.completed_at else None,
        "attempts": request.attempts,
        "targets": [target_view(target) for target in targets],
        "links": links_of(request.id),
    }
    if history is not None:
        view["history"] = [{key: event[key] for key in ("id", "kind", "at", "actor", "data")} for event in history]
    return view
