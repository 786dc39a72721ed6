"""Leases on pools and their members: many workers side by side each train another member, and none writes twice.

As for jobs (service/jobs/leases.py): a claim raises the row's fence and sets a lease, and whatever its holder writes is
conditional on that fence. Each claim of a member trains into a directory of its own, noted before the first byte, so
that a worker which has lost its lease can neither disturb the one that took over nor leave anything unaccounted for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database import clock, reading, transaction
from service.errors import Cancelled, LeaseLost
from service.queue import TASK_PLAN_REFERENCES, TASK_REFERENCE_TABLES, TASK_TRAIN_REFERENCE
from service.registry import pools
from service.registry.models import ReferenceMember, ReferencePool
from service.settings import get_settings

BUILDING = ("building", "refreshing")
_GRACE = timedelta(days=1)


@dataclass(frozen=True)
class Claim:
    """The right to work on one row, for as long as nobody else has claimed it since.

    `deletions` is how many deletions the pool had seen. Of a member: its number, the generation that it is trained to
    be, and the directory of this claim alone.
    """

    task: str
    pool_id: str
    row_id: str
    fence: int
    claims: int
    deletions: int
    number: int = 0
    generation: int = 0
    directory: str = ""
    artefact_id: str = ""


def claim(task: str, row_id: str, owner: str) -> Claim | None:
    """Take the lease if there is that to do on the row and nobody does it; None means: drop the message."""
    with transaction() as session:
        if task == TASK_TRAIN_REFERENCE:
            return _claim_member(session, row_id, owner)
        return _claim_pool(session, task, row_id, owner)


def _claim_pool(session: Session, task: str, pool_id: str, owner: str) -> Claim | None:
    if session.get(ReferencePool, pool_id) is None:
        return None
    pool, now = pools.hold(session, pool_id), clock(session)
    if task != wanted_of(session, pool) or not is_free(pool, now):
        return None
    _take(pool, owner, now)
    return Claim(task, pool.id, pool.id, pool.fence, pool.claims, pool.deletions)


def wanted_of(session: Session, pool: ReferencePool) -> str | None:
    """The task that the pool itself waits for, beside those of its members; None where there is none."""
    if pool.state == "planning":
        return TASK_PLAN_REFERENCES
    if pool.state not in BUILDING:
        return None
    return TASK_REFERENCE_TABLES if pool.purged < pool.deletions or is_complete(session, pool.id) else None


def is_complete(session: Session, pool_id: str) -> bool:
    """Whether every member is trained and holds nobody who was deleted."""
    here = ReferenceMember.pool_id == pool_id
    missing = select(func.count()).select_from(ReferenceMember).where(here, ReferenceMember.state != "ready")
    return session.scalar(missing) == 0


def is_free(row: ReferencePool | ReferenceMember, now: datetime) -> bool:
    """Whether nobody holds a lease on it."""
    return row.lease_until is None or row.lease_until < now


def _claim_member(session: Session, member_id: str, owner: str) -> Claim | None:
    found = session.get(ReferenceMember, member_id)
    if found is None:
        return None
    pool, now = pools.hold(session, found.pool_id), clock(session)
    session.refresh(found)
    abandoned = found.state == "running" and is_free(found, now)
    if pool.state not in BUILDING or not (found.state in pools.WAITING or abandoned):
        return None
    _take(found, owner, now)
    found.state, found.started_at, found.progress = "running", now, 0.0
    path = directory_of(pool, found)
    artefact = pools.note_artefact(session, pool, pools.MEMBER, path, now, now + grace())
    return Claim(
        task=TASK_TRAIN_REFERENCE,
        pool_id=pool.id,
        row_id=found.id,
        fence=found.fence,
        claims=found.claims,
        deletions=pool.deletions,
        number=found.number,
        generation=found.generation,
        directory=str(path),
        artefact_id=artefact,
    )


def directory_of(pool: ReferencePool, member: ReferenceMember) -> Path:
    """Where the holder of the member's highest fence trains it."""
    return Path(pool.path) / f"member-{member.number:03d}-g{member.generation}-f{member.fence}"


def grace() -> timedelta:
    """From the announcement of something to its completion; only what a crash left behind uses it up."""
    return max(_GRACE, 2 * timedelta(seconds=get_settings().jobs.time_limit_seconds))


def _take(row: ReferencePool | ReferenceMember, owner: str, now: datetime) -> None:
    row.owner, row.fence, row.claims, row.lease_until = owner, row.fence + 1, row.claims + 1, now + _ttl()


def _ttl() -> timedelta:
    return timedelta(seconds=get_settings().jobs.lease_seconds)


def _table(held: Claim) -> type[ReferencePool] | type[ReferenceMember]:
    return ReferenceMember if held.task == TASK_TRAIN_REFERENCE else ReferencePool


def _mine(held: Claim) -> Any:
    table = _table(held)
    return (table.id == held.row_id) & (table.fence == held.fence) & table.lease_until.is_not(None)


def renew(held: Claim, **values: Any) -> bool:
    """Extend the lease, and store these values; False means that it is lost and the work must stop.

    A claim whose work is done has nothing to extend, and has not lost it either.
    """
    with transaction() as session:
        return _renew(session, held, values) or _is_done(session, held)


def _is_done(session: Session, held: Claim) -> bool:
    """Whether the holder itself has given the lease up, and nobody has come after it."""
    table = _table(held)
    mine = (table.id == held.row_id) & (table.fence == held.fence) & table.lease_until.is_(None)
    return session.scalar(select(table.id).where(mine)) is not None


def _renew(session: Session, held: Claim, values: dict[str, Any]) -> bool:
    statement = update(_table(held)).where(_mine(held)).values(lease_until=clock(session) + _ttl(), **values)
    return int(session.execute(statement).rowcount) == 1  # type: ignore[attr-defined]


def require_wanted(held: Claim) -> None:
    """Raises LeaseLost when somebody else has taken over, Cancelled when nobody wants the pool any more."""
    with reading() as session:
        if _is_done(session, held):
            return
        mine = session.scalar(select(_table(held).id).where(_mine(held)))
        state = session.scalar(select(ReferencePool.state).where(ReferencePool.id == held.pool_id))
    if mine is None:
        raise _lost(held)
    if state not in pools.ACTIVE:
        raise Cancelled(f"the reference pool is {state}")


@contextmanager
def fenced(held: Claim) -> Iterator[Session]:
    """A transaction that holds the pool's row and takes effect only while the fence is ours. Raises LeaseLost."""
    with transaction() as session:
        pools.hold(session, held.pool_id)
        if not _renew(session, held, {}):
            raise _lost(held)
        yield session


def release(held: Claim) -> None:
    """Give the work back undone; it is begun again after the back-off."""
    with transaction() as session:
        pools.hold(session, held.pool_id)
        if _renew(session, held, {}):
            if held.task == TASK_TRAIN_REFERENCE:
                pools.give_back(session.get_one(ReferenceMember, held.row_id, populate_existing=True))
            else:
                pools.take_back(session.get_one(ReferencePool, held.row_id, populate_existing=True))


def _lost(held: Claim) -> LeaseLost:
    return LeaseLost(f"reference pool {held.pool_id}: another worker has taken over (fence {held.fence})")
