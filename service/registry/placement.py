"""Trained weights on the way to a version's place: first a row with a date, then the directory, then the version.

Whoever brings weights announces where they will land, in a transaction of its own. The publishing transaction takes
the lock of the place, renames the directory into it and drops the row, since the version answers for it from then on.
Whatever ends in between (a crash, a conflict, a lost lease) leaves the row, and the sweeper destroys what it names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.database import clock, new_id, transaction
from service.errors import Conflict
from service.registry import files, repository
from service.registry.models import Artefact

UNPUBLISHED = "unpublished-version"
GRACE = timedelta(days=1)
"""From the announcement to the publication; a failing caller withdraws at once, so only a crash uses it up."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Incoming:
    """A complete, flushed copy of a directory, not yet in its place; `row_id` announces the place."""

    draft: Path
    home: Path
    digest: str
    listed: dict[str, str]
    row_id: str


def announce(
    session: Session, home: Path, *, digest: str | None = None, model_id: str | None = None, job_id: str | None = None
) -> str:
    """Note that weights are about to land at `home`; answers the row's id. A job that does it again moves the date."""
    repository.lock_path(session, home)
    now = clock(session)
    mine = select(Artefact).where(Artefact.job_id == job_id, Artefact.kind == UNPUBLISHED, Artefact.path == str(home))
    row = session.scalar(mine.where(Artefact.destroyed_at.is_(None))) if job_id is not None else None
    if row is None:
        row = Artefact(
            id=new_id("art"), kind=UNPUBLISHED, path=str(home), digest=digest, model_id=model_id, job_id=job_id
        )
        row.created_at = now
        session.add(row)
    row.destroy_by = now + GRACE
    session.flush()
    return row.id


def land(session: Session, row_id: str, draft: Path, home: Path) -> None:
    """Within the publishing transaction: rename the draft to its place, where the version's row answers for it.

    A place that holds the directory already keeps it. Raises Conflict when a sweeper has destroyed it meanwhile.
    """
    repository.lock_path(session, home)
    if not repository.drop_artefact(session, row_id):
        raise Conflict("the directory was not published within a day and has been destroyed; try again")
    if not home.is_dir():
        if not draft.is_dir():
            raise Conflict("the directory that was to be published is gone; try again")
        files.place_directory(draft, home)


@contextmanager
def incoming(name: str, source: Path) -> Iterator[Incoming]:
    """Copy a directory beside the place that its content gives it in the line of models `name`, to `land` it there.

    What has not landed when the block ends is destroyed: the draft at once, a place by the next sweep.
    """
    draft = files.draft_beside(repository.version_path(name, "new"))
    rows = [_announced(draft, None)]
    try:
        files.copy_directory(source, draft)
        listed = files.digest_directory(draft)
        digest = files.manifest_digest(listed)
        home = repository.version_path(name, digest)
        rows.append(_announced(home, digest))
        yield Incoming(draft, home, digest, listed, rows[-1])
    finally:
        _withdraw(rows, draft)


def _announced(path: Path, digest: str | None) -> str:
    with transaction() as session:
        return announce(session, path, digest=digest)


def _withdraw(rows: list[str], draft: Path) -> None:
    try:
        files.remove(draft)
        with transaction() as session:
            for row_id in rows:
                _settle(session, row_id)
    except (OSError, SQLAlchemyError) as error:
        # The block's own outcome counts more, and the rows still have their date.
        log.warning("placement.not_withdrawn", reason=type(error).__name__)


def _settle(session: Session, row_id: str) -> None:
    row = session.get(Artefact, row_id)
    if row is None:
        return
    path, now = Path(row.path), clock(session)
    repository.lock_path(session, path)
    if not path.exists() or repository.is_path_in_use(session, path, row_id, now):
        repository.drop_artefact(session, row_id)
    else:
        row.destroy_by = now
