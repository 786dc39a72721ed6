"""What workers make of a pool, step by step: its plan, its members, its files without the deleted, its tables.

Every function is one transaction of a claim; a worker that has lost its lease changes nothing and raises LeaseLost.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock, new_id
from service.errors import JobError
from service.references.leases import Claim, directory_of, fenced, grace, is_complete
from service.registry import pools, repository
from service.registry.models import Artefact, ReferenceMember, ReferencePool


def planned(held: Claim, sides: Mapping[str, Sequence[int]], records: int, holdout_digest: str | None) -> None:
    """The halves are drawn: queue the members of these pairs by side. A reserve is a held-out set as well."""
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        side_of = {pair: side for side, pairs in sides.items() for pair in pairs}
        for number in range(pool.count):
            pair, half = divmod(number, 2)
            row = ReferenceMember(id=new_id("rmb"), pool_id=pool.id, number=number, pair=pair, half=half)
            row.side, row.state = side_of[pair], "queued"
            session.add(row)
        pool.state, pool.holdout_digest = "building", holdout_digest
        _hand_on(pool)
        data = {"model": pool.model_id, "records": records, "members": pool.count}
        audit.record(session, "references.planned", actor="worker", ref=pool.id, data=data)


def trained(held: Claim, digest: str, seconds: float) -> None:
    """A member is in the directory of its claim. One whose directory was destroyed meanwhile is trained again.

    Where a deletion came while it was trained, which it does not hold but may have scored, its date stays until the
    pool has been purged once more.
    """
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        member = session.get_one(ReferenceMember, held.row_id, populate_existing=True)
        artefact = session.get_one(Artefact, held.artefact_id)
        if not _is_there(session, artefact):
            pools.give_back(member)
            return
        artefact.digest = digest
        if pool.deletions == held.deletions:
            _lift(artefact)
        else:
            pool.purged = min(pool.purged, held.deletions)
            pools.take_back(pool)
        member.state, member.artefact_id, member.digest, member.seconds = "ready", artefact.id, digest, seconds
        member.progress, member.error = 1.0, None
        _hand_on(member)


def purge_due(held: Claim) -> bool:
    """Whether the pool's files still hold people that were deleted. Read before anything else of a tables task."""
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        return pool.purged < pool.deletions


def whole_members(held: Claim) -> tuple[list[Path], list[str]]:
    """(directories of the whole members, artefact ids of what is neither one of them nor a member in training).

    The latter are stale members, old tables and remains of crashes: of no use to anybody, they need not wait for
    their date.
    """
    with fenced(held) as session:
        now, pool = clock(session), session.get_one(ReferencePool, held.pool_id)
        members = pools.members_of(session, pool.id)
        ready = {member.artefact_id for member in members if member.state == "ready"}
        busy = {str(directory_of(pool, member)) for member in members if member.state == "running"}
        rows = pools.artefacts_of(session, pool)
        leftovers = [row for row in rows if row.id not in ready and row.path not in busy]
        for row in leftovers:
            row.destroy_by = row.destroy_by or now
        return [Path(row.path) for row in rows if row.id in ready], [row.id for row in leftovers]


def purged(held: Claim) -> None:
    """The files of the whole members hold nobody any more who was deleted: their dates are lifted."""
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        pool.purged = held.deletions
        for row in _whole(session, pool.id).values():
            if _is_there(session, row):
                _lift(row)


def standing(held: Claim) -> list[tuple[str, int]] | None:
    """(directory name, generation) of each member by number, where all are whole; else the tables have to wait."""
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        if not is_complete(session, pool.id):
            _hand_on(pool)
            return None
        rows = _whole(session, pool.id)
        return [
            (Path(rows[member.number].path).name, member.generation) for member in pools.members_of(session, pool.id)
        ]


def announce_tables(held: Claim, names: Sequence[str]) -> None:
    """Tables of these names are about to be written."""
    with fenced(held) as session:
        pool, now = session.get_one(ReferencePool, held.pool_id), clock(session)
        for name in names:
            pools.note_artefact(session, pool, pools.TABLE, Path(pool.path) / name, now, now + grace())


def settled(held: Claim, digests: Mapping[str, str]) -> None:
    """The tables are written: the pool is ready."""
    with fenced(held) as session:
        pool, now = session.get_one(ReferencePool, held.pool_id), clock(session)
        for row in pools.artefacts_of(session, pool):
            name = Path(row.path).name
            if row.kind == pools.TABLE and name in digests:
                row.digest = digests[name]
                _lift(row)
        if pool.ready_at is not None:
            pool.generation += 1
        _become_ready(pool, now)
        data = {"model": pool.model_id, "generation": pool.generation, "tables": dict(digests)}
        audit.record(session, "references.ready", actor="worker", ref=pool.id, data=data)


def _become_ready(pool: ReferencePool, now: datetime) -> None:
    pool.state, pool.ready_at, pool.error = "ready", now, None
    pool.refresh_at, pool.refresh_by = None, None
    _hand_on(pool)


def fail(held: Claim, cause: JobError) -> None:
    """End the work on the pool with its cause; what is whole stays, and `prepare` goes on from there."""
    with fenced(held) as session:
        pool = session.get_one(ReferencePool, held.pool_id)
        error: dict[str, Any] = {"code": cause.code, "detail": cause.detail, "task": held.task}
        if isinstance(row := session.get(_kind(held), held.row_id), ReferenceMember):
            error["member"] = row.number
            row.error = dict(error)
        stop(session, pool, "failed")
        pool.error = error
        data = {"model": pool.model_id} | error
        audit.record(session, "references.failed", actor="worker", ref=pool.id, data=data)


def _kind(held: Claim) -> type[ReferencePool] | type[ReferenceMember]:
    return ReferencePool if held.row_id == held.pool_id else ReferenceMember


def stop(session: Session, pool: ReferencePool, state: Literal["failed", "cancelled"]) -> None:
    """With the pool held: nobody works on it any more."""
    pool.state = state
    pools.take_back(pool)
    for member in pools.members_of(session, pool.id):
        if member.state == "running":
            pools.give_back(member)
    session.flush()


def _whole(session: Session, pool_id: str) -> dict[int, Artefact]:
    ready = [member for member in pools.members_of(session, pool_id) if member.state == "ready"]
    return {member.number: session.get_one(Artefact, member.artefact_id) for member in ready}


def _is_there(session: Session, row: Artefact) -> bool:
    """Whether a sweeper whose date has come has not taken it away yet, nor can until this transaction ends."""
    repository.lock_path(session, Path(row.path))
    session.refresh(row)
    return row.destroyed_at is None and Path(row.path).exists()


def _lift(row: Artefact) -> None:
    row.destroy_by, row.condemned_by = None, None


def _hand_on(row: ReferencePool | ReferenceMember) -> None:
    """Done: nobody holds the row, and what comes next may be sent at once."""
    row.owner, row.lease_until, row.sent_at, row.sends, row.claims = None, None, None, 0, 0
