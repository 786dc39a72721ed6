"""The same key never gives two requests, nor an answer to another question."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.database import transaction
from service.deletion.intake import parse_idempotency_key
from service.deletion.models import IdempotencyRecord
from service.deletion.repository import purge_keys
from service.errors import BadRequest
from tests.service.conftest import MakeKey
from tests.service.deletion.support import PATH, body, counts


def test_the_first_answer_is_given_again(api: TestClient, admin: dict[str, str], digits: str) -> None:
    first = api.post(PATH, json=body(), headers=admin | {"idempotency-key": '"a-1"'})
    again = api.post(PATH, json=dict(reversed(body().items())), headers=admin | {"idempotency-key": "a-1"})
    assert again.status_code == first.status_code == 202
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert counts()["deletion_requests"] == 1


def test_another_body_under_the_same_key_is_refused(api: TestClient, admin: dict[str, str], digits: str) -> None:
    headers = admin | {"idempotency-key": "a"}
    api.post(PATH, json=body(), headers=headers)
    before = counts()
    answer = api.post(PATH, json=body("joe@example.org"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert counts() == before


def test_keys_belong_to_their_principal(api: TestClient, make_key: MakeKey, digits: str) -> None:
    ids = {
        api.post(PATH, json=body(), headers=make_key("submitter") | {"idempotency-key": "a"}).json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 2


def test_duplicates_at_the_same_moment_give_one_request(api: TestClient, admin: dict[str, str], digits: str) -> None:
    def send(number: int) -> tuple[int, str]:
        key = {"idempotency-key": f"k{number % 3}"}
        answer = api.post(PATH, json=body(f"p{number % 3}@example.org"), headers=admin | key)
        return answer.status_code, answer.json().get("id")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(send, range(36)))
    assert {status for status, _ in answers} == {202}
    assert len({request_id for _, request_id in answers}) == 3
    assert counts()["deletion_requests"] == counts()["audit_events"] == 3


def test_an_expired_key_is_free_again(api: TestClient, admin: dict[str, str], digits: str) -> None:
    headers = admin | {"idempotency-key": "a"}
    first = api.post(PATH, json=body(), headers=headers).json()["id"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    with transaction() as session:
        session.execute(update(IdempotencyRecord).values(expires_at=past))
    second = api.post(PATH, json=body("joe@example.org"), headers=headers).json()["id"]
    assert second != first
    with transaction() as session:
        assert purge_keys(session, datetime.now(UTC)) == 0
        session.execute(update(IdempotencyRecord).values(expires_at=past))
        assert purge_keys(session, datetime.now(UTC)) == 1


def test_the_fingerprint_tells_nothing(api: TestClient, admin: dict[str, str], digits: str) -> None:
    api.post(PATH, json=body(), headers=admin | {"idempotency-key": "a"})
    with transaction() as session:
        record = session.get_one(IdempotencyRecord, (api.get("/v1/jobs", headers=admin) and _principal(admin), "a"))
        assert "jane" not in str(record.response)
        assert len(record.fingerprint) == 64


def _principal(headers: dict[str, str]) -> str:
    return headers["authorization"].removeprefix("Bearer lethe_").rpartition("_")[0]


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        (r'"a\"b\\c"', r'a"b\c'),
        (' "x y" ', "x y"),
        ("8e03978e-40d5", "8e03978e-40d5"),
    ],
)
def test_keys_are_read_quoted_and_bare(header: str, key: str) -> None:
    assert parse_idempotency_key(header) == key


@pytest.mark.parametrize("header", ["", '""', '"a', r'"a\b"', '"a"b"', "é", "a" * 256, "a\tb"])
def test_other_keys_are_refused(header: str) -> None:
    with pytest.raises(BadRequest):
        parse_idempotency_key(header)
