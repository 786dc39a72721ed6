"""Stage resolve: which records are theirs. Leaves the forget set as a file, or an honest answer where there is none."""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select, update

from service.audit import service as audit
from service.database import reading
from service.datasets import index
from service.datasets.models import Tombstone
from service.datasets.records import open_records
from service.deletion import lifecycle
from service.errors import Cancelled, JobError
from service.jobs import events, leases, service
from service.jobs.models import Job
from service.registry import service as registry
from service.registry.files import write_atomic
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Look up every request's records, leave out tombstoned ones, store the union as the job's forget set."""
    with reading() as session:
        request_ids = service.requests_of(session, work.job.id)
        subjects = lifecycle.open_subjects(session, request_ids)
        tombstones = set(session.scalars(select(Tombstone.record_id).where(Tombstone.model_id == work.model.id)))
    if not request_ids:
        raise Cancelled("every request of the job was cancelled")
    found = index.find_many(work.dataset, subjects)
    forget = sorted(set().union(*found.values()) - tombstones)
    requests = {key: _answer(found[key], tombstones) for key in request_ids}
    scope = {"records": len(forget), "subjects": _subjects(work, forget), "requests": requests}
    scope |= {"dataset_records": work.dataset.records, "tombstones": len(tombstones)}
    if len(forget) >= work.dataset.records - len(tombstones):
        raise JobError("the requests cover every record of the dataset; retire the model instead of unlearning it")
    _store(work, forget, scope)


def _answer(found: Iterable[str], tombstones: set[str]) -> dict[str, object]:
    records = set(found)
    live = records - tombstones
    outcome = None if live else ("already_deleted" if records else "no_records")
    return {"records": len(live), "outcome": outcome}


def _subjects(work: Work, forget: list[str]) -> int:
    if not forget:
        return 0
    table = open_records(Path(work.dataset.path), work.dataset.task, work.dataset.columns)
    return len(set(table.subjects[table.rows_of(forget)].tolist()))


def _store(work: Work, forget: list[str], scope: dict[str, object]) -> None:
    if forget:
        work.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(work.forget_file, ("\n".join(forget) + "\n").encode())
    with work.fenced() as session:
        job_id = work.job.id
        session.execute(update(Job).where(Job.id == job_id).values(scope=scope))
        if forget:
            registry.track_artefact(
                session, model_id=work.model.id, job_id=job_id, kind="job-files", path=work.directory
            )
        data = {"records": scope["records"], "subjects": scope["subjects"]}
        audit.record(session, "job.resolved", actor="worker", ref=job_id, data=data)
        events.emit(session, job_id, "stage", stage="resolve", status="done", **data)
        # With nothing to forget there is nothing to plan, unlearn or publish: the answer itself is the result.
        leases.move_on(session, job_id, "plan" if forget else "attest")
