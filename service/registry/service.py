"""Models and versions: what intake knows of them, and the publish transaction."""

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import new_id, reading
from service.datasets.models import Dataset, Tombstone
from service.errors import Conflict
from service.registry import repository
from service.registry.destruction import (
    keep_job_files,
    mark_job_artefacts_destroyed,
    sweep_destroyed,
    track_artefact,
)
from service.registry.judged import refuse_unjudged
from service.registry.manifests import describe_version
from service.registry.models import Model, Version
from service.registry.pools import pool_of
from service.registry.registration import register_model
from service.registry.repository import (
    JOB_FILES,
    condemn_job_files,
    get_model,
    get_version,
    list_models,
    serving_version,
    version_path,
    versions,
)
from service.settings import get_settings

__all__ = [
    "JOB_FILES",
    "IntakeModel",
    "activate",
    "condemn_job_files",
    "get_model",
    "get_version",
    "intake_models",
    "keep_job_files",
    "list_models",
    "mark_job_artefacts_destroyed",
    "model_ids",
    "pool_of",
    "publish_version",
    "register_model",
    "serving_version",
    "sweep_destroyed",
    "track_artefact",
    "version_path",
    "versions",
]

INTAKE_SECONDS = 1.0


@dataclass(frozen=True)
class IntakeModel:
    """What intake needs of a model: its further identifier types, and whether a reviewer comes first."""

    id: str
    name: str
    approval: bool
    identifier_types: frozenset[str]


class _IntakeCache:
    """Model rows of the last second, so that intake does not ask the database for them each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, IntakeModel] = {}
        self._key: object = None
        self._until = 0.0

    def get(self, refresh: bool) -> dict[str, IntakeModel]:
        key = get_settings().database_url
        if not refresh and self._key == key and time.monotonic() < self._until:
            return self._models
        with self._lock:
            if refresh or self._key != key or time.monotonic() >= self._until:
                self._models, self._key = _read_intake_models(), key
                self._until = time.monotonic() + INTAKE_SECONDS
            return self._models


def _read_intake_models() -> dict[str, IntakeModel]:
    query = select(Model.id, Model.name, Model.policy, Dataset.identifiers).join(
        Dataset, Dataset.id == Model.dataset_id
    )
    with reading() as session:
        rows = session.execute(query.order_by(Model.name)).all()
    return {
        row.name: IntakeModel(
            row.id, row.name, bool(row.policy.get("approval", {}).get("required")), frozenset(row.identifiers)
        )
        for row in rows
    }


_intake = _IntakeCache()


def intake_models(*, refresh: bool = False) -> dict[str, IntakeModel]:
    """Registered models by name, at most a second old."""
    return _intake.get(refresh)


def model_ids(session: Session) -> set[str]:
    """Ids of all models as this transaction sees them."""
    return set(session.connection().scalars(_MODEL_IDS))


_MODEL_IDS = select(Model.__table__.c.id)


def publish_version(
    session: Session,
    *,
    job_id: str,
    model_id: str,
    base_version_id: str,
    digest: str,
    path: Path,
    method: str,
    verification: dict[str, Any],
    destroy_after: timedelta,
    now: datetime,
    manifest: dict[str, Any] | None = None,
) -> Version:
    """Serve a job's candidate: pointer, new version, retirement and audit event, in the caller's transaction.

    Every retired version of the model gets a destroy-by date. `manifest` is read from `path` when absent. Raises
    Conflict when another version has come to serve since the job began.
    """
    version_id, destroy_by = new_id("ver"), now + destroy_after
    repository.move_pointer(session, model_id, base_version_id, version_id)
    version = Version(
        id=version_id,
        model_id=model_id,
        number=repository.next_number(session, model_id),
        parent_id=base_version_id,
        digest=digest,
        path=str(path),
        state="serving",
        method=method,
        job_id=job_id,
        manifest=manifest if manifest is not None else describe_version(path),
        verification=verification,
        created_at=now,
        published_at=now,
    )
    session.add(version)
    session.flush()
    repository.track_lineage(session, version, now)
    repository.retire(session, base_version_id, now, destroy_by)
    repository.condemn_retired(session, model_id, destroy_by)
    data = _publication(version) | {"base_destroy_by": audit.timestamp(destroy_by)}
    audit.record(session, "version.published", actor="worker", ref=version_id, data=data)
    return version


def _publication(version: Version) -> dict[str, Any]:
    """What the audit event says; the report's verifier reads the same keys."""
    verification = version.verification or {}
    return {
        "model": version.model_id,
        "number": version.number,
        "digest": version.digest,
        "base": version.parent_id,
        "job": version.job_id,
        "method": version.method,
        "verdict": verification.get("verdict"),
        "grade": verification.get("grade"),
    }


def activate(session: Session, name: str, number: int, actor: str, now: datetime) -> Version:
    """Serve a retired version again. Raises Conflict when it may hold what the model has been made to forget, or was
    judged by measurement in another precision than the model is served in."""
    model = get_model(session, name, held=True)
    version = get_version(session, model, number)
    if version.state == "serving":
        return version
    _refuse_tainted(session, model, version)
    refuse_unjudged(session, version.manifest, model.serve_precision)
    base = model.serving_version_id
    repository.move_pointer(session, model.id, base, version.id)
    if base is not None:
        repository.retire(session, base, now, None)
    version.state, version.retired_at, version.published_at = "serving", None, now
    data = {"model": model.id, "number": version.number, "digest": version.digest, "base": base}
    audit.record(session, "version.activated", actor=actor, ref=version.id, data=data)
    return version


def _refuse_tainted(session: Session, model: Model, version: Version) -> None:
    label = f"version {version.number} of {model.name!r}"
    if version.state != "retired":
        raise Conflict(f"{label} is {version.state}; only a retired version can be served again")
    later = select(Tombstone.id).where(Tombstone.model_id == model.id, Tombstone.created_at > version.created_at)
    if version.destroy_by is not None or session.scalar(later.limit(1)) is not None:
        raise Conflict(f"{label} was retired by a deletion and may hold records that were to be forgotten")
    if _data_since(session, model) > version.created_at:
        raise Conflict(f"{label} was trained on data that has been replaced; register it again with its data")


def _data_since(session: Session, model: Model) -> datetime:
    """Since when the model has had its data: a compaction only left out what was deleted."""
    dataset = session.get_one(Dataset, model.dataset_id)
    while (former := session.get(Dataset, dataset.details.get("compacted_from", ""))) is not None:
        dataset = former
    return dataset.created_at
