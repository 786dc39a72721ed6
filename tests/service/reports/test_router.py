"""Routes of reports: forms, roles, and what is not there."""

from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from service.auth.service import create_key
from service.database import transaction
from service.deletion.models import DeletionRequest
from service.reports import service
from service.reports.router import negotiate
from tests.service.reports import samples

URL = f"/v1/deletion-requests/{samples.REQUEST}/report"


def key(*roles: str, request_of: bool = False) -> dict[str, str]:
    """Headers with a new key; `request_of`: the sample request is submitted by it."""
    with transaction() as session:
        row, text = create_key(session, "test", roles)
        if request_of:
            session.add(request_row(row.id))
    return {"Authorization": f"Bearer {text}"}


def request_row(submitter: str) -> DeletionRequest:
    now = datetime.now(UTC)
    return DeletionRequest(
        id=samples.REQUEST, status="completed", regulation="gdpr", submitted_by=submitter, pseudonym="5f" * 32,
        created_at=now, received_at=now, due_at=now,
    )  # fmt: skip


def write() -> None:
    job = samples.evidence()
    service.write_job_evidence(job)
    service.write_request_report(samples.request(), [samples.target()], samples.events(job), samples.NOW)


def test_forms_by_accept_and_suffix(api: TestClient) -> None:
    headers = key("submitter", request_of=True)
    write()
    for accept, kind in (("application/json", "json"), ("text/html", "html"), ("application/pdf", "pdf")):
        answer = api.get(URL, headers=headers | {"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(accept)
        assert answer.headers["vary"] == "Accept"
        named = api.get(f"{URL}.{kind}", headers=headers)
        assert named.content == answer.content
    page = api.get(f"{URL}.html", headers=headers)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    bundle = api.get(f"{URL}/bundle", headers=headers)
    assert bundle.headers["content-type"] == "application/zip"
    assert bundle.content.startswith(b"PK")


def test_who_may_read(api: TestClient) -> None:
    owner = key("submitter", request_of=True)
    write()
    expected = {"reviewer": 200, "auditor": 200, "admin": 200, "submitter": 404, "operator": 403}
    for role, status in expected.items():
        assert api.get(URL, headers=key(role)).status_code == status, role
    assert api.get(URL, headers=owner).status_code == 200
    assert api.get(URL).status_code == 401


def test_unknown_and_not_ready(api: TestClient) -> None:
    headers = key("auditor")
    missing = api.get(URL, headers=headers)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    with transaction() as session:
        session.add(request_row("key_x"))
    for url in (URL, f"{URL}.pdf", f"{URL}/bundle"):
        early = api.get(url, headers=headers)
        assert (early.status_code, early.json()["code"]) == (409, "report_not_ready")
        assert early.headers["content-type"] == "application/problem+json"


def test_an_unknown_suffix_is_refused(api: TestClient) -> None:
    assert api.get(f"{URL}.docx", headers=key("auditor")).status_code in (404, 422)


def test_the_schema_needs_no_key(api: TestClient) -> None:
    answer = api.get("/v1/schemas/report")
    assert answer.status_code == 200
    assert answer.json()["$id"] == "lethe/report/1"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "json"),
        ("", "json"),
        ("image/png", "json"),
        ("application/pdf", "pdf"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/json;q=0.5, application/pdf;q=0.9", "pdf"),
        ("application/pdf;q=0, text/html;q=0.1", "html"),
        ("text/html;q=nonsense", "json"),
    ],
)
def test_negotiation(accept: str, form: str) -> None:
    assert negotiate(accept) == form
