"""What callers see of a job."""

from typing import Any

from service.jobs.models import Attempt, Job


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


def job_view(job: Job, attempts: list[Attempt], requests: list[str]) -> dict[str, Any]:
    """The job object of the API; nothing in it names a person."""
    return {
        "id": job.id,
        "model": job.model_name,
        "status": job.status,
        "stage": job.stage,
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
        "error": job.error,
        "policy_digest": job.policy_digest,
        "due_at": job.due_at.isoformat() if job.due_at else None,
        "created_at": job.created_at.isoformat(),
        "started_at": job.started_at.isoformat() if job.started_at else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "links": {"self": f"/v1/jobs/{job.id}", "events": f"/v1/jobs/{job.id}/events"},
    }
