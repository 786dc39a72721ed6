"""Releasing what the gate left undecided: what is allowed, what is refused, and what one transaction leaves."""

import hashlib
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.audit.models import AuditEvent
from service.database import clock, reading, transaction
from service.deletion import service as deletion
from service.deletion.models import DeletionRequest, RequestTarget
from service.errors import Conflict, JobError, NotReleasable, RequestsChanged
from service.jobs import dispatch, leases, reviews
from service.jobs import service as jobs
from service.jobs.models import Attempt, Job, JobEvent
from service.registry import service as registry
from service.registry.models import Artefact, Model
from service.verification.schema import Evaluation
from tests.service.conftest import MakeKey
from tests.service.jobs.support import ADMIN, OVERRIDE, REASON, UNDECIDED, Failed, failed_job, job_of, post
from tests.service.reports import samples

Headers = dict[str, str]
WEEK = timedelta(days=7)


@pytest.fixture
def failed(database_url: str, tmp_path: Path) -> Failed:
    return failed_job(tmp_path)


@pytest.fixture
def reviewer(make_key: MakeKey) -> Headers:
    return make_key("reviewer")


def _release(api: TestClient, job_id: str, headers: Headers, **changes: Any) -> tuple[int, dict[str, Any]]:
    answer = api.post(f"/v1/jobs/{job_id}/release", json={"attempt": 1, "reason": REASON} | changes, headers=headers)
    return answer.status_code, answer.json()


def _files(job_id: str) -> Artefact:
    with reading() as session:
        return session.scalars(select(Artefact).where(Artefact.job_id == job_id)).one()


def _events(kind: str) -> list[AuditEvent]:
    with reading() as session:
        return list(session.scalars(select(AuditEvent).where(AuditEvent.kind == kind)))


def _statuses(failed: Failed) -> list[str]:
    with reading() as session:
        return [session.get_one(DeletionRequest, each).status for each in failed.requests]


def test_what_can_be_released_is_kept_for_a_week_and_told(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    job = api.get(f"/v1/jobs/{failed.job_id}", headers=reviewer).json()
    assert (job["status"], job["waits_for"], job["review"]) == ("failed", None, None)
    finished = job_of(failed.job_id).finished_at
    assert finished is not None
    assert job["releasable"] == {"attempts": [1], "until": (finished + WEEK).isoformat()}
    destroy_by = _files(failed.job_id).destroy_by
    assert destroy_by is not None
    assert abs(destroy_by - finished - WEEK) < timedelta(seconds=5)
    assert registry.sweep_destroyed(finished + WEEK - timedelta(minutes=1)) == 0
    assert failed.candidate.is_dir()
    assert registry.sweep_destroyed(destroy_by) == 1
    assert not failed.candidate.exists()
    status, problem = _release(api, failed.job_id, reviewer)
    assert (status, problem["code"]) == (409, "candidate_unusable")
    assert _statuses(failed) == ["failed", "failed"]


def test_a_release_opens_the_job_at_its_publish_stage(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    status, job = _release(api, failed.job_id, reviewer, reason=f"  {REASON}\n")
    assert status == 200
    assert (job["status"], job["stage"], job["verdict"], job["grade"]) == ("queued", "publish", "inconclusive", None)
    assert (job["error"], job["finished_at"], job["releasable"]) == (None, None, None)
    assert job["attempts"][0]["state"] == "released"
    digest = hashlib.sha256(REASON.encode()).hexdigest()
    review = job["review"]
    assert (review["kind"], review["attempt"], review["reason"], review["reason_sha256"]) == (
        "released",
        1,
        REASON,
        digest,
    )
    assert _statuses(failed) == ["running", "running"]
    assert _files(failed.job_id).destroy_by is None
    assert jobs.take_messages() == [(failed.job_id, "publish")]
    (event,) = _events("attempt.released")
    assert (event.ref, event.actor) == (failed.job_id, review["key_id"])
    assert event.data["reason_sha256"] == digest
    assert event.data["digest"] == job["attempts"][0]["candidate_digest"]
    with reading() as session:
        streamed = session.scalars(select(JobEvent).where(JobEvent.job_id == failed.job_id)).all()
    assert (streamed[-1].kind, streamed[-1].data["state"]) == ("attempt", "released")


def test_the_reason_is_in_no_event(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    assert _release(api, failed.job_id, reviewer)[0] == 200
    with reading() as session:
        audited = [str(row.data) for row in session.scalars(select(AuditEvent))]
        streamed = [str(row.data) for row in session.scalars(select(JobEvent))]
    assert not [text for text in audited + streamed if "retrain is planned" in text]


def test_releasing_twice_changes_nothing(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    assert _release(api, failed.job_id, reviewer)[0] == 200
    status, problem = _release(api, failed.job_id, reviewer)
    assert (status, problem["code"]) == (409, "job_not_failed")
    assert len(_events("attempt.released")) == 1


def test_a_publication_that_breaks_can_be_released_again(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    assert _release(api, failed.job_id, reviewer)[0] == 200
    claim = leases.claim(failed.job_id, "publish", "test")
    assert claim is not None
    jobs.fail(failed.job_id, claim.fence, JobError("no space left"))
    assert _statuses(failed) == ["failed", "failed"]
    assert _files(failed.job_id).destroy_by is not None
    status, job = _release(api, failed.job_id, reviewer, reason="The disk has room again now.")
    assert (status, job["review"]["reason"]) == (200, "The disk has room again now.")


def _changed(failed: Failed) -> None:
    (failed.candidate / "config.json").write_text("{}")


def _gone(failed: Failed) -> None:
    shutil.rmtree(failed.candidate)


def _cancelled(failed: Failed) -> None:
    deletion.cancel(failed.requests[0], ADMIN)


def _retried(failed: Failed) -> None:
    deletion.retry(failed.requests[1], ADMIN)


def _overtaken(failed: Failed) -> None:
    with transaction() as session:
        session.execute(update(Model).values(serving_version_id="ver_other"))


def _running(failed: Failed) -> None:
    with transaction() as session:
        session.execute(update(Job).where(Job.id == failed.job_id).values(status="running"))


def _superseded(failed: Failed) -> None:
    with transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == failed.job_id).values(state="superseded"))


def _another_open(failed: Failed) -> None:
    post("s3")
    assert dispatch.dispatch()


@pytest.mark.parametrize(
    ("happened", "code"),
    [
        (_changed, "candidate_unusable"),
        (_gone, "candidate_unusable"),
        (_cancelled, "requests_changed"),
        (_retried, "requests_changed"),
        (_overtaken, "outdated"),
        (_running, "job_not_failed"),
        (_superseded, "not_releasable"),
        (_another_open, "conflict"),
    ],
)
def test_what_happened_since_is_in_the_way(failed: Failed, happened: Callable[[Failed], None], code: str) -> None:
    happened(failed)
    before = (job_of(failed.job_id).status, _statuses(failed))
    with pytest.raises(Conflict) as caught:
        reviews.release(failed.job_id, 1, REASON, ADMIN)
    assert (caught.value.status, caught.value.code) == (409, code)
    assert (job_of(failed.job_id).status, _statuses(failed)) == before
    assert _events("attempt.released") == []
    assert job_of(failed.job_id).review is None


@pytest.mark.parametrize("happened", [_cancelled, _retried])
def test_what_nobody_can_release_any_more_ends_at_once(failed: Failed, happened: Callable[[Failed], None]) -> None:
    happened(failed)
    with reading() as session:
        now = clock(session)
    assert registry.sweep_destroyed(now) == 1
    assert not failed.candidate.exists()


FAILING = samples.evaluation(estimate=0.8, ci=(0.75, 0.85), ci95=(0.74, 0.86))


def _without(name: str, **changes: Any) -> Evaluation:
    """Undecided, and one check is not as it has to be."""
    told = samples.evaluation(**UNDECIDED)
    checks = [check.model_copy(update=changes) if check.id == name else check for check in told.checks]
    return told.model_copy(update={"checks": checks})


def _by_old_rules() -> Evaluation:
    return samples.evaluation(**UNDECIDED).model_copy(update={"schema_id": "lethe/evaluation/1"})


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (FAILING, "attempt 1 is failed"),
        (_without("sanity", verdict="inconclusive"), "the check sanity did not pass"),
        (_without("distinct", verdict="fail"), "the check distinct failed"),
        (_without("utility", verdict="fail"), "the check utility failed"),
        (_without("utility", verdict="fail", role="diagnostic"), "the check utility failed"),
        (_by_old_rules(), "another version of the service"),
        (
            samples.evaluation(
                **UNDECIDED, more=[samples.PROVENANCE.model_copy(update={"verdict": "fail", "role": "diagnostic"})]
            ),
            "the check provenance failed",
        ),
    ],
)
def test_a_failure_is_never_released(database_url: str, tmp_path: Path, told: Evaluation, said: str) -> None:
    failed = failed_job(tmp_path, told=told)
    with reading() as session:
        attempts = jobs.attempts_of(session, failed.job_id)
    assert jobs.release_offer(job_of(failed.job_id), attempts, failed.requests) is None
    with pytest.raises(NotReleasable, match=said):
        reviews.release(failed.job_id, 1, REASON, ADMIN)
    # Nothing of it is kept either.
    with reading() as session:
        assert registry.sweep_destroyed(clock(session)) == 1


def test_without_the_policys_leave_nothing_is_kept_and_nothing_released(
    api: TestClient, reviewer: Headers, tmp_path: Path
) -> None:
    failed = failed_job(tmp_path, OVERRIDE.replace("true", "false"))
    status, problem = _release(api, failed.job_id, reviewer)
    assert (status, problem["code"], problem["type"]) == (403, "policy_forbids", "urn:lethe:error:policy_forbids")
    with reading() as session:
        assert registry.sweep_destroyed(clock(session)) == 1


def test_only_a_reviewer_decides(api: TestClient, make_key: MakeKey, failed: Failed) -> None:
    for role in ("operator", "auditor", "submitter"):
        status, problem = _release(api, failed.job_id, make_key(role))
        assert (status, problem["code"]) == (403, "forbidden")
    assert job_of(failed.job_id).status == "failed"


SENT: list[tuple[dict[str, Any], str]] = [
    ({"reason": "too short"}, "invalid"),
    ({"reason": " " * 40}, "invalid"),
    ({"reason": "x" * 2001}, "invalid"),
    ({"reason": "an escape \x1b[2J sequence"}, "invalid"),
    ({"attempt": 0}, "invalid"),
    ({"attempt": 2}, "unknown_attempt"),
    ({"force": True}, "invalid"),
]


def test_what_is_sent_is_checked(api: TestClient, reviewer: Headers, failed: Failed) -> None:
    for changes, code in SENT:
        status, problem = _release(api, failed.job_id, reviewer, **changes)
        assert (status, problem["code"]) == (422, code), changes
    assert _release(api, "job_none", reviewer)[1]["code"] == "not_found"
    assert job_of(failed.job_id).status == "failed"


def test_a_cancellation_in_that_very_moment_wins(failed: Failed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look is past, the requests are not locked yet."""
    check = reviews._refuse_changed_files

    def then_cancel(attempt: Attempt) -> None:
        check(attempt)
        deletion.cancel(failed.requests[0], ADMIN)

    monkeypatch.setattr(reviews, "_refuse_changed_files", then_cancel)
    with pytest.raises(RequestsChanged, match="cancelled or retried"):
        reviews.release(failed.job_id, 1, REASON, ADMIN)
    assert job_of(failed.job_id).status == "failed"
    assert _statuses(failed) == ["cancelled", "failed"]


def test_a_request_that_failed_for_another_model_too_stays_failed(
    api: TestClient, reviewer: Headers, failed: Failed
) -> None:
    with transaction() as session:
        job = session.get_one(Job, failed.job_id)
        other = {key: getattr(job, key) for key in ("model_id", "model_name", "policy", "policy_digest", "created_at")}
        session.add(Job(id="job_2", status="failed", stage="unlearn", metrics={}, **other))
        row = RequestTarget(id="tgt_2", request_id=failed.requests[0], model_id=job.model_id, model_name="texts")
        row.job_id = "job_2"
        session.add(row)
    assert _release(api, failed.job_id, reviewer)[0] == 200
    assert _statuses(failed) == ["failed", "running"]


def test_nothing_is_released_beside_an_attempt_that_passed(failed: Failed) -> None:
    """Its publication broke, for a full disk say: a retry runs the ladder again, without an override."""
    with transaction() as session:
        row = Attempt(id="att_2", job_id=failed.job_id, number=2, method="scrub", params={}, seed=0, state="passed")
        row.started_at = clock(session)
        session.add(row)
    with reading() as session:
        attempts = jobs.attempts_of(session, failed.job_id)
    assert jobs.release_offer(job_of(failed.job_id), attempts, failed.requests) is None
    with pytest.raises(NotReleasable, match="attempt 2 of the job passed the gate"):
        reviews.release(failed.job_id, 1, REASON, ADMIN)
    assert job_of(failed.job_id).status == "failed"
    assert _events("attempt.released") == []
