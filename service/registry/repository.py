"""Rows of models, versions and artefacts."""

from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.catalogue.lineage import LINEAGE
from service.database import new_id
from service.errors import Conflict, NotFound
from service.registry.files import digest_file
from service.registry.models import Artefact, Model, Version
from service.settings import get_settings

JOB_FILES = "job-files"
"""Kind of the folder of a job: its forget set, candidates and score tables."""


def version_path(name: str, digest: str) -> Path:
    """Where a version of a model lies: content-addressed, so that placing it twice is harmless."""
    return get_settings().home / "models" / name / digest


def find_model(session: Session, name: str, *, held: bool = False) -> Model | None:
    """The model of this name, or None. `held`: as it is now, and nobody else changes it until the transaction ends."""
    query = select(Model).where(Model.name == name)
    if held:
        # NO KEY UPDATE, as for moving the pointer: rows that only refer to the model are still written.
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalar(query)


def get_model(session: Session, name: str, *, held: bool = False) -> Model:
    """The model of this name, as `find_model` answers it. Raises NotFound."""
    model = find_model(session, name, held=held)
    if model is None:
        raise NotFound(f"there is no model {name!r}")
    return model


def list_models(session: Session) -> list[Model]:
    """All models by name."""
    return list(session.scalars(select(Model).order_by(Model.name)))


def versions(session: Session, model_id: str) -> list[Version]:
    """All versions of a model, newest first."""
    return list(session.scalars(select(Version).where(Version.model_id == model_id).order_by(Version.number.desc())))


def get_version(session: Session, model: Model, number: int) -> Version:
    """Version `number` of a model. Raises NotFound."""
    query = select(Version).where(Version.model_id == model.id, Version.number == number)
    version = session.scalar(query) if 0 < number < 2**31 else None
    if version is None:
        raise NotFound(f"model {model.name!r} has no version {number}")
    return version


def serving_version(session: Session, model: Model) -> Version:
    """The version that answers predictions. Raises Conflict when there is none."""
    version = session.get(Version, model.serving_version_id) if model.serving_version_id else None
    if version is None:
        raise Conflict(f"model {model.name!r} serves no version")
    return version


def next_number(session: Session, model_id: str) -> int:
    """The number of the next version; call it after the pointer has moved, which serialises callers."""
    return (session.scalar(select(func.max(Version.number)).where(Version.model_id == model_id)) or 0) + 1


def move_pointer(session: Session, model_id: str, base_version_id: str | None, new_version_id: str) -> None:
    """Serve another version if the one expected is still served. Raises Conflict."""
    same = (
        Model.serving_version_id.is_(None) if base_version_id is None else Model.serving_version_id == base_version_id
    )
    moved = session.execute(update(Model).where(Model.id == model_id, same).values(serving_version_id=new_version_id))
    if _count(moved) != 1:
        raise Conflict("the model serves another version by now; nothing was changed")


def retire(session: Session, version_id: str, now: datetime, destroy_by: datetime | None) -> None:
    """Take a version out of service."""
    values = {"state": "retired", "retired_at": now, "destroy_by": destroy_by}
    session.execute(update(Version).where(Version.id == version_id).values(**values))


def condemn_job_files(session: Session, job_id: str, now: datetime) -> None:
    """A job has ended without a result: the next sweep destroys its forget set, candidates and scores."""
    left = update(Artefact).where(Artefact.job_id == job_id, Artefact.destroyed_at.is_(None))
    session.execute(left.values(destroy_by=now))


def date_job_files(session: Session, job_id: str, destroy_by: datetime | None) -> None:
    """Give the folder of a job another end, or none while it is open."""
    folder = update(Artefact).where(Artefact.job_id == job_id, Artefact.kind == JOB_FILES)
    session.execute(folder.where(Artefact.destroyed_at.is_(None)).values(destroy_by=destroy_by))


def condemn_retired(session: Session, model_id: str, destroy_by: datetime) -> None:
    """Give every retired version of a model, and its lineage, an end: it may hold what was just forgotten."""
    later = or_(Version.destroy_by.is_(None), Version.destroy_by > destroy_by)
    retired = update(Version).where(Version.model_id == model_id, Version.state == "retired", later)
    session.execute(retired.values(destroy_by=destroy_by))
    folders = select(Version.path.concat(f"/{LINEAGE}")).where(Version.model_id == model_id, Version.state == "retired")
    later = or_(Artefact.destroy_by.is_(None), Artefact.destroy_by > destroy_by)
    lineage = update(Artefact).where(Artefact.kind == LINEAGE, Artefact.path.in_(folders), later)
    session.execute(lineage.where(Artefact.destroyed_at.is_(None)).values(destroy_by=destroy_by))


def track_lineage(session: Session, version: Version, now: datetime) -> None:
    """Note what the training of a version left beside its weights: checkpoints, order log, canaries."""
    folder = Path(version.path) / LINEAGE
    known = select(Artefact.id).where(Artefact.path == str(folder), Artefact.destroyed_at.is_(None))
    if folder.is_dir() and session.scalar(known.limit(1)) is None:
        digest = digest_file(folder / "lineage.json") if (folder / "lineage.json").is_file() else None
        row = Artefact(id=new_id("art"), model_id=version.model_id, kind=LINEAGE, path=str(folder), digest=digest)
        row.created_at = now
        session.add(row)
        session.flush()


def doomed_versions(session: Session, now: datetime) -> list[Version]:
    """Retired versions whose date has come."""
    return list(session.scalars(select(Version).where(Version.state == "retired", Version.destroy_by <= now)))


def doomed_artefacts(session: Session, now: datetime) -> list[Artefact]:
    """Artefacts whose date has come."""
    return list(session.scalars(select(Artefact).where(Artefact.destroyed_at.is_(None), Artefact.destroy_by <= now)))


def lock_path(session: Session, path: Path) -> None:
    """Keep others from placing or destroying this directory until the transaction ends."""
    # SQLite needs nothing: every transaction that may write holds the only lock there is.
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(path), 0))))


def is_path_in_use(session: Session, path: Path, row_id: str, now: datetime) -> bool:
    """Whether another row answers for the directory, whose date has not come; two with equal content share it."""
    version = select(Version.id).where(Version.path == str(path), Version.id != row_id, Version.destroyed_at.is_(None))
    kept = or_(Artefact.destroy_by.is_(None), Artefact.destroy_by > now)
    artefact = select(Artefact.id).where(
        Artefact.path == str(path), Artefact.id != row_id, Artefact.destroyed_at.is_(None), kept
    )
    return any(session.scalar(query.limit(1)) is not None for query in (version, artefact))


def mark_destroyed(session: Session, table: type[Version] | type[Artefact], row_id: str, now: datetime) -> bool:
    """Note that the files are gone; False when another sweeper has noted it already."""
    values: dict[str, Any] = {"destroyed_at": now} | ({"state": "destroyed"} if table is Version else {})
    return (
        _count(session.execute(update(table).where(table.id == row_id, table.destroyed_at.is_(None)).values(**values)))
        == 1
    )


def drop_artefact(session: Session, row_id: str) -> bool:
    """Forget a row that has nothing to answer for any more; False when a sweeper was first."""
    gone = delete(Artefact).where(Artefact.id == row_id, Artefact.destroyed_at.is_(None))
    return _count(session.execute(gone)) == 1


def _count(result: Any) -> int:
    return int(result.rowcount)
