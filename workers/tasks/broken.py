"""An attempt that broke: it is recorded with its cause, and the ladder goes on."""

import structlog
from sqlalchemy import update

from service.audit import service as audit
from service.database import clock
from service.errors import Cancelled, DiskFull, LeaseLost, OutOfMemory
from service.jobs import events, leases
from service.jobs.models import Attempt
from workers.tasks.causes import cause_of
from workers.tasks.work import Work

log = structlog.get_logger(__name__)

FATAL = (OutOfMemory, DiskFull, Cancelled, LeaseLost)
"""Causes that the next rung would meet as well: they end the job instead."""


def record_broken(work: Work, attempt_id: str, number: int, method: str, error: Exception) -> None:
    """End the attempt as `error` and hand the job to the next rung. Raises FATAL causes again, and LeaseLost."""
    cause_error = cause_of(error)
    if isinstance(cause_error, FATAL):
        raise cause_error from error
    log.warning("attempt.broken", number=number, method=method, code=cause_error.code, exc_info=error)
    with work.fenced() as session:
        cause = {"code": cause_error.code, "detail": cause_error.detail}
        ended = {"state": "error", "error": cause, "finished_at": clock(session)}
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**ended))
        data = {"number": number, "method": method, "code": cause_error.code}
        audit.record(session, "attempt.broken", actor="worker", ref=work.job.id, data=data)
        events.emit(session, work.job.id, "attempt", state="error", detail=cause_error.detail, **data)
        leases.move_on(session, work.job.id, "unlearn")
