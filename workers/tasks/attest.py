"""Stage attest: the evidence of the job, and a report for every request whose last model has answered."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import update
from sqlalchemy.orm import Session

from service.catalogue.lineage import LINEAGE
from service.database import clock, reading
from service.datasets import service as datasets
from service.deletion import lifecycle, repository
from service.deletion.models import DeletionRequest, RequestTarget
from service.deletion.states import FINAL
from service.jobs import events, leases, service
from service.registry import service as registry
from service.registry.models import Version
from service.reports import service as reports
from service.reports.facts import RequestFacts, TargetFacts
from service.reports.schema import Outcome
from workers.lineage.reserve import forget_reserved
from workers.tasks.evidence import evidence_of, score_files
from workers.tasks.work import Work


def run(work: Work) -> None:
    """Write evidence, answer each request, and go on. Every step may be repeated after a crash."""
    if work.job.new_version_id is None:
        _clear_reserves(work)
    published = _publication(work)
    reports.write_job_evidence(evidence_of(work), score_files(work))
    with reading() as session:
        request_ids = service.requests_of(session, work.job.id)
    for request_id in request_ids:
        _answer(work, request_id, published)
    for request_id in request_ids:
        _complete(work, request_id)
    with work.fenced() as session:
        events.emit(session, work.job.id, "stage", stage="attest", status="done", reports=len(request_ids))
        leases.move_on(session, work.job.id, "notify")


def _clear_reserves(work: Work) -> None:
    """Nothing is published that would leave them out, so the versions' lists of the reserve lose the deleted now.

    The tombstones are committed: whatever reads a list from here on, or has read it before, leaves them out anyhow.
    """
    with work.fenced() as session:
        gone = datasets.tombstones(session, work.model.id)
        for version in registry.versions(session, work.model.id):
            with suppress(FileNotFoundError):  # the sweeper has just destroyed that one
                forget_reserved(Path(version.path) / LINEAGE, gone)


def _publication(work: Work) -> dict[str, Any]:
    """What the targets are told when something was published: versions, verdict and grade."""
    if work.job.new_version_id is None:
        return {}
    with reading() as session:
        version = session.get_one(Version, work.job.new_version_id)
    return {
        "base_version": work.base.number,
        "new_version": version.number,
        "verdict": work.job.verdict,
        "grade": work.job.grade,
    }


def _answer(work: Work, request_id: str, published: dict[str, Any]) -> None:
    found = (work.job.scope or {})["requests"].get(request_id)
    if found is None:  # cancelled and not in the scope any more
        return
    with work.fenced() as session:
        lifecycle.record_outcome(
            session,
            work.job.id,
            request_id,
            outcome=found["outcome"] or "published",
            records=found["records"],
            **(published if found["outcome"] is None else {}),
        )


def _complete(work: Work, request_id: str) -> None:
    """Report first, then completion: a completed request always has its report."""
    with reading() as session:
        request = session.get_one(DeletionRequest, request_id)
        targets = repository.targets_of(session, [request_id])[request_id]
        if request.status in FINAL or any(target.outcome is None for target in targets):
            return
        refs = [request_id, *(str(target.job_id) for target in targets), *_version_ids(session, targets)]
        now = clock(session)
    facts = [
        TargetFacts(model=t.model_name, outcome=cast(Outcome, t.outcome), records=t.records or 0, job_id=str(t.job_id))
        for t in targets
    ]
    sealed = reports.collect_events(refs)
    folder = reports.write_request_report(_request_facts(request, facts, now), facts, sealed, now)
    with work.fenced() as session:
        session.execute(
            update(RequestTarget).where(RequestTarget.request_id == request_id).values(report_path=str(folder))
        )
        lifecycle.complete(session, request_id)


def _version_ids(session: Session, targets: Sequence[RequestTarget]) -> list[str]:
    jobs = [service.get_job(session, str(target.job_id)) for target in targets]
    return [str(job.new_version_id) for job in jobs if job.new_version_id]


def _request_facts(request: DeletionRequest, targets: list[TargetFacts], now: datetime) -> RequestFacts:
    published = [job.published_at for job in map(reports.read_job_evidence, {t.job_id for t in targets})]
    return RequestFacts(
        id=request.id,
        pseudonym=request.pseudonym,
        regulation=request.regulation,
        received_at=request.received_at,
        acknowledged_at=request.acknowledged_at,
        due_at=request.due_at,
        extended_at=request.extended_at,
        completed_at=max((moment for moment in published if moment), default=now),
    )
