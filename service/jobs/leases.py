"""Leases and fencing tokens: two deliveries of one message can never both write.

A claim raises the job's fence by one and sets a lease. Everything a stage writes goes through `fenced`, which renews
the lease in the same transaction under the condition that the fence is still its own; a worker that lost its lease
finds no row, raises LeaseLost and has written nothing. (Fencing tokens: Kleppmann, "How to do distributed locking".)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, or_, update
from sqlalchemy.orm import Session

from service.database import clock, transaction
from service.errors import LeaseLost
from service.jobs.models import Job
from service.settings import get_settings

OPEN = ("queued", "running")


@dataclass(frozen=True)
class Claim:
    """The right to run one stage of one job, for as long as nobody else has claimed it since."""

    job_id: str
    stage: str
    fence: int
    claims: int
    owner: str


def _ttl() -> timedelta:
    return timedelta(seconds=get_settings().jobs.lease_seconds)


def claim(job_id: str, stage: str, owner: str) -> Claim | None:
    """Take the lease if the job is open, at that stage, waits for no person and nobody holds it.

    None means: drop the message.
    """
    with transaction() as session:
        now = clock(session)
        free = or_(Job.lease_until.is_(None), Job.lease_until < now)
        statement = (
            update(Job)
            .where(Job.id == job_id, Job.stage == stage, Job.status.in_(OPEN), Job.waits_for.is_(None), free)
            .values(
                status="running",
                owner=owner,
                fence=Job.fence + 1,
                claims=Job.claims + 1,
                lease_until=now + _ttl(),
            )
            .returning(Job.fence, Job.claims)
        )
        row = session.execute(statement).first()
        if row is None:
            return None
        started = update(Job).where(Job.id == job_id, Job.started_at.is_(None)).values(started_at=now)
        session.execute(started)
        return Claim(job_id, stage, row.fence, row.claims, owner)


def _mine(job_id: str, fence: int) -> Any:
    # A stage that has handed the job on has no lease any more, so its own claim cannot write or renew after that.
    return and_(Job.id == job_id, Job.fence == fence, Job.status == "running", Job.lease_until.is_not(None))


def renew(job_id: str, fence: int) -> bool:
    """Extend the lease; False means that it is lost and the work must stop."""
    with transaction() as session:
        until = clock(session) + _ttl()
        return _rows(session, update(Job).where(_mine(job_id, fence)).values(lease_until=until)) == 1


@contextmanager
def fenced(job_id: str, fence: int) -> Iterator[Session]:
    """A transaction that takes effect only while the fence is ours. Raises LeaseLost before anything is written."""
    with transaction() as session:
        until = clock(session) + _ttl()
        if _rows(session, update(Job).where(_mine(job_id, fence)).values(lease_until=until)) != 1:
            raise LeaseLost(f"job {job_id}: another worker has taken over (fence {fence})")
        yield session


def move_on(session: Session, job_id: str, next_stage: str, **values: Any) -> None:
    """Within `fenced`: hand the job to its next stage; the scheduler sends the message since `sent_at` is empty."""
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(stage=next_stage, owner=None, lease_until=None, claims=0, sent_at=None, sends=0, **values)
    )


def release(job_id: str, fence: int, error: dict[str, Any] | None = None) -> bool:
    """Give the stage back unfinished: it is begun again after the back-off. `error` is kept for people to see."""
    with transaction() as session:
        values = {"owner": None, "lease_until": None, "error": error}
        return _rows(session, update(Job).where(_mine(job_id, fence)).values(**values)) == 1


def finish(session: Session, job_id: str, status: str, **values: Any) -> None:
    """Within `fenced`: end the job as completed, failed or cancelled."""
    now = clock(session)
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(status=status, owner=None, lease_until=None, finished_at=now, eta_seconds=None, **values)
    )


def _rows(session: Session, statement: Any) -> int:
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]
