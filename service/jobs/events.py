"""Events of a job, for the stream that the console, the command line and other programs follow."""

from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from service.database import clock
from service.jobs.models import JobEvent

KINDS = ("stage", "progress", "metric", "attempt", "verdict", "done")


def emit(session: Session, job_id: str, kind: str, **data: Any) -> None:
    """Add an event to the current transaction. `data` is numbers, codes and ids, never an identifier of a person."""
    session.execute(insert(JobEvent).values(job_id=job_id, kind=kind, data=data, at=clock(session)))


def since(session: Session, job_id: str, after: int, limit: int = 500) -> list[JobEvent]:
    """Events with an id above `after`, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id)
    return list(session.scalars(query.limit(limit)))
