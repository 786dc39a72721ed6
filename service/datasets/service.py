"""Registered datasets and the records that no later training may see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database import new_id
from service.datasets.checks import DatasetFacts, check_records
from service.datasets.index import build_index
from service.datasets.models import Dataset, Tombstone
from service.datasets.records import known_ids
from service.datasets.sources import dataset_digest
from service.settings import get_settings


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that has been read, checked and indexed, and awaits its row."""

    id: str
    task: str
    path: Path
    digest: str
    holdout_path: Path | None
    holdout_digest: str | None
    identifiers: dict[str, str]
    facts: DatasetFacts
    holdout_facts: DatasetFacts | None
    index_path: Path


def prepare(
    task: str,
    data: Path,
    holdout: Path | None,
    columns: dict[str, str],
    identifiers: dict[str, str],
    num_labels: int | None = None,
) -> PreparedDataset:
    """Check and index a dataset and its held-out set; touches no database. Raises BadDataset.

    `num_labels` is given where the model has more labels than these records show. The index file of a preparation that
    is never stored stays behind, a few pseudonyms without a row.
    """
    facts = check_records(data, task, columns, identifiers, num_labels)
    if num_labels is not None:
        facts = replace(facts, largest_label=num_labels - 1)
    holdout_facts = check_records(holdout, task, facts.columns, {}, facts.num_labels) if holdout is not None else None
    dataset_id = new_id("dst")
    index_path = get_settings().home / "datasets" / dataset_id / "index.parquet"
    build_index(data, task, facts.columns, identifiers, index_path)
    return PreparedDataset(
        id=dataset_id,
        task=task,
        path=data.absolute(),
        digest=dataset_digest(data),
        holdout_path=holdout.absolute() if holdout is not None else None,
        holdout_digest=dataset_digest(holdout) if holdout is not None else None,
        identifiers=identifiers,
        facts=facts,
        holdout_facts=holdout_facts,
        index_path=index_path,
    )


def store(session: Session, prepared: PreparedDataset, now: datetime) -> Dataset:
    """The row of a prepared dataset."""
    facts = prepared.facts
    dataset = Dataset(
        id=prepared.id,
        task=prepared.task,
        path=str(prepared.path),
        digest=prepared.digest,
        holdout_path=str(prepared.holdout_path) if prepared.holdout_path else None,
        holdout_digest=prepared.holdout_digest,
        columns=facts.columns,
        identifiers=prepared.identifiers,
        index_path=str(prepared.index_path),
        records=facts.records,
        subjects=facts.subjects,
        holdout_records=prepared.holdout_facts.records if prepared.holdout_facts else 0,
        details={"files": facts.files, "num_labels": facts.num_labels},
        created_at=now,
    )
    session.add(dataset)
    session.flush()
    return dataset


def is_same(dataset: Dataset, prepared: PreparedDataset) -> bool:
    """Whether a prepared dataset says nothing that the row does not say already."""
    ours: tuple[Any, ...] = (dataset.digest, dataset.holdout_digest, dataset.columns, dataset.identifiers, dataset.path)
    theirs = (
        prepared.digest,
        prepared.holdout_digest,
        prepared.facts.columns,
        prepared.identifiers,
        str(prepared.path),
    )
    return ours == theirs


def tombstones(session: Session, model_id: str) -> set[str]:
    """Record ids that this model has been made to forget."""
    return set(session.scalars(select(Tombstone.record_id).where(Tombstone.model_id == model_id)))


def add_tombstones(session: Session, model_id: str, job_id: str, record_ids: Iterable[str], now: datetime) -> int:
    """Mark records as forgotten, in the transaction that publishes; those marked before stay as they are."""
    known = tombstones(session, model_id)
    rows = [
        {"model_id": model_id, "record_id": record_id, "job_id": job_id, "created_at": now}
        for record_id in dict.fromkeys(record_ids)
        if record_id not in known
    ]
    if rows:
        session.connection().execute(Tombstone.__table__.insert(), rows)  # type: ignore[attr-defined]
    return len(rows)


def forgotten_in(path: Path, column: str, forgotten: Sequence[str] | set[str]) -> int:
    """How many of the forgotten records a dataset still holds."""
    return len(known_ids(path, column, forgotten)) if forgotten else 0
