"""The end of what held the data: every file and folder that descends from it is a row, and the sweeper keeps its date.

Whether a directory is still wanted is decided under the lock of its path, which whoever publishes takes as well
(placement.py): a version that serves never loses its directory, and what nobody answers for never stays.
"""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock, new_id, reading, transaction
from service.registry import files, repository
from service.registry.models import Artefact, Version
from service.registry.placement import UNPUBLISHED
from service.registry.pools import MEMBER, TABLE
from service.settings import get_settings

log = structlog.get_logger(__name__)

_ANNOUNCED = (MEMBER, TABLE)
"""Kinds whose row comes before the files, and gets a digest with them."""


def track_artefact(
    session: Session, *, model_id: str, job_id: str | None, kind: str, path: Path, destroy_by: datetime | None = None
) -> str:
    """Note a file or folder that descends from training data; noting it twice keeps the first row."""
    query = select(Artefact.id).where(Artefact.job_id == job_id, Artefact.kind == kind, Artefact.path == str(path))
    known = session.scalar(query.where(Artefact.destroyed_at.is_(None)))
    if known is not None:
        return known
    row = Artefact(
        id=new_id("art"),
        model_id=model_id,
        job_id=job_id,
        kind=kind,
        path=str(path),
        created_at=clock(session),
        destroy_by=destroy_by,
    )
    session.add(row)
    session.flush()
    return row.id


def mark_job_artefacts_destroyed(session: Session, job_id: str, now: datetime) -> int:
    """Note that the files of a job are gone; answers how many rows that were.

    Weights that it placed and did not publish lie elsewhere: the next sweep destroys them.
    """
    query = select(Artefact).where(Artefact.job_id == job_id, Artefact.kind != UNPUBLISHED)
    rows = session.scalars(query.where(Artefact.destroyed_at.is_(None)))
    gone = [row for row in rows if repository.mark_destroyed(session, Artefact, row.id, now)]
    events = [(row.id, {"kind": row.kind, "model": row.model_id, "job": job_id}) for row in gone]
    audit.record_all(session, "artefact.destroyed", actor="worker", events=events)
    repository.condemn_job_files(session, job_id, now)
    return len(gone)


def keep_job_files(session: Session, job_id: str) -> bool:
    """An ended job is opened again: its folder loses its date. False where it is gone, or a sweeper has just taken it.

    Called within the transaction that opens the job.
    """
    query = select(Artefact).where(Artefact.job_id == job_id, Artefact.kind == repository.JOB_FILES)
    rows = list(session.scalars(query.where(Artefact.destroyed_at.is_(None))))
    for row in rows:
        repository.lock_path(session, Path(row.path))
        if not Path(row.path).is_dir():
            return False
    repository.date_job_files(session, job_id, None)
    return bool(rows)


def sweep_destroyed(now: datetime) -> int:
    """Destroy versions and artefacts whose date has come; answers how many. Safe to repeat after a crash."""
    with reading() as session:
        doomed: list[Version | Artefact] = [
            *repository.doomed_versions(session, now),
            *repository.doomed_artefacts(session, now),
        ]
    return sum(_try_to_destroy(row, now) for row in doomed)


def destroy_early(artefact_ids: Collection[str], now: datetime) -> int:
    """Destroy artefacts that have a date before it comes; answers how many. One without a date is left alone."""
    with reading() as session:
        query = select(Artefact).where(Artefact.id.in_(artefact_ids), Artefact.destroyed_at.is_(None))
        dated = list(session.scalars(query.where(Artefact.destroy_by.is_not(None))))
    return sum(_try_to_destroy(row, now, early=True) for row in dated)


def _try_to_destroy(row: Version | Artefact, now: datetime, *, early: bool = False) -> bool:
    """One path that cannot be removed is no reason to keep the others."""
    try:
        return _destroy(row, now, early)
    except OSError as error:
        log.error("sweep.failed", artefact=row.id, reason=type(error).__name__)  # noqa: TRY400 - a trace may show a path
        return False


def _destroy(row: Version | Artefact, now: datetime, early: bool) -> bool:
    path = Path(row.path)
    if not _is_ours(path):
        log.error("sweep.refused", artefact=row.id, reason="its path is outside of the home")
        return False
    with transaction() as session:
        repository.lock_path(session, path)
        if not _is_due(session, row, None if early else now):
            return False
        used = repository.is_path_in_use(session, path, row.id, now)
        doomed = None if used else files.set_aside(path)
        if doomed is None:
            return _close(session, row, now)
    # Outside of the transaction: deleting gigabytes takes time, and SQLite has one writer.
    files.destroy_aside(doomed)
    with transaction() as session:
        repository.lock_path(session, path)
        # A job that was begun again may have renewed its row meanwhile, and placed its directory anew.
        return _is_due(session, row, None if early else now) and _mark(session, row, now)


def _is_due(session: Session, row: Version | Artefact, now: datetime | None) -> bool:
    """Whether it has a date, which has come unless `now` is None, and is not destroyed yet."""
    found = session.get(Version, row.id) if isinstance(row, Version) else session.get(Artefact, row.id)
    if found is None or found.destroyed_at is not None or found.destroy_by is None:
        return False
    return now is None or found.destroy_by <= now


def _close(session: Session, row: Version | Artefact, now: datetime) -> bool:
    """There was nothing to delete, or another row answers for it."""
    if isinstance(row, Artefact) and (row.kind == UNPUBLISHED or (row.kind in _ANNOUNCED and row.digest is None)):
        # It was published after all, or never came to be: a record of its destruction would be untrue.
        repository.drop_artefact(session, row.id)
        return False
    return _mark(session, row, now)


def _mark(session: Session, row: Version | Artefact, now: datetime) -> bool:
    if not repository.mark_destroyed(session, type(row), row.id, now):
        return False
    kind = "version" if isinstance(row, Version) else row.kind
    data = {"kind": kind, "model": row.model_id, "digest": row.digest, "job": row.job_id}
    audit.record(session, "artefact.destroyed", actor="sweeper", ref=row.id, data=data)
    return True


def _is_ours(path: Path) -> bool:
    home = get_settings().home.resolve()
    return path.resolve() != home and path.resolve().is_relative_to(home)
