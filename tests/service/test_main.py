"""The application as a whole: errors, health, OpenAPI, and what never shows."""

import io
import json
from contextlib import redirect_stderr
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service import database, logs, main
from service.database import get_engine
from tests.service.conftest import MakeKey
from tests.service.deletion.support import BATCH, PATH, body

Headers = dict[str, str]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/nothing/jane@example.org", 404, "not_found"),
        ("DELETE", "/v1/deletion-requests", 405, "method_not_allowed"),
        ("PUT", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/models/x/versions/first", 422, "invalid"),
        ("GET", "/v1/models/x/versions/99999999999999999999", 404, "not_found"),
        ("GET", "/v1/models/nothing", 404, "not_found"),
    ],
)
def test_every_error_is_a_problem(
    api: TestClient, admin: Headers, method: str, path: str, status: int, code: str
) -> None:
    answer = api.request(method, path, headers=admin)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["status"], problem["type"]) == (code, status, f"urn:lethe:error:{code}")
    assert "jane" not in answer.text
    assert answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


def test_a_failure_inside_is_a_problem_that_says_nothing(
    api: TestClient, admin: Headers, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("jane@example.org was here")

    monkeypatch.setattr("service.deletion.service.draft", fail)
    told = io.StringIO()
    with redirect_stderr(told):
        logs.configure_logging()
        answer = api.post(PATH, json=body(), headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "jane" not in answer.text
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    failure = next(line for line in lines if line["event"] == "http.failed")
    assert failure["exception"]["type"] == "RuntimeError"
    assert any("create_request" in place for place in failure["exception"]["at"])
    assert failure["request"] == answer.headers["x-request-id"]
    assert "jane" not in told.getvalue()


def test_logs_hold_templates_and_ids_only(api: TestClient, admin: Headers, digits: str) -> None:
    told = io.StringIO()
    with redirect_stderr(told):
        logs.configure_logging()
        headers = admin | {"x-request-id": "caller-chose-this", "idempotency-key": "jane-1"}
        created = api.post(PATH, json=body(external_id="E-77"), headers=headers)
        api.get(f"{PATH}/jane@example.org", headers=admin)
        api.get(f"{PATH}?external_id=jane@example.org", headers=admin)
        api.get("/jane@example.org", headers=admin)
    assert created.headers["x-request-id"] == "caller-chose-this"
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [line["route"] for line in lines] == [PATH, f"{PATH}/{{request_id}}", PATH, "unmatched"]
    assert lines[0]["request"] == "caller-chose-this"
    assert lines[0]["status"] == 202
    for secret in ("jane", "E-77", admin["authorization"][-20:]):
        assert secret not in told.getvalue()


def test_a_request_id_that_is_none_is_replaced(api: TestClient) -> None:
    answer = api.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert len(answer.headers["x-request-id"]) == 32


def test_health_and_readiness(api: TestClient) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json() == {"status": "ready"}
    with get_engine().begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "lethe db upgrade" in answer.json()["detail"]
    assert answer.headers["retry-after"]


def test_a_database_that_is_gone_is_unavailable(
    api: TestClient, admin: Headers, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.post(PATH, json=body(), headers=admin)
    get_engine().dispose()
    monkeypatch.setattr(database.get_engine(), "connect", _refuse)
    monkeypatch.setattr(database.get_engine().pool, "connect", _refuse)
    answer = api.post(PATH, json=body(), headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 503


def _refuse(*_: Any, **__: Any) -> None:
    from sqlalchemy.exc import OperationalError

    raise OperationalError("connect", {}, Exception("refused"))


def test_metrics_count_and_name_nobody(api: TestClient, admin: Headers, digits: str) -> None:
    for number in range(3):
        api.post(PATH, json=body(f"p{number}@example.org", external_id=f"E-{number}"), headers=admin)
    api.get(f"{PATH}/jane@example.org", headers=admin)
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'lethe_deletion_requests{regulation="gdpr",status="accepted"} 3.0' in answer.text
    assert 'lethe_deletion_due_seconds{regulation="gdpr"}' in answer.text
    assert f'lethe_http_request_seconds_count{{method="POST",route="{PATH}",status="202"}}' in answer.text
    for secret in ("example.org", "E-1", "req_", "key_"):
        assert secret not in answer.text


def test_openapi_is_complete(api: TestClient) -> None:
    schema = api.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert {PATH, BATCH, f"{PATH}/{{request_id}}", "/v1/models", "/v1/methods", "/v1/audit/events"} <= set(
        schema["paths"]
    )
    for path, calls in schema["paths"].items():
        for method, call in calls.items():
            if not path.startswith("/v1") or path.startswith("/v1/schemas"):
                continue
            assert "default" in call["responses"], (method, path)
            assert call["security"] == [{"ApiKey": []}], (method, path)
            for status, answer in call["responses"].items():
                if status.isdigit() and int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
    created = schema["paths"][PATH]["post"]
    assert {"202", "400", "401", "403", "413", "415", "422"} <= set(created["responses"])
    sent = created["requestBody"]["content"]["application/json"]["schema"]
    assert set(sent["required"]) == {"regulation", "subject"}
    assert sent["properties"]["subject"]["properties"]["identifiers"]["items"]["required"] == ["type", "value"]


def test_a_key_is_needed_for_everything_under_v1(api: TestClient) -> None:
    schema = api.get("/openapi.json").json()
    for path, calls in schema["paths"].items():
        for method in calls:
            if path.startswith("/v1") and not path.startswith("/v1/schemas"):
                answer = api.request(method, path.replace("{", "").replace("}", ""))
                assert answer.status_code == 401, (method, path, answer.text)


def test_two_applications_can_live_in_one_process(api: TestClient, make_key: MakeKey) -> None:
    with TestClient(main.create_app()) as other:
        assert other.get("/metrics").status_code == 200
    assert api.get("/metrics").status_code == 200
