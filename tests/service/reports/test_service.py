"""Files under HOME/reports: written whole, made once, and free of anything that names a person."""

import io
import json
import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pypdf
import pytest

from service.audit import sequencer
from service.audit import service as audit
from service.database import reading, transaction
from service.errors import JobError, ReportNotReady, Unavailable
from service.reports import service
from service.reports.verify import verify_events
from tests.service.reports import samples

PLANTED = "jane.roe@example.org"


def plant(tables: dict[str, Path]) -> dict[str, Path]:
    """The same score tables with a person's address as subject and record id."""
    for path in tables.values():
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        for column in ("record_id", "subject_id"):
            named = pa.array([PLANTED] * len(table))
            table = table.set_column(table.column_names.index(column), column, named)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return tables


def test_no_form_holds_an_identifier(home: Path, tmp_path: Path) -> None:
    job = samples.evidence()
    service.write_job_evidence(job, plant(samples.score_tables(tmp_path / "scores")))
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
    forms = {form: service.read_form(samples.REQUEST, form) for form in service.FORMS}
    pages = pypdf.PdfReader(io.BytesIO(forms["pdf"])).pages
    forms["text"] = "".join(page.extract_text() for page in pages).encode()
    files = [path for path in (home / "reports").rglob("*") if path.is_file()]
    assert len(files) > 8
    contents = [*forms.values(), *(path.read_bytes() for path in files)]
    for word in (b"jane", b"roe@"):
        assert not any(word in content.lower() for content in contents)


def test_a_report_that_is_not_there_yet(home: Path) -> None:
    with pytest.raises(ReportNotReady, match="has no report yet"):
        service.read_form("req_none", "html")


def test_a_report_needs_the_evidence_of_its_jobs(home: Path) -> None:
    with pytest.raises(JobError, match="has left no evidence"):
        service.write_request_report(samples.request(), [samples.target()], [], samples.NOW)


def test_a_rewritten_report_is_rendered_anew(written: str) -> None:
    before = service.read_form(written, "html")
    later = samples.NOW + timedelta(hours=3)
    service.write_request_report(samples.request(), [samples.target()], samples.events(), later)
    after = service.read_form(written, "html")
    assert b"12:30 UTC" not in before
    assert b"12:30 UTC" in after


def test_writing_the_same_facts_again_changes_nothing(written: str, tmp_path: Path) -> None:
    folder = service.report_directory(written)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    job = samples.evidence()
    service.write_job_evidence(job, samples.score_tables(tmp_path / "again"))
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_several_models_share_one_report(home: Path, tmp_path: Path) -> None:
    jobs = [samples.evidence("job_a", model="digits"), samples.evidence("job_b", "retrain", model="support-bot")]
    for job in jobs:
        service.write_job_evidence(job, samples.score_tables(tmp_path / job.job_id))
    targets = [samples.target(model=job.model, job_id=job.job_id) for job in jobs]
    service.write_request_report(samples.request(), targets, samples.events(jobs[0]), samples.NOW)
    report = json.loads(service.read_report(samples.REQUEST))
    assert [target["grade"] for target in report["targets"]] == ["C", "A"]
    html = service.read_form(samples.REQUEST, "html").decode()
    assert "support-bot: Verification" in html
    assert html.count("<figure") == 15


def test_a_figure_that_was_changed_is_noticed(written: str) -> None:
    shutil.rmtree(service.report_directory(written) / "rendered")
    figure = service.report_directory(written) / "plots" / "timeline.svg"
    figure.write_bytes(figure.read_bytes().replace(b"<svg", b"<svg ", 1))
    with pytest.raises(Unavailable, match="figure timeline"):
        service.read_form(written, "html")


def test_events_carry_the_hash_before_them(database_url: str) -> None:
    with transaction() as session:
        for ref in ("req_a", "req_b", "req_a", "job_a"):
            audit.record(session, "request.accepted", actor="test", ref=ref, data={"x": 1.5})
    with reading() as session, pytest.raises(Unavailable, match="not sealed"):
        service.sealed_events(session, ["req_a", "job_a"])
    events = service.collect_events(["req_a", "job_a"])
    assert [event["ref"] for event in events].count("req_a") == 2
    assert len(events) == 3
    assert list(verify_events(events)) == []
    first = next(event for event in events if event["sequence"] == min(entry["sequence"] for entry in events))
    assert (first["previous_chain_hash"] == audit.EMPTY_CHAIN) is (first["sequence"] == 1)


def test_a_sequencer_that_is_busy_is_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        audit.record(session, "request.accepted", actor="test", ref="req_a", data={})
    seal, calls = sequencer.seal, []

    def busy_at_first() -> int:
        calls.append(1)
        return seal() if len(calls) > 2 else 0

    monkeypatch.setattr(sequencer, "seal", busy_at_first)
    assert len(service.collect_events(["req_a"])) == 1
    assert len(calls) == 3
    with transaction() as session:
        audit.record(session, "request.accepted", actor="test", ref="req_b", data={})
    monkeypatch.setattr(sequencer, "seal", lambda: 0)
    with pytest.raises(Unavailable, match="not sealed"):
        service.collect_events(["req_b"], patience_seconds=0.1)
