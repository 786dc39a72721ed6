"""POST /v1/deletion-requests: what is accepted, what is refused, and that a refusal writes nothing."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, select

from service.database import get_engine, reading
from service.deletion import lifecycle
from service.deletion.models import DeletionRequest, RequestTarget
from service.subjects.models import SuppressionEntry
from tests.service.conftest import MakeKey
from tests.service.deletion.support import NOTHING, PATH, body, counts
from tests.service.factories import register_images


def test_a_request_is_accepted(api: TestClient, admin: dict[str, str], digits: str) -> None:
    received = "2026-01-31T10:00:00+02:00"
    sent = body(" Jane@Example.org ", received_at=received, external_id="T-1", models=[digits, digits], note="urgent")
    answer = api.post(PATH, json=sent, headers=admin)
    assert answer.status_code == 202
    request = answer.json()
    assert answer.headers["location"] == f"{PATH}/{request['id']}" == request["links"]["self"]
    assert int(answer.headers["retry-after"]) > 0
    assert request["status"] == "accepted"
    assert request["received_at"] == "2026-01-31T08:00:00.000Z"
    assert request["due_at"] == "2026-02-28T08:00:00.000Z"
    assert request["acknowledged_at"] is not None
    assert [target["model"] for target in request["targets"]] == [digits]
    assert "jane" not in answer.text.lower()
    assert {"stage", "progress", "days_left", "attempts", "regulation", "external_id"} <= request.keys()
    read = api.get(f"{PATH}/{request['id']}", headers=admin).json()
    assert [entry["kind"] for entry in read.pop("history")] == ["request.accepted"]
    assert read == request


def test_one_commit_writes_everything_that_follows(api: TestClient, admin: dict[str, str], digits: str) -> None:
    api.post(PATH, json=body(), headers=admin | {"idempotency-key": "k"})
    assert counts() == dict.fromkeys(NOTHING, 1)


def test_identifiers_are_sealed_and_can_be_opened_for_a_job(
    api: TestClient, admin: dict[str, str], digits: str, home: Path
) -> None:
    sent = body("Jane@Example.org", identity={"document": "P-123"}, note="née Müller")
    request_id = api.post(PATH, json=sent, headers=admin).json()["id"]
    with reading() as session:
        assert lifecycle.open_subjects(session, [request_id]) == {
            request_id: [{"type": "email", "value": "jane@example.org", "format": "raw"}]
        }
        row = session.get_one(DeletionRequest, request_id)
        assert row.sealed is not None
        assert session.scalars(select(SuppressionEntry.pseudonym)).one() != row.pseudonym
    for file in home.glob("lethe.db*"):
        content = file.read_bytes().lower()
        assert b"jane@" not in content
        assert b"p-123" not in content


def test_absent_models_means_all_even_one_registered_a_moment_ago(
    api: TestClient, admin: dict[str, str], digits: str, tmp_path: Path
) -> None:
    assert len(api.post(PATH, json=body(), headers=admin).json()["targets"]) == 1
    register_images(tmp_path, name="second")
    targets = api.post(PATH, json=body(), headers=admin).json()["targets"]
    assert [target["model"] for target in targets] == ["digits", "second"]
    named = api.post(PATH, json=body(models=["second"]), headers=admin).json()["targets"]
    assert [target["model"] for target in named] == ["second"]


def test_intake_takes_few_statements_in_one_transaction(
    api: TestClient, admin: dict[str, str], digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_images(tmp_path, name="second")
    api.post(PATH, json=body(), headers=admin)
    seen = _count_statements(monkeypatch)
    commits: list[Any] = []
    event.listen(get_engine(), "commit", commits.append)
    keys = iter(range(10))
    for sent in (body(models=[digits]), body(), body("x@example.org", identity={"a": 1})):
        seen.clear()
        commits.clear()
        headers = admin | {"idempotency-key": f"k{next(keys)}"}
        assert api.post(PATH, json=sent, headers=headers).status_code == 202
        assert len(commits) == 1
        assert 5 <= len([text for text in seen if not text.startswith(("BEGIN", "COMMIT"))]) <= 8, seen


def _count_statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the driver, whichever way it goes there."""
    seen: list[str] = []
    engine = get_engine()
    if engine.dialect.name == "sqlite":
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.set_trace_callback(seen.append))
        return seen
    for name in ("execute", "executemany"):
        real = getattr(psycopg.Cursor, name)

        def counted(self: Any, query: Any, *arguments: Any, _real: Any = real, **options: Any) -> Any:
            seen.append(str(query))
            return _real(self, query, *arguments, **options)

        monkeypatch.setattr(psycopg.Cursor, name, counted)
    return seen


IDENTIFIER = {"type": "email", "value": "jane@example.org"}
SECRET = "jane.doe.secret@example.org"

BAD = [
    (body(models=["nothing"]), "unknown_model", "/models/0"),
    (body(models=["digits", SECRET]), "unknown_model", "/models/1"),
    (body(regulation="lgpd"), "unknown_regulation", "/regulation"),
    (body(regulation=SECRET[:20]), "unknown_regulation", "/regulation"),
    (body("7", "loyalty_card"), "unknown_identifier_type", "/subject/identifiers/0"),
    (body("email", SECRET), "unknown_identifier_type", "/subject/identifiers/0"),
    (body("", "subject_id"), "empty_subject", "/subject/identifiers/0"),
    (body("  ", "email"), "empty_subject", "/subject/identifiers/0"),
    (body(subject={"identifiers": []}), "empty_subject", "/subject/identifiers"),
    (body(subject={}), "empty_subject", "/subject/identifiers"),
    (body("no address", "email"), "invalid", "/subject/identifiers/0"),
    ({"regulation": "gdpr"}, "invalid", "/subject"),
    (body(models=[]), "invalid", "/models"),
    (body(models="digits"), "invalid", "/models"),
    (body(received_at="2999-01-01T00:00:00Z"), "invalid", "/received_at"),
    (body(received_at="2026-01-01T00:00:00"), "invalid", "/received_at"),
    (body(received_at=1700000000), "invalid", "/received_at"),
    (body(received_at="0001-01-01T00:00:00+14:00"), "invalid", "/received_at"),
    (body(received_at="yesterday"), "invalid", "/received_at"),
    (body(external_id="x" * 201), "invalid", "/external_id"),
    (body(external_id="a\u0000b"), "invalid", "/external_id"),
    (body(note="a\u0000b"), "invalid", "/note"),
    (body(callback_url="http://example.org/x"), "invalid", "/callback_url"),
    (body(callback_url="ftp://example.org"), "invalid", "/callback_url"),
    (body(callback_url="https://user:pass@example.org/"), "invalid", "/callback_url"),
    (body(callback_url="https://[::1"), "invalid", "/callback_url"),
    (body(callback_url="https://example.org/a b"), "invalid", "/callback_url"),
    (body(identity=[1]), "invalid", "/identity"),
    (body(unknown=1), "invalid", ""),
    (body(subject={"identifiers": [IDENTIFIER], SECRET: 1}), "invalid", "/subject"),
    (body(subject={"identifiers": [IDENTIFIER | {"value": 7}]}), "invalid", "/subject/identifiers/0/value"),
    (body(subject={"identifiers": [IDENTIFIER | {"format": "rot13"}]}), "invalid", "/subject/identifiers/0/format"),
    (body(subject={"identifiers": [IDENTIFIER | {"format": "sha256"}]}), "invalid", "/subject/identifiers/0"),
    (body(subject={"identifiers": [IDENTIFIER] * 101}), "invalid", "/subject/identifiers"),
    (body("x" * 1025, "subject_id"), "invalid", "/subject/identifiers/0/value"),
    ([], "invalid", ""),
    ("text", "invalid", ""),
]


@pytest.mark.parametrize(("sent", "code", "pointer"), BAD)
def test_what_does_not_fit_is_refused(
    api: TestClient, admin: dict[str, str], digits: str, sent: Any, code: str, pointer: str
) -> None:
    answer = api.post(PATH, json=sent, headers=admin | {"idempotency-key": "k"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["type"] == f"urn:lethe:error:{code}"
    assert problem["errors"][0]["pointer"] == pointer
    assert "secret" not in answer.text
    assert counts() == NOTHING


LONG_NUMBER = b'{"regulation":"gdpr","subject":{"identifiers":[{"type":"email","value":"a@b.c"}]},"identity":{"n":%s}}'


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_body"),
        (b"", "application/json", 400, "malformed_body"),
        (b"\xff\xfe", "application/json", 400, "malformed_body"),
        (b'{"a": "\\ud800"}', "application/json", 400, "malformed_body"),
        (b"[" * 100_000, "application/json", 400, "malformed_body"),
        (LONG_NUMBER % (b"7" * 5000), "application/json", 400, "malformed_body"),
        (json.dumps(body()).encode(), "text/plain", 415, "unsupported_media_type"),
        (json.dumps(body()).encode(), "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (json.dumps(body()).encode(), "", 415, "unsupported_media_type"),
        (b"x" * (1 << 20) + b"x", "application/json", 413, "body_too_large"),
    ],
)
def test_bodies_that_cannot_be_read_are_refused(
    api: TestClient, admin: dict[str, str], digits: str, content: bytes, media: str, status: int, code: str
) -> None:
    answer = api.post(PATH, content=content, headers=admin | {"content-type": media, "idempotency-key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert counts() == NOTHING


def test_a_streamed_body_over_the_limit_is_refused(api: TestClient, admin: dict[str, str], digits: str) -> None:
    def parts() -> Any:
        for _ in range(20):
            yield b" " * 100_000

    answer = api.post(PATH, content=parts(), headers=admin | {"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert counts() == NOTHING


def test_a_content_type_may_have_parameters(api: TestClient, admin: dict[str, str], digits: str) -> None:
    headers = admin | {"content-type": "Application/JSON; charset=utf-8"}
    assert api.post(PATH, content=json.dumps(body()), headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("kind", "value"), [("email", "a@b.c"), ("phone", "+49 30 123456"), ("subject_id", "s1"), ("ios_vendor_id", "X")]
)
def test_every_known_type_is_accepted(
    api: TestClient, admin: dict[str, str], digits: str, kind: str, value: str
) -> None:
    assert api.post(PATH, json=body(value, kind), headers=admin).status_code == 202


def test_a_clock_that_runs_a_little_fast_is_forgiven(api: TestClient, admin: dict[str, str], digits: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=20)
    answer = api.post(PATH, json=body(received_at=soon.isoformat()), headers=admin)
    assert answer.status_code == 202
    assert answer.json()["received_at"] <= answer.json()["acknowledged_at"]


def test_private_callbacks_are_a_setting(
    api: TestClient, admin: dict[str, str], digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.settings import get_settings

    assert api.post(PATH, json=body(callback_url="https://example.org/x?y=1"), headers=admin).status_code == 202
    monkeypatch.setenv("LETHE_WEBHOOKS__ALLOW_PRIVATE", "true")
    get_settings.cache_clear()
    assert api.post(PATH, json=body(callback_url="http://127.0.0.1:9/x"), headers=admin).status_code == 202


def test_the_same_subject_twice_gives_two_requests_with_one_pseudonym(
    api: TestClient, admin: dict[str, str], digits: str
) -> None:
    ids = {api.post(PATH, json=body(value), headers=admin).json()["id"] for value in ("a@b.c", " A@B.C")}
    assert len(ids) == 2
    with reading() as session:
        assert len(set(session.scalars(select(DeletionRequest.pseudonym)))) == 1
        assert len(set(session.scalars(select(RequestTarget.request_id)))) == 2


def test_without_a_model_there_is_nothing_to_ask(api: TestClient, admin: dict[str, str]) -> None:
    assert api.post(PATH, json=body(), headers=admin).json()["code"] == "unknown_model"


def test_a_policy_may_want_a_reviewer_first(
    api: TestClient, admin: dict[str, str], make_key: MakeKey, database_url: str, tmp_path: Path
) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("[approval]\nrequired = true\n")
    register_images(tmp_path, policy=policy)
    request = api.post(PATH, json=body(), headers=admin).json()
    assert request["status"] == "pending"
    assert counts()["outbox"] == 0
    approved = api.post(f"{PATH}/{request['id']}/approve", headers=make_key("reviewer")).json()
    assert approved["status"] == "accepted"
    assert [entry["kind"] for entry in approved["history"]] == ["request.received", "request.approved"]
    assert counts()["outbox"] == 1
