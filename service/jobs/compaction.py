"""Compaction: a model's data is rewritten without what it was made to forget, and what still holds that is listed.

It changes nothing that a later training sees: the tombstones stay, and so does the order of the records. They have to
stay: the plans of reference pools and the reserve name deleted records, and a copy of the old data or an old model
directory may come back at any time; the service cannot know that the last one is gone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.audit import service as audit
from service.database import clock, reading, transaction
from service.datasets import service as datasets
from service.datasets.compaction import Part, Ready, check_places, compacting
from service.datasets.models import Dataset, Tombstone
from service.datasets.survey import Watch
from service.errors import Conflict
from service.jobs.leases import OPEN
from service.jobs.models import Job
from service.registry import pools, repository
from service.registry import service as registry
from service.registry.models import Model

INDEX = "subject-index"
"""Kind of artefact: the keyed pseudonyms of a dataset that has been replaced."""


@dataclass(frozen=True)
class Compaction:
    """What was done: the rows before and after, how many records went, and how many tombstones stay as a guard."""

    model: Model
    before: Dataset
    after: Dataset
    removed: int
    holdout_removed: int
    tombstones: int
    parts: Sequence[Part]


def compact(
    name: str,
    out: Path,
    holdout_out: Path | None = None,
    *,
    actor: str = "local",
    watch: Watch = lambda _: None,
    exclusive: bool = False,
) -> Compaction:
    """Rewrite the data of a model to `out` and register it there, or change nothing.

    `exclusive`: the old files are going to be destroyed, so nobody else may need them. Raises NotFound, Conflict while
    a job of the model is open, where nothing is to be compacted and where the model changed meanwhile; BadParameters
    for a place that cannot be taken; BadDataset for data that was changed.
    """
    with reading() as session:
        model = repository.get_model(session, name)
        before = session.get_one(Dataset, model.dataset_id)
        gone = datasets.tombstones(session, model.id)
        doomed = _doomed(before, holdout_out is not None) if exclusive else []
        _refuse_busy(session, model, doomed)
        others = others_of(session, model.id)
    check_places(before, out, holdout_out, [Path(path) for _, path in others])
    if not gone:
        raise Conflict(f"nothing to compact: {name!r} was not made to forget anything")
    with compacting(before, gone, out, holdout_out, watch) as ready:
        try:
            with transaction() as session:
                after = _register(session, model, before, gone, ready, doomed, actor)
        except BaseException:
            ready.kept = _is_registered(ready)
            raise
        ready.kept = True
    holdout_removed = ready.holdout.survey.removed if ready.holdout is not None else 0
    return Compaction(model, before, after, ready.data.survey.removed, holdout_removed, len(gone), ready.parts)


def _doomed(dataset: Dataset, with_holdout: bool) -> list[Path]:
    paths = [dataset.path, dataset.holdout_path if with_holdout else None]
    return [Path(path) for path in paths if path is not None]


def _refuse_busy(session: Session, model: Model, doomed: Sequence[Path]) -> None:
    job = session.scalar(select(Job).where(Job.model_id == model.id, Job.status.in_(OPEN)))
    if job is not None:
        raise Conflict(f"job {job.id} of {model.name!r} is {job.status}; compact the data when it has ended")
    if doomed:
        _refuse_shared(session, model, doomed)


def others_of(session: Session, model_id: str) -> list[tuple[str, str]]:
    """(name of the model, path) of everything that is registered for other models, training data and held-out sets."""
    query = select(Model.name, Dataset.path, Dataset.holdout_path).join(Dataset, Dataset.id == Model.dataset_id)
    rows = session.execute(query.where(Model.id != model_id).order_by(Model.name))
    return [(name, path) for name, *paths in rows for path in paths if path is not None]


def _refuse_shared(session: Session, model: Model, doomed: Sequence[Path]) -> None:
    """Files that are to be destroyed must be wanted by nobody else."""
    for name, path in others_of(session, model.id):
        for own in doomed:
            if overlap(own, Path(path)):
                raise Conflict(f"{own}: is data of {name!r} too; leave out --destroy-source, or compact that one first")
    pool = pools.live_pool(session, model.id)
    members = pools.members_of(session, pool.id) if pool is not None else []
    if (pool is not None and pool.owner is not None) or any(member.state == "running" for member in members):
        raise Conflict(
            f"references of {model.name!r} are being made from the data; wait, or leave --destroy-source out"
        )


def overlap(one: Path, other: Path) -> bool:
    """Whether one lies in the other, or they are the same."""
    first, second = one.resolve(), other.resolve()
    return first.is_relative_to(second) or second.is_relative_to(first)


def _register(
    session: Session,
    model: Model,
    before: Dataset,
    gone: Collection[str],
    ready: Ready,
    doomed: Sequence[Path],
    actor: str,
) -> Dataset:
    """With the model's row held, so that no job begins meanwhile; the copies get their places last of all."""
    query = select(Model).where(Model.id == model.id).with_for_update()
    held = session.scalars(query.execution_options(populate_existing=True)).one()
    _refuse_busy(session, held, doomed)
    if held.dataset_id != before.id or datasets.tombstones(session, held.id) != set(gone):
        raise Conflict(f"{held.name!r} has other data, or has forgotten further records, by now; try again")
    now = clock(session)
    after = datasets.store(session, ready.prepared, now)
    after.details = after.details | {"compacted_from": before.id}
    held.dataset_id = after.id
    _rebind_references(session, held, before, after, actor, now)
    for row in earlier(session, held.id, after):
        folder = Path(row.index_path).parent
        if folder.is_dir():
            registry.track_artefact(session, model_id=held.id, job_id=None, kind=INDEX, path=folder, destroy_by=now)
    data: dict[str, Any] = {"model": held.id, "before": before.digest, "after": after.digest}
    data |= {"records": after.records, "removed": ready.data.survey.removed, "tombstones": len(gone)}
    if ready.holdout is not None:
        data |= {"holdout": after.holdout_digest, "holdout_removed": ready.holdout.survey.removed}
    audit.record(session, "dataset.compacted", actor=actor, ref=after.id, data=data)
    session.flush()
    ready.put()
    return after


def _rebind_references(
    session: Session, model: Model, before: Dataset, after: Dataset, actor: str, now: datetime
) -> None:
    """The pool goes on with the same people's records at the new place.

    `dataset_digest` stays: it is what the pool was planned with, as its files and its members say.
    """
    pool = pools.live_pool(session, model.id)
    if pool is None:
        return
    if before.holdout_digest != after.holdout_digest:
        pools.end_pool(session, model, now, actor=actor, why="the held-out set was rewritten")
        return
    pools.hold(session, pool.id).dataset_id = after.id


def _is_registered(ready: Ready) -> bool:
    """Whether a commit that failed took effect after all: where that cannot be known, a copy too many is better."""
    if not ready.placed:
        return False
    try:
        with reading() as session:
            return session.get(Dataset, ready.prepared.id) is not None
    except SQLAlchemyError:
        return True


def earlier(session: Session, model_id: str, current: Dataset) -> list[Dataset]:
    """Data that the model had before: whatever a job has looked up records in, or was compacted."""
    scopes = session.scalars(select(Job.scope).where(Job.model_id == model_id))
    ids = {str(scope["dataset_id"]) for scope in scopes if scope and "dataset_id" in scope}
    row: Dataset | None = current
    while row is not None and (former := row.details.get("compacted_from")) is not None:
        ids.add(former)
        row = session.get(Dataset, former)
    return list(session.scalars(select(Dataset).where(Dataset.id.in_(ids - {current.id})).order_by(Dataset.id)))


def overview(session: Session) -> list[dict[str, Any]]:
    """The data of each model by name, with its tombstones and how many of them still lie in the data."""
    found = []
    for model in repository.list_models(session):
        row = session.get_one(Dataset, model.dataset_id)
        mine = select(func.count()).select_from(Tombstone).where(Tombstone.model_id == model.id)
        found.append(
            {
                "model": model.name,
                "dataset": row.id,
                "path": row.path,
                "holdout_path": row.holdout_path,
                "digest": row.digest,
                "records": row.records,
                "subjects": row.subjects,
                "tombstones": session.scalar(mine) or 0,
                # Data is registered without any, so those in it are the ones that came later.
                "deleted_records": session.scalar(mine.where(Tombstone.created_at >= row.created_at)) or 0,
                "registered_at": audit.timestamp(row.created_at),
            }
        )
    return found
