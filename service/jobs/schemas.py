"""What callers see of a job, and what a reviewer sends."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.deletion.schemas import days_left
from service.jobs.models import Attempt, Job

# Terminals and PDFs show it: no control characters beside line ends and tabs.
Explanation = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=10, max_length=2000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$"
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Approval(_Body):
    """Which attempt the reviewer has looked at."""

    attempt: int = Field(ge=1, le=2**31 - 1)


class Release(Approval):
    """The same, and why it is published without a pass. The reason is printed in every report: name nobody in it."""

    reason: Explanation


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """One rung: what was tried, at what cost, and what the gate said."""
    verification = attempt.verification or {}
    return {
        "number": attempt.number,
        "method": attempt.method,
        "params": attempt.params,
        "seed": attempt.seed,
        "state": attempt.state,
        "seconds": (attempt.result or {}).get("seconds"),
        "candidate_digest": attempt.candidate_digest,
        "verdict": verification.get("verdict"),
        "basis": verification.get("basis"),
        "error": attempt.error,
        "started_at": attempt.started_at.isoformat(),
        "finished_at": attempt.finished_at.isoformat() if attempt.finished_at else None,
    }


def job_view(
    job: Job, attempts: list[Attempt], requests: list[str], due_at: datetime | None, now: datetime
) -> dict[str, Any]:
    """The job object of the API; nothing in it names a person. `due_at` is the first deadline of its requests."""
    return {
        "id": job.id,
        "model": job.model_name,
        "status": job.status,
        "stage": job.stage,
        "waits_for": job.waits_for,
        "requests": requests,
        "plan": job.plan,
        "scope": {key: job.scope[key] for key in ("records", "subjects") if key in job.scope} if job.scope else None,
        "attempts": [attempt_view(attempt) for attempt in attempts],
        "progress": job.progress,
        "eta_seconds": job.eta_seconds,
        "device": job.device,
        "metrics": job.metrics,
        "verdict": job.verdict,
        "grade": job.grade,
        "review": job.review,
        "error": job.error,
        "policy_digest": job.policy_digest,
        "due_at": due_at.isoformat() if due_at else None,
        "days_left": days_left(due_at, job.finished_at or now) if due_at else None,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "links": {"self": f"/v1/jobs/{job.id}", "events": f"/v1/jobs/{job.id}/events"},
    }
