"""The log over HTTP."""

from fastapi.testclient import TestClient

from service.audit import sequencer, service
from service.database import transaction
from tests.service.conftest import MakeKey


def _write(count: int) -> None:
    with transaction() as session:
        for number in range(count):
            service.record(session, "test.event", actor="test", ref="x", data={"number": number})


def test_sealed_events_come_in_pages(api: TestClient, make_key: MakeKey) -> None:
    headers = make_key("auditor")
    _write(5)
    assert api.get("/v1/audit/events", headers=headers).json()["items"] == []
    sequencer.seal()
    page = api.get("/v1/audit/events?limit=2", headers=headers).json()
    events = page["items"]
    while page["next_cursor"]:
        page = api.get(f"/v1/audit/events?limit=2&cursor={page['next_cursor']}", headers=headers).json()
        events += page["items"]
    assert [event["data"]["number"] for event in events] == [0, 1, 2, 3, 4]
    head = api.get("/v1/audit/checkpoint", headers=headers).json()
    assert head == {"size": 5, "chain_hash": events[-1]["chain_hash"], "time": events[-1]["at"]}
    assert service.verify_chain(events) == (head["chain_hash"], None)


def test_only_auditors_read_it(api: TestClient, make_key: MakeKey) -> None:
    for path in ("/v1/audit/events", "/v1/audit/checkpoint"):
        assert api.get(path).status_code == 401
        assert api.get(path, headers=make_key("submitter", "operator")).json()["code"] == "forbidden"
        assert api.get(path, headers=make_key("admin")).status_code == 200


def test_a_forged_cursor_is_refused(api: TestClient, admin: dict[str, str]) -> None:
    for cursor in ("x", "%00", "WyJhIl0", "W10", "\u00e9"):
        answer = api.get("/v1/audit/events", params={"cursor": cursor}, headers=admin)
        assert answer.status_code == 422, cursor
        assert answer.json()["code"] == "invalid"
