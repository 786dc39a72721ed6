"""Stage resolve: which records are theirs. Leaves the forget set as a file, or an honest answer where there is none."""

import json
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select, update

from service.audit import service as audit
from service.database import clock, reading
from service.datasets import index
from service.datasets import service as datasets
from service.datasets.models import Tombstone
from service.datasets.records import open_records
from service.deletion import lifecycle
from service.errors import Cancelled, JobError
from service.jobs import events, leases, service
from service.jobs.models import Job
from service.registry import pools
from service.registry import service as registry
from service.registry.files import digest_file, write_atomic
from workers.lineage.reserve import reserve_of
from workers.tasks.contamination import affected_by
from workers.tasks.materials import refuse_changed_data
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Look up every request's records, leave out tombstoned ones, store the union as the job's forget set.

    The set also names records of the reserve, which no training has seen: they are tombstoned with the others.
    """
    with reading() as session:
        request_ids = service.requests_of(session, work.job.id)
        subjects = lifecycle.open_subjects(session, request_ids)
        gone = select(Tombstone.record_id).where(Tombstone.model_id == work.model.id)
        tombstones = set(session.scalars(gone))
        # Data registered later holds no tombstoned record (registration refuses it), so only later ones count.
        inside = len(list(session.scalars(gone.where(Tombstone.created_at >= work.dataset.created_at))))
    if not request_ids:
        raise Cancelled("every request of the job was cancelled")
    refuse_changed_data(work)
    found = index.find_many(work.dataset, subjects)
    everything = sorted(set().union(*found.values()) - tombstones)
    reserve = reserve_of(Path(work.base.path))
    trained = [name for name in everything if name not in reserve]
    if trained and len(trained) >= work.dataset.records - inside - len(reserve - tombstones):
        raise JobError("the requests cover every record of the dataset; retire the model instead of unlearning it")
    scope: dict[str, object] = {
        "records": len(trained),
        # Records of the reserve were never trained on: nothing is to be unlearned, but no later training may see them.
        "reserved": len(everything) - len(trained),
        "subjects": _subjects(work, trained),
        "requests": {key: _answer(found[key], tombstones, reserve) for key in request_ids},
        "dataset_id": work.dataset.id,
        "dataset_records": work.dataset.records,
        "tombstones": inside,
    }
    _store(work, everything, scope)


def _answer(found: Iterable[str], tombstones: set[str], reserve: set[str]) -> dict[str, object]:
    records = set(found)
    live = records - tombstones - reserve
    # Never trained on is as good as not there, unless the model was made to forget others of theirs.
    outcome = None if live else ("already_deleted" if records & tombstones else "no_records")
    return {"records": len(live), "outcome": outcome}


def _subjects(work: Work, forget: list[str]) -> int:
    if not forget:
        return 0
    table = open_records(Path(work.dataset.path), work.dataset.task, work.dataset.columns)
    return len(set(table.subjects[table.rows_of(forget)].tolist()))


def _write_forget_set(work: Work, forget: list[str]) -> dict[str, object]:
    """A file of this claim's own: one that lost its lease cannot overwrite what another claim has resolved."""
    with work.fenced() as session:
        registry.track_artefact(
            session, model_id=work.model.id, job_id=work.job.id, kind=registry.JOB_FILES, path=work.directory
        )
    path = work.directory / f"forget-{work.claim.fence}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(forget).encode(), mode=0o600)
    return {"forget_file": path.name, "forget_digest": digest_file(path)}


def _store(work: Work, everything: list[str], scope: dict[str, object]) -> None:
    if scope["records"]:
        scope = scope | _write_forget_set(work, everything)
    alone = everything if not scope["records"] else []
    affected = affected_by(work.model, alone, reserve=True)
    with work.fenced() as session:
        job_id, now = work.job.id, clock(session)
        session.execute(update(Job).where(Job.id == job_id).values(scope=scope))
        if alone:  # nothing will be published, and references may have scored the reserve
            datasets.add_tombstones(session, work.model.id, job_id, alone, now)
            pools.forget(session, model=work.model, affected=affected, policy=work.policy, job_id=job_id, now=now)
        data = {"records": scope["records"], "subjects": scope["subjects"]}
        audit.record(session, "job.resolved", actor="worker", ref=job_id, data=data)
        events.emit(session, job_id, "stage", stage="resolve", status="done", **data)
        # With nothing to forget there is nothing to plan, unlearn or publish: the answer itself is the result.
        leases.move_on(session, job_id, "plan" if scope["records"] else "attest")
