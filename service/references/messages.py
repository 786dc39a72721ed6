"""Which tasks of reference pools are due to be sent.

Of the members one message is out at a time: the next is sent when a worker has taken it up. So any number of workers
is kept busy within moments, and whatever a deletion job sends meanwhile waits behind one training and not behind all.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from service.database import clock, reading, transaction
from service.queue import TASK_TRAIN_REFERENCE
from service.references.leases import BUILDING, is_free, wanted_of
from service.registry import pools
from service.registry.models import ReferenceMember, ReferencePool
from service.settings import get_settings


@dataclass(frozen=True)
class Jobs:
    """What deletion jobs are about: models with an open job or waiting requests, and whether one waits for a GPU."""

    busy: Collection[str] = ()
    waiting: bool = False


def take_messages(jobs: Callable[[], Jobs]) -> list[tuple[str, str]]:
    """(task, row id) of what nobody works on and whose message is missing or overdue, with back-off.

    Deletion jobs come first: nothing is sent while one waits for a GPU, and a refresh waits until its model has
    nothing else to do, or until its latest time.
    """
    active = ReferencePool.state.in_(pools.ACTIVE)
    with reading() as session:
        if session.scalar(select(ReferencePool.id).where(active).limit(1)) is None:
            return []
    around = jobs()
    if around.waiting:
        return []
    with transaction() as session:
        query = select(ReferencePool).where(active).order_by(ReferencePool.created_at)
        found = session.scalars(query.with_for_update(skip_locked=True))
        return [message for pool in found.all() for message in _due(session, pool, around)]


def _due(session: Session, pool: ReferencePool, jobs: Jobs) -> list[tuple[str, str]]:
    now = clock(session)
    task = wanted_of(session, pool)
    due = [(task, pool.id)] if task is not None and is_free(pool, now) and _mark_sent(pool, now) else []
    if pool.state in BUILDING and _may_train(pool, jobs, now):
        member = _next_member(session, pool, now)
        if member is not None and _mark_sent(member, now):
            due.append((TASK_TRAIN_REFERENCE, member.id))
    return due


def _may_train(pool: ReferencePool, jobs: Jobs, now: datetime) -> bool:
    if pool.refresh_at is None or (pool.refresh_by is not None and pool.refresh_by <= now):
        return True
    # A publication that comes while the pool is first built does not hold it up.
    return pool.state == "building" or (pool.refresh_at <= now and pool.model_id not in jobs.busy)


def _next_member(session: Session, pool: ReferencePool, now: datetime) -> ReferenceMember | None:
    """The member whose message is out, as long as there is one; else the next that has to be trained."""
    lost = and_(ReferenceMember.state == "running", ReferenceMember.lease_until < now)
    open_ = or_(ReferenceMember.state.in_(pools.WAITING), lost)
    query = select(ReferenceMember).where(ReferenceMember.pool_id == pool.id, open_)
    return session.scalar(query.order_by(ReferenceMember.sent_at.nulls_last(), ReferenceMember.number).limit(1))


def _mark_sent(row: ReferencePool | ReferenceMember, now: datetime) -> bool:
    wait = timedelta(seconds=get_settings().jobs.resend_seconds * min(2**row.sends, 64))
    if row.sent_at is not None and row.sent_at + wait > now:
        return False
    row.sent_at, row.sends = now, row.sends + 1
    return True
