"""An attempt that broke: it is recorded with its cause, and the ladder goes on."""

from sqlalchemy import update

from service.audit import service as audit
from service.database import clock
from service.errors import Cancelled, DiskFull, LeaseLost, LetheError, OutOfMemory
from service.jobs import events, leases
from service.jobs.models import Attempt
from workers.tasks.work import Work

FATAL = (OutOfMemory, DiskFull, Cancelled, LeaseLost)
"""Causes that the next rung would meet as well: they end the job instead."""


def record_broken(work: Work, attempt_id: str, number: int, method: str, error: LetheError) -> None:
    """End the attempt as `error` and hand the job to the next rung. Raises LeaseLost."""
    with work.fenced() as session:
        cause = {"code": error.code, "detail": error.detail}
        ended = {"state": "error", "error": cause, "finished_at": clock(session)}
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**ended))
        data = {"number": number, "method": method, "code": error.code}
        audit.record(session, "attempt.broken", actor="worker", ref=work.job.id, data=data)
        events.emit(session, work.job.id, "attempt", state="error", detail=error.detail, **data)
        leases.move_on(session, work.job.id, "unlearn")
