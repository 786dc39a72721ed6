"""A job that begins to need a reviewer tells so: log, events, callbacks, lists and gauges."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.audit.models import AuditEvent
from service.database import clock, reading, transaction
from service.deletion import service as deletion
from service.deletion.models import DeletionRequest
from service.jobs import leases, reviews, waiting
from service.jobs import service as jobs
from service.jobs.models import Attempt, Job, JobEvent
from service.notify import outbox
from service.notify.models import OutboxMessage
from service.registry.models import Artefact
from service.settings import get_settings
from tests.receivers import receiving
from tests.service.conftest import MakeKey
from tests.service.jobs.support import ADMIN, OVERRIDE, REASON, Failed, failed_job
from workers.tasks.deliver import deliver

HOOK = "https://receiver.example/hook"
NO_OVERRIDE = OVERRIDE.replace("true", "false")


@pytest.fixture
def failed(database_url: str, tmp_path: Path) -> Failed:
    return failed_job(tmp_path, callback_url=HOOK)


def _logged() -> list[AuditEvent]:
    with reading() as session:
        return list(session.scalars(select(AuditEvent).where(AuditEvent.kind == "job.waiting")))


def _callbacks() -> list[OutboxMessage]:
    with reading() as session:
        return list(session.scalars(select(OutboxMessage).where(OutboxMessage.topic == outbox.WAITING)))


def _last_event(job_id: str) -> JobEvent:
    with reading() as session:
        return session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)).all()[-1]


def _held(failed: Failed) -> None:
    """The same job, had its attempt passed and its policy asked for an approval."""
    with transaction() as session:
        session.execute(update(Job).values(status="running", stage="publish", error=None, finished_at=None))
        session.execute(update(Attempt).values(state="passed"))
        session.execute(update(DeletionRequest).values(status="running"))
        session.execute(update(Artefact).values(destroy_by=None))
        jobs.hold(session, failed.job_id, 1)


def test_what_can_be_released_is_told_when_the_job_fails(failed: Failed) -> None:
    told = {"waits_for": "reviewer", "decision": "release", "attempts": [1]}
    (event,) = _logged()
    assert (event.ref, event.actor, event.data) == (failed.job_id, "worker", told)
    last = _last_event(failed.job_id)
    assert (last.kind, last.data["status"]) == ("done", "failed")
    assert told.items() <= last.data.items()
    assert [message.ref for message in _callbacks()] == [failed.requests[0]]


def test_a_failure_that_nobody_can_release_waits_for_nobody(database_url: str, tmp_path: Path) -> None:
    job = failed_job(tmp_path, NO_OVERRIDE, callback_url=HOOK)
    assert (_logged(), _callbacks()) == ([], [])
    assert "waits_for" not in _last_event(job.job_id).data
    with reading() as session:
        assert waiting.of_request(session, job.requests[0]) == []


def test_a_version_that_waits_for_its_approval_is_told(database_url: str, tmp_path: Path) -> None:
    job = failed_job(tmp_path, NO_OVERRIDE, callback_url=HOOK)
    _held(job)
    told = {"waits_for": "reviewer", "decision": "approval", "attempts": [1]}
    (event,) = _logged()
    assert (event.ref, event.data) == (job.job_id, told)
    last = _last_event(job.job_id)
    assert (last.kind, last.data) == ("stage", {"stage": "publish", "status": "waiting"} | told)
    assert [message.ref for message in _callbacks()] == [job.requests[0]]
    with reading() as session:
        assert waiting.of_request(session, job.requests[1]) == [{"id": job.job_id, "decision": "approval"}]
    reviews.approve(job.job_id, 1, ADMIN)
    with reading() as session:
        assert waiting.of_request(session, job.requests[1]) == []


def _ids(api: TestClient, headers: dict[str, str], decision: str) -> list[str]:
    answer = api.get("/v1/jobs", params={"waiting": decision}, headers=headers)
    assert answer.status_code == 200
    return [job["id"] for job in answer.json()["items"]]


def _gauges(api: TestClient) -> dict[str, float]:
    lines = [line.split() for line in api.get("/metrics").text.splitlines() if line.startswith("lethe_jobs_waiting")]
    return {name: float(value) for name, value in lines}


def test_lists_and_gauges_follow_the_decision(api: TestClient, make_key: MakeKey, failed: Failed) -> None:
    reviewer = make_key("reviewer")
    kinds = ("approval", "release", "any")
    assert [_ids(api, reviewer, kind) for kind in kinds] == [[], [failed.job_id], [failed.job_id]]
    gauges = _gauges(api)
    assert gauges['lethe_jobs_waiting{decision="release"}'] == 1
    assert gauges['lethe_jobs_waiting{decision="approval"}'] == 0
    assert 27 * 86400 < gauges['lethe_jobs_waiting_due_seconds{decision="release"}'] < 32 * 86400
    assert 'lethe_jobs_waiting_due_seconds{decision="approval"}' not in gauges
    reviews.release(failed.job_id, 1, REASON, ADMIN)
    assert [_ids(api, reviewer, kind) for kind in kinds] == [[], [], []]
    _held(failed)
    assert [_ids(api, reviewer, kind) for kind in kinds] == [[failed.job_id], [], [failed.job_id]]
    assert _gauges(api)['lethe_jobs_waiting{decision="approval"}'] == 1
    wrong = api.get("/v1/jobs", params={"waiting": "everything"}, headers=reviewer)
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")


def test_what_can_no_longer_be_released_waits_for_nobody(failed: Failed) -> None:
    with reading() as session:
        now = clock(session)
        jobs_at = [session.scalars(select(Job.id).where(waiting.awaiting("release", at))).all() for at in _moments(now)]
    assert jobs_at == [[failed.job_id], []]
    deletion.cancel(failed.requests[1], ADMIN)
    with reading() as session:
        assert waiting.of_request(session, failed.requests[0]) == []


def _moments(now: Any) -> list[Any]:
    """Before and after the end of the job's files."""
    return [now, now + timedelta(days=8)]


def test_the_callback_names_job_and_decision_and_is_dropped_once_decided(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE_WEBHOOKS__ALLOW_PRIVATE", "true")
    get_settings.cache_clear()
    with receiving() as receiver:
        job = failed_job(tmp_path, callback_url=f"http://127.0.0.1:{receiver.port}/hook")
        (message,) = _callbacks()
        deliver(message.id, "0")
        ((_, sent),) = receiver.requests
        body = json.loads(sent)
        assert body["type"] == "deletion_request.waiting"
        assert body["data"] == {
            "id": job.requests[0],
            "status": "failed",
            "external_id": None,
            "waits_for": "reviewer",
            "jobs": [{"id": job.job_id, "decision": "release"}],
        }
        assert _callbacks() == []
        with transaction() as session:
            late = outbox.put(session, outbox.WAITING, job.requests[0])
        reviews.release(job.job_id, 1, REASON, ADMIN)
        deliver(late, "0")
        assert len(receiver.requests) == 1
        assert _callbacks() == []


def test_the_scheduler_sends_it_as_a_callback(failed: Failed) -> None:
    with transaction() as session:
        due = [message.topic for message in outbox.take_due(session) if message.topic in outbox.CALLBACKS]
    assert due == [outbox.WAITING]


def test_it_is_told_once_however_often_the_lease_is_tried(failed: Failed) -> None:
    _held(failed)
    assert len(_logged()) == 2  # failed with an offer, then held: one line each
    assert leases.claim(failed.job_id, "publish", "a stale message") is None
    assert len(_logged()) == 2
