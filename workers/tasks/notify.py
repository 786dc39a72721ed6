"""Stage notify: tell the world, and destroy what only the job needed. Nothing here can fail a finished request."""

from sqlalchemy import select

from service.audit import service as audit
from service.database import clock
from service.deletion.models import DeletionRequest
from service.jobs import events, leases, service
from service.notify import outbox
from service.registry import files
from service.registry import service as registry
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Put callbacks into the outbox, end the job, destroy forget set, candidates and per-record scores."""
    files.remove(work.directory)
    with work.fenced() as session:
        job = service.get_job(session, work.job.id)
        registry.mark_job_artefacts_destroyed(session, job.id, clock(session))
        requests = service.requests_of(session, job.id)
        callbacks = select(DeletionRequest.id).where(DeletionRequest.id.in_(requests))
        for request_id in session.scalars(callbacks.where(DeletionRequest.callback_url.is_not(None))):
            outbox.put(session, outbox.WEBHOOK, request_id)
        leases.finish(session, job.id, "completed", progress=1.0, error=None)
        audit.record(session, "job.completed", actor="worker", ref=job.id, data={"requests": len(requests)})
        events.emit(session, job.id, "done", status="completed", verdict=job.verdict, grade=job.grade)
