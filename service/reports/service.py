"""Writing evidence and reports under HOME/reports, and answering with one of their forms.

    reports/jobs/<job id>/evidence.json, plots/*.svg    written once, when a job attests, before its files are destroyed
    reports/<request id>/report.json, plots/*.svg       written when the request's last target has ended
    reports/<request id>/rendered/<digest>.<form>       HTML, PDF and bundle, made on first demand

A rendering carries the digest of the report.json that it was made from, so that a rewritten report never meets an old
one. Every file is replaced as a whole; writing again with the same facts changes nothing.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.audit import sequencer
from service.audit import service as audit
from service.audit.models import AuditEvent
from service.database import reading
from service.errors import JobError, ReportNotReady, Unavailable
from service.registry.files import write_atomic
from service.reports.facts import JobEvidence, RequestFacts, TargetFacts
from service.reports.schema import Report, report_bytes
from service.reports.scores import ScoreFiles
from service.settings import get_settings

FORMS = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "zip": "application/zip",
}


def report_directory(request_id: str) -> Path:
    """Where a request's report lives."""
    return get_settings().home / "reports" / request_id


def _job_directory(job_id: str) -> Path:
    return get_settings().home / "reports" / "jobs" / job_id


def _figure_path(name: str, request_id: str = "") -> Path:
    """Figures of a job are named "<job id>/<figure>" and shared by the reports of all its requests."""
    job_id, _, figure = name.rpartition("/")
    folder = _job_directory(job_id) if job_id else report_directory(request_id)
    return folder / "plots" / f"{figure}.svg"


def write_job_evidence(evidence: JobEvidence, scores: ScoreFiles | None = None) -> Path:
    """Draw the job's figures and store what its reports will need; answers the evidence's folder.

    `scores`: the folder with original.arrow, candidate.arrow and the like of the published attempt, see
    service/reports/scores.py. The tables are personal data; the caller destroys them afterwards.
    """
    from service.reports.figures import draw_job

    folder = _job_directory(evidence.job_id)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    drawn = draw_job(evidence, scores)
    for part, svg in drawn:
        write_atomic(_figure_path(part.name), svg)
    complete = evidence.model_copy(update={"plots": [part for part, _ in drawn]})
    write_atomic(folder / "evidence.json", complete.model_dump_json(indent=2).encode() + b"\n")
    return folder


def read_job_evidence(job_id: str) -> JobEvidence:
    """What `write_job_evidence` stored. Raises JobError when the job has not attested."""
    path = _job_directory(job_id) / "evidence.json"
    if not path.is_file():
        raise JobError(f"job {job_id} has left no evidence; its attest stage has to run first")
    return JobEvidence.model_validate_json(path.read_bytes())


def sealed_events(session: Session, refs: Iterable[str]) -> list[dict[str, Any]]:
    """The audit events about these rows in order of the chain, each with the chain hash before it.

    `refs` for a report: the request, its jobs and the versions they published. Raises Unavailable while an event is
    unsealed: `service.audit.sequencer.seal()` comes first.
    """
    events = audit.events_of(session, refs)
    if any(event["sequence"] is None for event in events):
        raise Unavailable("audit events of the request are not sealed yet; try again in a second")
    events.sort(key=lambda event: event["sequence"])
    before = [event["sequence"] - 1 for event in events]
    query = select(AuditEvent.sequence, AuditEvent.chain_hash).where(AuditEvent.sequence.in_(before))
    hashes: dict[int | None, str | None] = {row.sequence: row.chain_hash for row in session.execute(query)}
    return [{**event, "previous_chain_hash": hashes.get(event["sequence"] - 1, audit.EMPTY_CHAIN)} for event in events]


def collect_events(refs: Sequence[str], patience_seconds: float = 10.0) -> list[dict[str, Any]]:
    """Seal what waits and answer `sealed_events`, trying again while another sequencer is at work.

    Raises Unavailable when an event is still unsealed after `patience_seconds`.
    """
    end = time.monotonic() + patience_seconds
    while True:
        sequencer.seal()
        try:
            with reading() as session:
                return sealed_events(session, refs)
        except Unavailable:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def write_request_report(
    request: RequestFacts, targets: Sequence[TargetFacts], events: Sequence[dict[str, Any]], now: datetime
) -> Path:
    """Assemble report.json of a request whose targets have all ended; answers its folder.

    `events` come from `sealed_events`, `now` is the time the report bears. Raises JobError when a job's evidence is
    missing.
    """
    from service.reports.builder import build_report
    from service.reports.figures import draw_request
    from service.reports.signing import key_id, load_or_create_key

    if not targets:
        raise JobError(f"request {request.id} has no targets; there is nothing to report")
    jobs = [read_job_evidence(target.job_id) for target in targets]
    folder = report_directory(request.id)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    pairs = list(zip(targets, jobs, strict=True))
    drawn = draw_request(request, [job for target, job in pairs if target.outcome == "published"])
    for part, svg in drawn:
        write_atomic(_figure_path(part.name, request.id), svg)
    report = build_report(
        request=request,
        targets=pairs,
        events=events,
        plots=[part for part, _ in drawn],
        generated_at=now,
        generator=f"Lethe {_version()}",
        signing_key_id=key_id(load_or_create_key(get_settings().home).public_key()),
    )
    write_atomic(folder / "report.json", report_bytes(report))
    return folder


def _version() -> str:
    try:
        return version("lethe")
    except PackageNotFoundError:  # a checkout that was never installed
        return "(not installed)"


def read_report(request_id: str) -> bytes:
    """report.json as it was written. Raises ReportNotReady."""
    path = report_directory(request_id) / "report.json"
    if not path.is_file():
        raise ReportNotReady(f"request {request_id} has no report yet; it is written when the request completes")
    return path.read_bytes()


def read_form(request_id: str, form: str) -> bytes:
    """The report as "json", "html", "pdf" or "zip" (the bundle), made once and kept. Raises ReportNotReady."""
    content = read_report(request_id)
    makers: dict[str, Callable[[str, bytes], bytes]] = {"html": _html, "pdf": _pdf, "zip": _bundle}
    if form == "json":
        return content
    path = report_directory(request_id) / "rendered" / f"{sha256(content).hexdigest()[:32]}.{form}"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, makers[form](request_id, content))
    return path.read_bytes()


def _html(request_id: str, content: bytes) -> bytes:
    from service.reports.document import document_of
    from service.reports.html import render_html

    report = Report.model_validate_json(content)
    return render_html(document_of(report), _figures(request_id, report))


def _pdf(request_id: str, content: bytes) -> bytes:
    from service.reports.document import document_of
    from service.reports.pdf import render_pdf

    report = Report.model_validate_json(content)
    return render_pdf(document_of(report), _figures(request_id, report), content)


def _bundle(request_id: str, content: bytes) -> bytes:
    from service.reports.bundle import build_bundle
    from service.reports.signing import load_or_create_key

    return build_bundle(content, read_form(request_id, "pdf"), load_or_create_key(get_settings().home))


def _figures(request_id: str, report: Report) -> dict[str, bytes]:
    figures = {}
    for part in [*report.plots, *(plot for target in report.targets for plot in target.plots)]:
        svg = _figure_path(part.name, request_id).read_bytes()
        if sha256(svg).hexdigest() != part.sha256:
            raise Unavailable(f"figure {part.name} of request {request_id} has changed since the report was written")
        figures[part.name] = svg
    return figures


def read_schema() -> dict[str, Any]:
    """The JSON Schema of report.json, as /v1/schemas/report answers it."""
    from service.reports.schema import json_schema

    schema: dict[str, Any] = json.loads(json.dumps(json_schema()))
    return schema
