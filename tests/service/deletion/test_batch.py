"""Many requests in one call."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.deletion import repository
from service.errors import Unavailable
from service.settings import get_settings
from tests.service.deletion.support import BATCH, NOTHING, body, counts

Headers = dict[str, str]

NDJSON = {"content-type": "application/x-ndjson"}
LINES = [
    json.dumps(body("a@b.c")),
    "{oops",
    json.dumps(body(models=["nothing"])),
    "",
    json.dumps(body("b@b.c", regulation="ccpa")),
    json.dumps(body("")),
    "7",
    json.dumps(body("a@b.c")),
]
CODES = [202, "malformed_body", "unknown_model", 202, "empty_subject", "invalid", 202]


def _codes(results: list[dict[str, Any]]) -> list[Any]:
    return [202 if result["status"] == 202 else result["error"]["code"] for result in results]


def test_each_line_of_ndjson_has_its_own_result(api: TestClient, admin: Headers, digits: str) -> None:
    answer = api.post(BATCH, content="\n".join(LINES), headers=admin | NDJSON)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert _codes(results) == CODES
    assert [result["line"] for result in results] == [1, 2, 3, 5, 6, 7, 8]
    assert results[1]["error"]["type"] == "urn:lethe:error:malformed_body"
    found = counts()
    assert found["deletion_requests"] == found["request_targets"] == found["audit_events"] == 3
    for result in results:
        if result["status"] == 202:
            path = result["request"]["links"]["self"]
            assert api.get(path, headers=admin).json()["status"] == "accepted"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("key", [{}, {"idempotency-key": "file-1"}])
def test_lines_are_numbered_as_in_the_file(
    api: TestClient, admin: Headers, digits: str, end: str, key: Headers
) -> None:
    lines = ["", " \t", json.dumps(body()), "", "{oops", json.dumps(body(note="line\u2028two"), ensure_ascii=False), ""]
    answer = api.post(BATCH, content=end.join(lines).encode(), headers=admin | NDJSON | key)
    results = [json.loads(line) for line in answer.text.split("\n") if line]
    assert [(result["line"], result["status"]) for result in results] == [(3, 202), (5, 400), (6, 202)]


def test_a_json_array_gives_an_array(api: TestClient, admin: Headers, digits: str) -> None:
    elements = [json.loads(line) for line in LINES if line not in ("", "{oops")]
    answer = api.post(BATCH, json=elements, headers=admin)
    assert _codes(answer.json()) == [code for code in CODES if code != "malformed_body"]
    assert [result["line"] for result in answer.json()] == list(range(1, len(elements) + 1))
    assert len(answer.text.splitlines()) == len(elements)


def test_a_batch_can_be_sent_again(api: TestClient, admin: Headers, digits: str) -> None:
    headers = admin | NDJSON | {"idempotency-key": "file-1"}
    first, again = (api.post(BATCH, content="\n".join(LINES), headers=headers).text for _ in range(2))
    assert first == again
    assert counts()["deletion_requests"] == 3


def test_what_hits_a_chunk_does_not_hit_its_lines(
    api: TestClient, admin: Headers, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = repository.insert_drafts

    def fragile(session: Any, drafts: Any, actor: str) -> None:
        if len(drafts) > 1:
            raise OperationalError("insert", {}, Exception("lost connection"))
        if drafts[0].request["external_id"] == "poison":
            raise Unavailable("no")
        real(session, drafts, actor)

    monkeypatch.setattr(repository, "insert_drafts", fragile)
    bodies = [body(), body(external_id="poison"), body()]
    assert _codes(api.post(BATCH, json=bodies, headers=admin).json()) == [202, "unavailable", 202]
    assert counts()["deletion_requests"] == 2


def test_many_lines_are_stored(api: TestClient, admin: Headers, digits: str) -> None:
    bodies = [body(f"p{number}@example.org") for number in range(250)]
    results = api.post(BATCH, json=bodies, headers=admin).json()
    assert len({result["request"]["id"] for result in results}) == 250
    assert counts()["deletion_requests"] == 250


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        ("{}", "application/json", 400, "malformed_body"),
        ("[", "application/json", 400, "malformed_body"),
        ("[" * 100_000, "application/json", 400, "malformed_body"),
        ("[]", "application/json", 400, "malformed_body"),
        ("\n \n", "application/x-ndjson", 400, "malformed_body"),
        ("{}", "text/csv", 415, "unsupported_media_type"),
        ("7\n" * 1001, "application/x-ndjson", 413, "body_too_large"),
    ],
)
def test_a_batch_that_is_none_is_refused(
    api: TestClient, admin: Headers, digits: str, content: str, media: str, status: int, code: str
) -> None:
    assert get_settings().api.batch_limit == 1000
    answer = api.post(BATCH, content=content, headers=admin | {"content-type": media})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert counts() == NOTHING
