"""Stage publish: the point of no return. One transaction checks the fence, moves the serving pointer, retires the old
version, writes the tombstones and the audit event."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.audit.models import AuditEvent
from service.catalogue.precisions import FULL
from service.database import clock, reading
from service.datasets import service as datasets
from service.deletion import lifecycle
from service.errors import JobError
from service.jobs import events, leases, service
from service.jobs.models import Attempt, Job
from service.registry import files, placement, pools
from service.registry import service as registry
from service.registry.manifests import describe_version
from service.registry.models import Model
from service.verification.release import PUBLISHED_STATES, by_other_rules
from workers.tasks.contamination import affected_by
from workers.tasks.work import Work

_OTHER_RULES = "judged by the rules of another version of the service"
_MOST_JUDGED_AGAIN = 2


def run(work: Work) -> None:
    """Publish the attempt that passed or was released. A crash anywhere in here is repaired by running it again."""
    chosen = _chosen(work)
    if _is_judged_again(work, chosen) or not _seal_requests(work, chosen):
        return
    weights = _prepare(work, chosen)
    affected = affected_by(work.model, work.forget_ids(), reserve=work.dataset.holdout_path is None)
    with work.fenced() as session:
        _switch(session, work, chosen, weights, affected)


def _chosen(work: Work) -> Attempt:
    """The attempt that a reviewer released, where one did, else the one that passed."""
    review, rows = work.job.review or {}, [row for row in work.attempts() if row.state in PUBLISHED_STATES]
    if review.get("kind") == "released":
        rows = [row for row in rows if row.number == review["attempt"]]
    if not rows:
        raise JobError("no attempt passed the gate; nothing was published")
    return rows[-1]


def _is_judged_again(work: Work, chosen: Attempt) -> bool:
    """Whether the job goes back, since the service was updated after a judgement and its rules are others now.

    The report holds every attempt, and its verifier judges each of them again. So it is not enough that the one to be
    published can be: with another by old rules, or with its files in their new place already, the ladder begins again.
    """
    old = [row.number for row in work.attempts() if row.verification and by_other_rules(row.verification)]
    if not old:
        return False
    named = ", ".join(map(str, old))
    why = f"{_OTHER_RULES}: attempt {named}"
    if _times_judged_again(work) >= _MOST_JUDGED_AGAIN:
        raise JobError(f"{why}, and again: the workers run other versions of the service; update them all, then retry")
    with work.fenced() as session:
        if old == [chosen.number] and Path(str(chosen.candidate_path)).is_dir():
            service.judge_again(session, chosen, why)
        else:
            service.restart(session, work.job.id, why)
    return True


def _times_judged_again(work: Work) -> int:
    again = AuditEvent.kind.in_(("attempt.unjudged", "job.restarted"))
    with reading() as session:
        events = list(session.scalars(select(AuditEvent).where(AuditEvent.ref == work.job.id, again)))
    return sum(str(event.data.get("why", "")).startswith(_OTHER_RULES) for event in events)


@dataclass(frozen=True)
class _Weights:
    """The candidate, checked, and where it goes; `row_id` announces that place."""

    candidate: Path
    home: Path
    digest: str
    manifest: dict[str, Any]
    row_id: str


class _ScopeChangedError(Exception):
    """A request was cancelled between resolve and publish; rolls the sealing back."""


def _seal_requests(work: Work, attempt: Attempt) -> bool:
    """From here on no request of the job can be cancelled; one that was, since resolve, sends the job back there.

    Before that the job waits for a reviewer where one is needed. False: it does not go on now.
    """
    expected = sorted((work.job.scope or {})["requests"])
    try:
        with work.fenced() as session:
            # Whoever cancels comes before this, or after it and finds whether the job waits for a reviewer.
            lifecycle.lock(session, expected)
            if service.requests_of(session, work.job.id) != expected:
                raise _ScopeChangedError
            if not _is_reviewed(work, attempt):
                service.hold(session, work.job.id, attempt.number)
                return False
            if sorted(lifecycle.seal_cancellation(session, expected)) != expected:
                raise _ScopeChangedError
    except _ScopeChangedError:
        with work.fenced() as session:
            service.restart(session, work.job.id, "a request was cancelled before publication")
        return False
    return True


def _is_reviewed(work: Work, attempt: Attempt) -> bool:
    """Whether no reviewer is needed, or one has decided on this very attempt."""
    needed = work.policy.approval.publication or attempt.state == "released"
    return not needed or (work.job.review or {}).get("attempt") == attempt.number


def _prepare(work: Work, attempt: Attempt) -> _Weights:
    """Check and announce the candidate; after a crash it may lie in its content-addressed home already."""
    digest = str(attempt.candidate_digest)
    home, candidate = registry.version_path(work.model.name, digest), Path(str(attempt.candidate_path))
    source = candidate if candidate.is_dir() else home
    listed = files.digest_directory(source) if source.is_dir() else {}
    if files.manifest_digest(listed) != digest:
        raise JobError("the candidate's files changed after verification; nothing was published, retry the request")
    files.flush_directory(source)
    manifest = describe_version(source, listed)
    with work.fenced() as session:
        row_id = placement.announce(session, home, digest=digest, model_id=work.model.id, job_id=work.job.id)
    return _Weights(candidate, home, digest, manifest, row_id)


def _switch(session: Session, work: Work, attempt: Attempt, weights: _Weights, affected: pools.Affected) -> None:
    job, now = work.job, clock(session)
    # Held: what it is served in, and which data it has, is compared with what was judged until the pointer has moved.
    model = session.get_one(Model, work.model.id, with_for_update={"key_share": True})
    if model.dataset_id != work.dataset.id:
        raise JobError("other data was registered for the model while the job ran; retry the request")
    judged = attempt.verification or {}
    if judged.get("basis") == "measurement" and judged.get("serve_precision", FULL) != model.serve_precision:
        raise JobError("the model is served in another precision than the candidate was judged in; retry the request")
    placement.land(session, weights.row_id, weights.candidate, weights.home)
    version = registry.publish_version(
        session,
        job_id=job.id,
        model_id=work.model.id,
        base_version_id=work.base.id,
        digest=weights.digest,
        path=weights.home,
        manifest=weights.manifest,
        method=attempt.method,
        verification=judged,
        destroy_after=work.policy.retention.destroy_retired_after_timedelta,
        now=now,
    )
    datasets.add_tombstones(session, work.model.id, job.id, work.forget_ids(), now)
    pools.forget(session, model=model, version=version, affected=affected, policy=work.policy, job_id=job.id, now=now)
    session.execute(update(Job).where(Job.id == job.id).values(new_version_id=version.id))
    events.emit(session, job.id, "stage", stage="publish", status="done", version=version.number)
    leases.move_on(session, job.id, "attest")
