"""What still holds deleted records after a compaction, who has to destroy it, and until when."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import reading, transaction
from service.datasets import service as datasets
from service.datasets.compaction import Part
from service.datasets.models import Dataset
from service.datasets.places import flush
from service.datasets.records import known_ids
from service.datasets.sources import KINDS
from service.errors import BadDataset
from service.jobs.compaction import Compaction, earlier, others_of, overlap
from service.registry.models import Artefact, Version

OWNER, SERVICE = "owner", "service"


@dataclass(frozen=True)
class Remnant:
    """Something that holds deleted records, or was made from them; `by` says who destroys it, OWNER or SERVICE.

    `destroy_by` is null for what is the data owner's: it is to be destroyed now.
    """

    what: str
    path: str
    by: str
    ref: str | None = None
    destroy_by: datetime | None = None
    note: str | None = None


def remnants(done: Compaction) -> list[Remnant]:
    """What a person has to destroy now and the sweeper by its date; reads earlier data that still lies there."""
    with reading() as session:
        gone = datasets.tombstones(session, done.model.id)
        rows = earlier(session, done.model.id, done.after)
        others = others_of(session, done.model.id)
        dated = _of_service(session, done.model.id)
    found: dict[str, Remnant] = {}
    for row in rows:
        for path in filter(None, (row.path, row.holdout_path)):
            if path in found or path in (done.after.path, done.after.holdout_path):
                continue
            remnant = _of_owner(done, row, path, gone, others)
            if remnant is not None:
                found[path] = remnant
    images = sorted(str(file) for part in done.parts for file in part.survey.orphans if file.exists())
    return [*found.values(), *(Remnant("image of deleted", path, OWNER) for path in images), *dated]


def _of_owner(
    done: Compaction, row: Dataset, path: str, gone: set[str], others: Sequence[tuple[str, str]]
) -> Remnant | None:
    if not _has_data(Path(path)):
        return None
    shared = sorted({name for name, other in others if overlap(Path(path), Path(other))})
    note = f"also data of {', '.join(shared)}" if shared else None
    try:
        if not known_ids(Path(path), row.columns["record_id"], gone):
            return None
    except BadDataset:
        note = "cannot be read"
    what = {done.before.path: "old data", done.before.holdout_path: "old held-out set"}
    return Remnant(what.get(path, "earlier data"), path, OWNER, row.id, note=note)


def _has_data(path: Path) -> bool:
    return path.is_file() or any(file.suffix.lower() in KINDS for file in path.rglob("*"))


def _of_service(session: Session, model_id: str) -> list[Remnant]:
    """Whatever of the model has a date and is not destroyed yet, the earliest first."""
    versions = select(Version).where(Version.model_id == model_id, Version.destroyed_at.is_(None))
    artefacts = select(Artefact).where(Artefact.model_id == model_id, Artefact.destroyed_at.is_(None))
    found = [
        Remnant(f"version {row.number}", row.path, SERVICE, row.id, row.destroy_by)
        for row in session.scalars(versions.where(Version.destroy_by.is_not(None)))
    ]
    found += [
        Remnant(row.kind, row.path, SERVICE, row.id, row.destroy_by)
        for row in session.scalars(artefacts.where(Artefact.destroy_by.is_not(None)))
    ]
    return sorted(found, key=lambda remnant: (str(remnant.destroy_by), remnant.what, remnant.path))


def destroy_source(done: Compaction, actor: str = "local") -> list[Path]:
    """Delete the files that were rewritten, and image files that only deleted records named; answers those deleted.

    What was changed since it was read, is shared with another model or cannot be deleted is left, and `remnants` lists
    it. Files that are no data stay.
    """
    with reading() as session:
        others = [Path(path) for _, path in others_of(session, done.model.id)]
    deleted = [file for part in done.parts for file in _doomed(part, others) if _delete(file)]
    for part in done.parts:
        if part.survey.source.root.is_dir():
            _remove_empty(part.survey.source.root)
    with transaction() as session:
        data = {"model": done.model.id, "digest": done.before.digest, "files": len(deleted)}
        audit.record(session, "dataset.source_destroyed", actor=actor, ref=done.before.id, data=data)
    return deleted


def _doomed(part: Part, others: Sequence[Path]) -> list[Path]:
    source = part.survey.source
    if part.changed or any(overlap(source.root, other) for other in others):
        return []
    # Another table in the folder may name the same images.
    near = any(overlap(source.folder, other) for other in others)
    return [*source.files, *([] if near else sorted(part.survey.orphans))]


def _delete(file: Path) -> bool:
    """A link alone would leave the data where it points to."""
    with suppress(OSError):
        for path in dict.fromkeys((file.resolve(), file)):
            path.unlink(missing_ok=True)
            flush(path.parent)
        return True
    return False


def _remove_empty(root: Path) -> None:
    folders = sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True)
    for folder in [*folders, root]:
        with suppress(OSError):
            os.rmdir(folder)
