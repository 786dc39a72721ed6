"""Stage publish where a person decides: waits without a lease, goes on when approved, gives way when cancelled."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.auth import service as auth
from service.auth.service import Principal
from service.database import clock, new_id, reading, transaction
from service.deletion import service as deletion
from service.deletion.models import DeletionRequest
from service.deletion.schemas import CreateRequest
from service.errors import Cancelled, JobError
from service.jobs import dispatch, leases, reviews
from service.jobs import service as jobs
from service.jobs.models import Attempt, Job
from service.registry import files
from service.registry import service as registry
from service.registry.models import Version
from service.settings import get_settings
from tests.locks import until_blocked
from tests.service.factories import image_model, register_images
from tests.service.reports import samples
from workers.tasks import publish, resolve
from workers.tasks.evidence import evidence_of
from workers.tasks.work import Work

ADMIN = Principal("key_1", frozenset({"admin"}))
WAITS = '[batch]\nwindow = "0s"\n[approval]\npublication = true\n'
OVERRIDE = '[batch]\nwindow = "0s"\n[approval]\noverride = true\n'
UNDECIDED: dict[str, Any] = {"ci": (0.3, 0.7), "ci95": (0.29, 0.71)}


def _work(job_id: str, stage: str) -> Work:
    claim = leases.claim(job_id, stage, "test")
    assert claim is not None
    return Work(claim)


def _job(job_id: str) -> Job:
    with reading() as session:
        return jobs.get_job(session, job_id)


def _resolved(folder: Path, policy: str) -> tuple[str, list[str]]:
    """(job, its two requests), with their records looked up."""
    (folder / "policy.toml").write_text(policy)
    register_images(folder, policy=folder / "policy.toml")
    requests = []
    for subject in ("s1", "s2"):
        body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": subject}]}}
        requests.append(str(deletion.create(CreateRequest.model_validate(body), ADMIN).request["id"]))
    (job_id,) = dispatch.dispatch()
    resolve.run(_work(job_id, "resolve"))
    return job_id, requests


def _judged(job_id: str, state: str, next_stage: str, number: int = 1) -> None:
    """An attempt that the gate has judged so."""
    folder = get_settings().home / "jobs" / job_id / "fence-2"
    candidate = image_model(folder / f"candidate-{number}", fill=number)
    told = samples.evaluation() if state == "passed" else samples.evaluation(**UNDECIDED)
    with transaction() as session:
        row = Attempt(id=new_id("att"), job_id=job_id, number=number, method="nabla_tau", params={}, seed=0)
        row.state = state
        row.started_at, row.candidate_path, row.verification = clock(session), str(candidate), told.as_json()
        row.candidate_digest = files.manifest_digest(files.digest_directory(candidate))
        session.add(row)
        leases.move_on(session, job_id, next_stage)


@pytest.fixture
def waiting(database_url: str, tmp_path: Path) -> tuple[str, list[str]]:
    """A job that has passed the gate and waits for its reviewer."""
    job_id, requests = _resolved(tmp_path, WAITS)
    _judged(job_id, "passed", "publish")
    publish.run(_work(job_id, "publish"))
    return job_id, requests


def _versions() -> list[Version]:
    with reading() as session:
        return list(session.scalars(select(Version).order_by(Version.number)))


def test_it_waits_without_a_lease_and_without_messages(waiting: tuple[str, list[str]]) -> None:
    job = _job(waiting[0])
    assert (job.status, job.stage, job.waits_for) == ("running", "publish", "reviewer")
    assert (job.owner, job.lease_until) == (None, None)
    assert leases.claim(job.id, "publish", "a stale message") is None
    assert jobs.take_messages() == []
    assert len(_versions()) == 1
    with reading() as session:
        assert all(row.cancellable for row in session.scalars(select(DeletionRequest)))


def test_an_approval_lets_it_be_published(waiting: tuple[str, list[str]]) -> None:
    job_id, _ = waiting
    reviews.approve(job_id, 1, ADMIN)
    assert jobs.take_messages() == [(job_id, "publish")]
    publish.run(_work(job_id, "publish"))
    assert [(row.number, row.state) for row in _versions()] == [(1, "retired"), (2, "serving")]
    work = _work(job_id, "attest")
    told = evidence_of(work)
    assert told.published is not None
    assert told.review is not None
    assert (told.review.kind, told.review.key_id, told.review.reason) == ("approved", ADMIN.id, None)
    with pytest.raises(Exception, match="does not wait for a reviewer"):
        reviews.approve(job_id, 1, ADMIN)


def test_a_cancelled_request_sends_it_back_and_nothing_is_published(waiting: tuple[str, list[str]]) -> None:
    job_id, requests = waiting
    deletion.cancel(requests[0], ADMIN)
    assert jobs.take_messages() == [(job_id, "publish")]
    publish.run(_work(job_id, "publish"))
    job = _job(job_id)
    assert (job.status, job.stage, job.waits_for, job.scope) == ("running", "resolve", None, None)
    with pytest.raises(Exception, match="does not wait for a reviewer"):
        reviews.approve(job_id, 1, ADMIN)
    resolve.run(_work(job_id, "resolve"))
    assert list((_job(job_id).scope or {})["requests"]) == [requests[1]]
    assert len(_versions()) == 1


def test_when_all_are_cancelled_it_ends(waiting: tuple[str, list[str]]) -> None:
    job_id, requests = waiting
    for each in requests:
        deletion.cancel(each, ADMIN)
    publish.run(_work(job_id, "publish"))
    with pytest.raises(Cancelled):
        resolve.run(_work(job_id, "resolve"))


def test_woken_for_nothing_it_waits_again(waiting: tuple[str, list[str]]) -> None:
    with transaction() as session:
        session.execute(update(Job).values(waits_for=None))
    publish.run(_work(waiting[0], "publish"))
    assert _job(waiting[0]).waits_for == "reviewer"
    assert len(_versions()) == 1


def test_only_a_reviewer_approves_and_only_what_waits(
    waiting: tuple[str, list[str]], database_url: str, tmp_path: Path
) -> None:
    from service.main import create_app

    path = f"/v1/jobs/{waiting[0]}/approve-publication"
    with transaction() as session:
        texts = {role: auth.create_key(session, role, [role])[1] for role in ("operator", "reviewer")}
    headers = {role: {"authorization": f"Bearer {text}"} for role, text in texts.items()}
    with TestClient(create_app(), raise_server_exceptions=False) as api:
        assert api.post(path, json={"attempt": 1}, headers=headers["operator"]).status_code == 403
        unknown = api.post(path, json={"attempt": 2}, headers=headers["reviewer"])
        assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_attempt")
        seen = api.get(f"/v1/jobs/{waiting[0]}", headers=headers["reviewer"]).json()
        left = date.fromisoformat(seen["due_at"][:10]) - datetime.now(UTC).date()
        assert (seen["waits_for"], seen["days_left"]) == ("reviewer", left.days)
        assert left.days >= 27
        done = api.post(path, json={"attempt": 1}, headers=headers["reviewer"])
        assert (done.status_code, done.json()["waits_for"], done.json()["review"]["kind"]) == (200, None, "approved")
        again = api.post(path, json={"attempt": 1}, headers=headers["reviewer"])
        assert (again.status_code, again.json()["code"]) == (409, "not_waiting")


def test_what_was_released_is_published_as_inconclusive(database_url: str, tmp_path: Path) -> None:
    job_id, requests = _resolved(tmp_path, OVERRIDE)
    _judged(job_id, "inconclusive", "unlearn")
    work = _work(job_id, "unlearn")
    jobs.fail(job_id, work.claim.fence, JobError("no rung of the ladder passed the gate"))
    reviews.release(job_id, 1, "No more records will come.", ADMIN)
    publish.run(_work(job_id, "publish"))
    version = _versions()[-1]
    assert (version.number, version.state) == (2, "serving")
    assert version.verification is not None
    assert version.verification["verdict"] == "inconclusive"
    told = evidence_of(_work(job_id, "attest"))
    assert told.review is not None
    assert (told.review.kind, told.review.reason) == ("released", "No more records will come.")
    assert told.published is not None
    assert told.published.state == "released"
    # The files of the job stay until its end, however long the publication takes.
    with reading() as session:
        assert registry.sweep_destroyed(clock(session) + timedelta(days=30)) == 1  # the retired version
    assert (get_settings().home / "jobs" / job_id).is_dir()
    with reading() as session:
        assert {session.get_one(DeletionRequest, each).cancellable for each in requests} == {False}


def test_a_request_cancelled_after_the_release_sends_the_job_back(database_url: str, tmp_path: Path) -> None:
    job_id, requests = _resolved(tmp_path, OVERRIDE)
    _judged(job_id, "inconclusive", "unlearn")
    jobs.fail(job_id, _work(job_id, "unlearn").claim.fence, JobError("no rung passed"))
    reviews.release(job_id, 1, "No more records will come.", ADMIN)
    deletion.cancel(requests[0], ADMIN)
    publish.run(_work(job_id, "publish"))
    job = _job(job_id)
    assert (job.stage, job.review, job.verdict) == ("resolve", None, None)
    assert len(_versions()) == 1


def test_what_was_released_is_published_whatever_else_passed(database_url: str, tmp_path: Path) -> None:
    job_id, _ = _resolved(tmp_path, OVERRIDE)
    _judged(job_id, "inconclusive", "unlearn")
    jobs.fail(job_id, _work(job_id, "unlearn").claim.fence, JobError("no rung passed"))
    reviews.release(job_id, 1, "No more records will come.", ADMIN)
    _judged(job_id, "passed", "publish", number=2)
    publish.run(_work(job_id, "publish"))
    first, second = _work(job_id, "attest").attempts()
    assert (first.state, second.state) == ("released", "passed")
    assert _versions()[-1].digest == first.candidate_digest != second.candidate_digest


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_cancellation_while_it_begins_to_wait_is_not_missed(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else sees that the job waits until its transaction ends, so that no cancellation can wake it before."""
    job_id, requests = _resolved(tmp_path, WAITS)
    _judged(job_id, "passed", "publish")
    cancelling, hold = Thread(target=deletion.cancel, args=(requests[0], ADMIN)), jobs.hold

    def hold_meanwhile(session: Session, held: str, number: int) -> None:
        hold(session, held, number)
        cancelling.start()
        until_blocked(database_url, cancelling)

    monkeypatch.setattr(jobs, "hold", hold_meanwhile)
    publish.run(_work(job_id, "publish"))
    cancelling.join(30)
    with reading() as session:
        assert session.get_one(DeletionRequest, requests[0]).status == "cancelled"
    assert _job(job_id).waits_for is None
    assert jobs.take_messages() == [(job_id, "publish")]
