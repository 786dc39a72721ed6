"""Stage publish: the point of no return. One transaction checks the fence, moves the serving pointer, retires the old
version, writes the tombstones and the audit event."""

from pathlib import Path

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.database import clock
from service.datasets import service as datasets
from service.deletion import lifecycle
from service.errors import JobError
from service.jobs import events, leases, service
from service.jobs.models import Attempt, Job
from service.registry import files
from service.registry import service as registry
from service.registry.models import Model
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Publish the attempt that passed. A crash anywhere in here is repaired by running it again."""
    passed = [row for row in work.attempts() if row.state == "passed"]
    if not passed:
        raise JobError("no attempt passed the gate; nothing was published")
    if not _seal_requests(work):
        return
    attempt = passed[-1]
    path = _place(work, attempt)
    with work.fenced() as session:
        _switch(session, work, attempt, path)


class _ScopeChangedError(Exception):
    """A request was cancelled between resolve and publish; rolls the sealing back."""


def _seal_requests(work: Work) -> bool:
    """From here on no request of the job can be cancelled; one that was, since resolve, sends the job back there."""
    expected = sorted((work.job.scope or {})["requests"])
    try:
        with work.fenced() as session:
            live = service.requests_of(session, work.job.id)
            if live != expected or sorted(lifecycle.seal_cancellation(session, expected)) != expected:
                raise _ScopeChangedError
    except _ScopeChangedError:
        with work.fenced() as session:
            service.restart(session, work.job.id, "a request was cancelled before publication")
        return False
    return True


def _place(work: Work, attempt: Attempt) -> Path:
    """Move the candidate to its content-addressed home; already there after a crash is fine."""
    digest = str(attempt.candidate_digest)
    home = registry.version_path(work.model.name, digest)
    candidate = Path(str(attempt.candidate_path))
    if not home.is_dir():
        if files.manifest_digest(files.digest_directory(candidate)) != digest:
            raise JobError("the candidate's files changed after verification; nothing was published, retry the request")
        files.publish_directory(candidate, home)
    return home


def _switch(session: Session, work: Work, attempt: Attempt, path: Path) -> None:
    job, now = work.job, clock(session)
    model = session.get_one(Model, work.model.id)
    if model.dataset_id != work.dataset.id:
        raise JobError("other data was registered for the model while the job ran; retry the request")
    version = registry.publish_version(
        session,
        job_id=job.id,
        model_id=work.model.id,
        base_version_id=work.base.id,
        digest=str(attempt.candidate_digest),
        path=path,
        method=attempt.method,
        verification=attempt.verification or {},
        destroy_after=work.policy.retention.destroy_retired_after_timedelta,
        now=now,
    )
    datasets.add_tombstones(session, work.model.id, job.id, work.forget_ids(), now)
    session.execute(update(Job).where(Job.id == job.id).values(new_version_id=version.id))
    events.emit(session, job.id, "stage", stage="publish", status="done", version=version.number)
    leases.move_on(session, job.id, "attest")
