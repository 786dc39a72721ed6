"""API keys and roles."""

from datetime import datetime, timedelta, tzinfo

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.auth import service as auth
from service.auth.models import ApiKey
from service.database import reading, transaction
from service.errors import BadParameters, KeyExpired, NotFound, Unauthorized
from tests.service.conftest import MakeKey


def _make(*roles: str, valid_for: timedelta | None = None) -> tuple[str, str]:
    with transaction() as session:
        key, text = auth.create_key(session, "test", roles, valid_for)
    return key.id, text


def test_a_key_is_verified_and_its_secret_not_kept(database_url: str) -> None:
    key_id, text = _make("reviewer", "submitter")
    principal = auth.verify(text)
    assert (principal.id, principal.roles) == (key_id, {"submitter", "reviewer"})
    with reading() as session:
        row = session.scalars(select(ApiKey)).one()
    assert text.rpartition("_")[2] not in str(vars(row))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text.removeprefix("lethe_"),
        lambda text: "lethe_key_00000000000000000000000000_" + text.rpartition("_")[2],
        lambda text: "lethe_" + "a" * 5000,
        lambda text: "lethe__",
        lambda text: "",
        lambda text: text + "é",
    ],
)
def test_anything_else_is_not_a_key(database_url: str, spoil: object) -> None:
    _, text = _make("admin")
    with pytest.raises(Unauthorized):
        auth.verify(spoil(text))  # type: ignore[operator]


def test_expired_and_revoked_keys_are_refused(database_url: str) -> None:
    _, old = _make("admin", valid_for=timedelta(seconds=-1))
    with pytest.raises(KeyExpired):
        auth.verify(old)
    key_id, text = _make("admin")
    with transaction() as session:
        auth.revoke_key(session, key_id)
    with pytest.raises(Unauthorized, match="revoked"):
        auth.verify(text)
    with transaction() as session, pytest.raises(NotFound):
        auth.revoke_key(session, "key_none")


@pytest.mark.parametrize(("name", "roles"), [("x", []), ("x", ["root"]), (" ", ["admin"]), ("x" * 201, ["admin"])])
def test_bad_keys_are_not_made(database_url: str, name: str, roles: list[str]) -> None:
    with transaction() as session, pytest.raises(BadParameters):
        auth.create_key(session, name, roles)


def test_a_revocation_takes_effect_within_the_time_that_is_promised(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id, text = _make("operator")
    headers = {"authorization": f"Bearer {text}"}
    assert api.get("/v1/models", headers=headers).status_code == 200
    with transaction() as session:
        auth.revoke_key(session, key_id)
    real = auth.time.monotonic
    monkeypatch.setattr(auth.time, "monotonic", lambda: real() + auth.REMEMBER_SECONDS)
    assert api.get("/v1/models", headers=headers).json()["code"] == "unauthorized"


def test_a_remembered_key_still_expires(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr(auth, "REMEMBER_SECONDS", 3600.0)
    _, text = _make("operator", valid_for=timedelta(hours=1))
    headers = {"authorization": f"Bearer {text}"}
    assert api.get("/v1/models", headers=headers).status_code == 200
    monkeypatch.setattr(auth, "datetime", Later)
    answer = api.get("/v1/models", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "key_expired")


def test_a_caller_without_a_key_learns_how_to_bring_one(api: TestClient) -> None:
    for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer"}, {"authorization": "Bearer x"}):
        answer = api.get("/v1/models", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:lethe:error:unauthorized"


_CALLS = {
    ("POST", "/v1/deletion-requests"): {"submitter"},
    ("POST", "/v1/deletion-requests:batch"): {"submitter"},
    ("GET", "/v1/deletion-requests"): {"submitter", "reviewer", "auditor", "operator"},
    ("GET", "/v1/deletion-requests/req_x"): {"submitter", "reviewer", "auditor", "operator"},
    ("POST", "/v1/deletion-requests/req_x/approve"): {"reviewer"},
    ("POST", "/v1/deletion-requests/req_x/reject"): {"reviewer"},
    ("POST", "/v1/deletion-requests/req_x/extend"): {"reviewer"},
    ("POST", "/v1/deletion-requests/req_x/cancel"): {"submitter", "reviewer", "operator"},
    ("POST", "/v1/deletion-requests/req_x/retry"): {"reviewer", "operator"},
    ("GET", "/v1/models"): set(auth.ROLES),
    ("GET", "/v1/models/x/versions/1/files/config.json"): {"operator"},
    ("POST", "/v1/models/x/versions/1/activate"): {"operator"},
    ("GET", "/v1/methods"): set(auth.ROLES),
    ("GET", "/v1/metrics"): set(auth.ROLES),
    ("GET", "/v1/audit/events"): {"auditor"},
    ("GET", "/v1/jobs"): {"reviewer", "auditor", "operator"},
}


def test_each_call_is_open_to_its_roles_and_to_no_other(api: TestClient, make_key: MakeKey) -> None:
    keys = {role: make_key(role) for role in auth.ROLES}
    for (method, path), allowed in _CALLS.items():
        for role, headers in keys.items():
            answer = api.request(method, path, headers=headers)
            refused = answer.status_code == 403
            assert refused == (role not in allowed | {"admin"}), (method, path, role, answer.text)
