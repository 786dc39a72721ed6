"""Approving, rejecting, cancelling, extending, retrying; and what jobs do to requests in between."""

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, update

from service.database import clock, reading, transaction
from service.deletion import lifecycle
from service.deletion.models import DeletionRequest, RequestTarget
from service.jobs.models import Job
from service.registry.models import Model
from tests.service.conftest import MakeKey
from tests.service.deletion.support import PATH, body, counts
from tests.service.factories import register_images

Headers = dict[str, str]


def _create(api: TestClient, headers: Headers, **changes: object) -> str:
    return str(api.post(PATH, json=body(**changes), headers=headers).json()["id"])


def _act(
    api: TestClient, request_id: str, action: str, headers: Headers, **sent: object
) -> tuple[int, dict[str, object]]:
    answer = api.post(f"{PATH}/{request_id}/{action}", headers=headers, **({"json": sent} if sent else {}))
    return answer.status_code, answer.json()


def _start_job(request_ids: list[str], job_id: str = "job_1", model: str = "digits", status: str = "running") -> None:
    with transaction() as session:
        row = session.query(Model).filter_by(name=model).one()
        values = {"id": job_id, "model_id": row.id, "model_name": model, "status": status, "stage": "resolve"}
        extra = {"policy": {}, "policy_digest": "", "fence": 1, "claims": 0, "sends": 0, "cancel_requested": False}
        session.execute(insert(Job).values(**values, **extra, progress=0.0, metrics={}, created_at=clock(session)))
        mine = (RequestTarget.request_id.in_(request_ids), RequestTarget.model_id == row.id)
        session.execute(update(RequestTarget).where(*mine).values(job_id=job_id))
        lifecycle.mark_running(session, request_ids, job_id)


def _end_job(job_id: str, status: str) -> None:
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status=status))


def test_a_request_goes_through_its_life(api: TestClient, admin: Headers, digits: str) -> None:
    request_id = _create(api, admin)
    _start_job([request_id])
    with transaction() as session:
        lifecycle.set_progress(session, "job_1", "unlearn", 0.4, 1)
        lifecycle.set_progress(session, "job_1", "verify", 0.3, 2)
    seen = api.get(f"{PATH}/{request_id}", headers=admin).json()
    assert (seen["status"], seen["stage"], seen["progress"], seen["attempts"]) == ("running", "verify", 0.4, 2)
    assert seen["targets"][0]["job_id"] == "job_1"
    with transaction() as session:
        assert lifecycle.seal_cancellation(session, [request_id]) == [request_id]
        assert lifecycle.seal_cancellation(session, [request_id]) == [request_id]
        assert lifecycle.complete(session, request_id) is False
        outcome = {"outcome": "published", "records": 4, "base_version": 1, "new_version": 2}
        lifecycle.record_outcome(session, "job_1", request_id, **outcome, verdict="pass", grade="A")
        assert lifecycle.complete(session, request_id) is True
        assert lifecycle.complete(session, request_id) is True
    done = api.get(f"{PATH}/{request_id}", headers=admin).json()
    assert (done["status"], done["progress"], done["cancellable"]) == ("completed", 1.0, False)
    assert done["completed_at"] is not None
    assert done["targets"][0] == outcome | {"model": digits, "job_id": "job_1", "verdict": "pass", "grade": "A"}
    kinds = [entry["kind"] for entry in done["history"]]
    assert kinds == ["request.accepted", "request.running", "request.completed"]


def test_completion_destroys_the_identifiers_and_keeps_the_suppression(
    api: TestClient, admin: Headers, digits: str
) -> None:
    request_id = _create(api, admin)
    _start_job([request_id])
    with transaction() as session:
        lifecycle.record_outcome(session, "job_1", request_id, outcome="no_records", records=0)
        lifecycle.complete(session, request_id)
    with reading() as session:
        row = session.get_one(DeletionRequest, request_id)
        assert (row.sealed, row.data_key) == (None, None)
        assert lifecycle.open_subjects(session, [request_id]) == {request_id: []}
    assert counts()["suppression_entries"] == 1


def test_a_cancelled_request_leaves_nothing_of_the_person(api: TestClient, admin: Headers, digits: str) -> None:
    request_id = _create(api, admin, callback_url="https://example.org/x")
    status, cancelled = _act(api, request_id, "cancel", admin)
    assert (status, cancelled["status"]) == (200, "cancelled")
    assert _act(api, request_id, "cancel", admin)[0] == 200
    with reading() as session:
        assert session.get_one(DeletionRequest, request_id).sealed is None
    found = counts()
    assert found["suppression_entries"] == 0
    assert found["outbox"] == 2
    assert found["audit_events"] == 2


def test_cancelling_ends_where_publication_begins(api: TestClient, admin: Headers, digits: str) -> None:
    early, late = _create(api, admin), _create(api, admin)
    _start_job([early, late])
    assert _act(api, early, "cancel", admin)[0] == 200
    with transaction() as session:
        assert lifecycle.seal_cancellation(session, [early, late]) == [late]
    status, problem = _act(api, late, "cancel", admin)
    assert (status, problem["code"]) == (409, "too_late")
    assert "publication" in str(problem["detail"])
    with transaction() as session:
        lifecycle.record_outcome(session, "job_1", late, outcome="no_records", records=0)
        lifecycle.complete(session, late)
        lifecycle.record_outcome(session, "job_1", early, outcome="no_records", records=0)
        lifecycle.complete(session, early)
    assert api.get(f"{PATH}/{early}", headers=admin).json()["status"] == "cancelled"
    assert _act(api, late, "cancel", admin)[1]["code"] == "too_late"


def test_a_failed_request_waits_for_a_person_and_can_be_retried(
    api: TestClient, admin: Headers, make_key: MakeKey, digits: str
) -> None:
    request_id = _create(api, admin)
    assert _act(api, request_id, "retry", admin)[1]["code"] == "conflict"
    _start_job([request_id])
    with transaction() as session:
        assert lifecycle.mark_failed(session, "job_1", "no space left") == [request_id]
        assert lifecycle.mark_failed(session, "job_1", "no space left") == []
    failed = api.get(f"{PATH}/{request_id}", headers=admin).json()
    assert (failed["status"], failed["reason"]) == ("failed", "no space left")
    assert failed["targets"][0]["job_id"] == "job_1"
    _end_job("job_1", "failed")
    before = counts()["outbox"]
    status, retried = _act(api, request_id, "retry", make_key("operator"))
    assert (status, retried["status"], retried["reason"], retried["progress"]) == (200, "accepted", None, 0.0)
    assert retried["targets"][0]["job_id"] is None
    assert counts()["outbox"] == before + 1


def test_one_failed_job_leaves_the_other_model_alone(
    api: TestClient, admin: Headers, digits: str, tmp_path: Path
) -> None:
    register_images(tmp_path, name="second")
    request_id = _create(api, admin)
    _start_job([request_id], "job_1", "digits")
    _start_job([request_id], "job_2", "second")
    with transaction() as session:
        lifecycle.mark_failed(session, "job_1", "out of memory")
    _end_job("job_1", "failed")
    with transaction() as session:
        assert lifecycle.seal_cancellation(session, [request_id]) == [request_id]
        lifecycle.record_outcome(session, "job_2", request_id, outcome="no_records", records=0)
        assert lifecycle.complete(session, request_id) is False
    assert _act(api, request_id, "retry", admin)[0] == 200
    _start_job([request_id], "job_3", "digits")
    with transaction() as session:
        lifecycle.set_progress(session, "job_3", "plan", 0.5, 0)
    seen = api.get(f"{PATH}/{request_id}", headers=admin).json()
    assert seen["progress"] == 0.75
    assert [target["job_id"] for target in seen["targets"]] == ["job_3", "job_2"]
    with transaction() as session:
        lifecycle.record_outcome(session, "job_3", request_id, outcome="already_deleted", records=0)
        assert lifecycle.complete(session, request_id) is True


def test_retrying_does_not_take_a_target_from_a_job_that_still_runs(
    api: TestClient, admin: Headers, digits: str, tmp_path: Path
) -> None:
    register_images(tmp_path, name="second")
    request_id = _create(api, admin)
    _start_job([request_id], "job_1", "digits")
    _start_job([request_id], "job_2", "second")
    with transaction() as session:
        lifecycle.mark_failed(session, "job_1", "out of memory")
    _end_job("job_1", "failed")
    _, retried = _act(api, request_id, "retry", admin)
    assert [target["job_id"] for target in retried["targets"]] == [None, "job_2"]


def test_an_extension_is_taken_once_and_in_time(api: TestClient, admin: Headers, digits: str) -> None:
    sent = body(received_at="2026-11-01T00:00:00Z")
    request = api.post(PATH, json=sent, headers=admin).json()
    status, extended = _act(api, request["id"], "extend", admin, reason="many requests at once")
    assert (status, extended["due_at"]) == (200, "2027-02-01T00:00:00.000Z")
    assert extended["extended_at"] is not None
    assert _act(api, request["id"], "extend", admin)[1]["detail"] == (
        "the request has been extended before; there is one extension"
    )
    late = api.post(PATH, json=body(received_at="2020-01-01T00:00:00Z"), headers=admin).json()
    assert late["days_left"] < 0
    assert _act(api, late["id"], "extend", admin)[1]["code"] == "too_late"


def test_only_pending_requests_are_approved_or_rejected(
    api: TestClient, admin: Headers, database_url: str, tmp_path: Path
) -> None:
    policy = tmp_path / "p.toml"
    policy.write_text("[approval]\nrequired = true\n")
    register_images(tmp_path, policy=policy)
    request_id = _create(api, admin)
    status, rejected = _act(api, request_id, "reject", admin, reason="not our customer")
    assert (status, rejected["status"], rejected["reason"]) == (200, "rejected", "not our customer")
    assert counts()["suppression_entries"] == 0
    for action in ("approve", "reject", "cancel", "extend", "retry"):
        status, problem = _act(api, request_id, action, admin)
        assert (status, problem["status"]) == (409, 409), action
        assert "rejected" in str(problem["detail"])


@pytest.mark.parametrize("sent", [{"reason": ""}, {"reason": 7}, {"why": "x"}, {"reason": "x" * 4001}])
def test_a_reason_must_be_text(api: TestClient, admin: Headers, digits: str, sent: dict[str, object]) -> None:
    request_id = _create(api, admin)
    assert _act(api, request_id, "extend", admin, **sent)[0] == 422


def test_submitters_see_and_cancel_only_their_own(api: TestClient, make_key: MakeKey, digits: str) -> None:
    mine, other = make_key("submitter"), make_key("submitter")
    request_id = _create(api, mine)
    assert api.get(f"{PATH}/{request_id}", headers=mine).status_code == 200
    assert api.get(f"{PATH}/{request_id}", headers=other).json()["code"] == "not_found"
    assert _act(api, request_id, "cancel", other)[1]["code"] == "not_found"
    assert api.get(PATH, headers=other).json()["items"] == []
    assert len(api.get(PATH, headers=mine).json()["items"]) == 1
    for role in ("reviewer", "auditor", "operator"):
        assert api.get(f"{PATH}/{request_id}", headers=make_key(role)).status_code == 200
    assert _act(api, request_id, "cancel", mine)[0] == 200


@pytest.mark.parametrize("request_id", ["req_none", "x" * 200, "%00", "..%2f", "jane@example.org"])
def test_an_unknown_id_is_not_found_and_not_quoted(api: TestClient, admin: Headers, request_id: str) -> None:
    for answer in (
        api.get(f"{PATH}/{request_id}", headers=admin),
        api.post(f"{PATH}/{request_id}/cancel", headers=admin),
    ):
        assert answer.status_code in (404, 422)
        assert "jane" not in answer.text


def test_lists_are_filtered_and_paged(api: TestClient, admin: Headers, digits: str, tmp_path: Path) -> None:
    register_images(tmp_path, name="second")
    ids = []
    for number in range(7):
        changes = {
            "regulation": ("gdpr", "ccpa")[number % 2],
            "external_id": f"T-{number}",
            "models": [("digits", "second")[number % 2]],
        }
        ids.append(_create(api, admin, **changes))
    _act(api, ids[0], "cancel", admin)
    listed, cursor = [], None
    while True:
        page = api.get(PATH, params={"limit": 3} | ({"cursor": cursor} if cursor else {}), headers=admin).json()
        assert page["limit"] == 3
        listed += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert listed == ids[::-1]

    def find(**params: object) -> list[int]:
        answer = api.get(PATH, params=params, headers=admin)
        assert answer.status_code == 200, answer.text
        return sorted(ids.index(item["id"]) for item in answer.json()["items"])

    assert find(status="cancelled") == [0]
    assert find(status=["cancelled", "accepted"]) == list(range(7))
    assert find(regulation="ccpa") == [1, 3, 5]
    assert find(model="second") == [1, 3, 5]
    assert find(model="nothing") == []
    assert find(external_id="T-4") == [4]
    assert find(regulation="gdpr", status="accepted") == [2, 4, 6]
    with reading() as session:
        now = clock(session)
    assert find(due_before=(now + timedelta(days=40)).isoformat()) == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"status": "done"}, "invalid"),
        ({"regulation": "lgpd"}, "unknown_regulation"),
        ({"due_before": "soon"}, "invalid"),
        ({"due_before": "0001-01-01T00:00:00+14:00"}, "invalid"),
        ({"limit": "0"}, "invalid"),
        ({"limit": "many"}, "invalid"),
        ({"cursor": "x"}, "invalid"),
        ({"cursor": "WyJhIiwgImIiXQ"}, "invalid"),
        ({"external_id": "a\0b"}, "invalid"),
        ({"model": "x" * 300}, "invalid"),
    ],
)
def test_bad_filters_are_refused(api: TestClient, admin: Headers, params: dict[str, str], code: str) -> None:
    answer = api.get(PATH, params=params, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
