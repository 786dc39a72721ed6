"""Stage publish on a real database: what it placed and did not publish is destroyed, and what serves never is."""

import json
import shutil
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select, update

from service.audit.models import AuditEvent
from service.auth.service import Principal
from service.database import clock, new_id, reading, transaction
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.errors import JobError, LeaseLost
from service.jobs import dispatch, leases
from service.jobs import service as jobs
from service.jobs.models import Attempt, Job
from service.registry import files, placement
from service.registry import service as registry
from service.registry.models import Artefact, Model, Version
from service.verification.schema import EVALUATION
from tests.dying import die_before_commit
from tests.locks import until_blocked
from tests.service.factories import image_model, image_rows, register_images, write_parquet
from workers.tasks import notify, publish, resolve
from workers.tasks.contamination import affected_by
from workers.tasks.work import Work

PUBLISH = """
import json
from service.jobs.leases import Claim
from workers.tasks import publish
from workers.tasks.work import Work
publish.run(Work(Claim(**json.loads(sys.argv[2]))))
"""
LAST_COMMIT = 3  # requests sealed, place announced, published
DAY = timedelta(days=1, minutes=1)


def _now() -> datetime:
    with reading() as session:
        return clock(session)


def _claim(job_id: str, stage: str) -> leases.Claim:
    claim = leases.claim(job_id, stage, "test")
    assert claim is not None
    return claim


@pytest.fixture
def base(database_url: str, tmp_path: Path) -> Version:
    """A served model whose batches are due at once."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[batch]\nwindow = "0s"\n')
    return register_images(tmp_path, policy=policy)


@pytest.fixture
def job_id(base: Version) -> str:
    """A job whose candidate has passed the gate and awaits its publication."""
    body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": "s1"}]}}
    deletion.create(CreateRequest.model_validate(body), Principal("key_1", frozenset({"admin"})))
    (job_id,) = dispatch.dispatch()
    work = Work(_claim(job_id, "resolve"))
    resolve.run(work)
    candidate = image_model(work.scratch / "candidate-1", fill=1)
    with transaction() as session:
        now = clock(session)
        attempt = Attempt(id=new_id("att"), job_id=job_id, number=1, method="retrain", params={}, seed=0)
        attempt.state, attempt.started_at = "passed", now
        attempt.candidate_path = str(candidate)
        attempt.candidate_digest = files.manifest_digest(files.digest_directory(candidate))
        attempt.verification = {"schema": EVALUATION, "verdict": "pass", "grade": "A"}
        session.add(attempt)
        leases.move_on(session, job_id, "publish")
    return job_id


def _die_placed(job_id: str) -> leases.Claim:
    """The directory is in its place, the transaction that publishes it never commits."""
    claim = _claim(job_id, "publish")
    die_before_commit(LAST_COMMIT, PUBLISH, json.dumps(asdict(claim)))
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=None))
    return claim


def _unpublished() -> list[Artefact]:
    with reading() as session:
        rows = select(Artefact).where(Artefact.kind == placement.UNPUBLISHED, Artefact.destroyed_at.is_(None))
        return list(session.scalars(rows))


def _folders(home: Path) -> set[str]:
    return {path.name for path in (home / "models" / "digits").iterdir()}


def _digest(job_id: str) -> str:
    with reading() as session:
        return str(session.scalar(select(Attempt.candidate_digest).where(Attempt.job_id == job_id)))


def _versions(base: Version) -> list[tuple[int, str, str]]:
    with reading() as session:
        return [(row.number, row.state, row.digest) for row in registry.versions(session, base.model_id)]


def test_a_published_version_has_no_end(base: Version, job_id: str, home: Path) -> None:
    publish.run(Work(_claim(job_id, "publish")))
    digest = _digest(job_id)
    assert _versions(base) == [(2, "serving", digest), (1, "retired", base.digest)]
    assert _unpublished() == []
    assert registry.sweep_destroyed(_now() + timedelta(days=4000)) == 1
    assert _folders(home) == {digest}


def test_a_crash_before_the_commit_leaves_a_row(base: Version, job_id: str, home: Path) -> None:
    _die_placed(job_id)
    digest = _digest(job_id)
    assert _folders(home) == {base.digest, digest}
    assert _versions(base) == [(1, "serving", base.digest)]
    (row,) = _unpublished()
    assert (Path(row.path).name, row.digest, row.job_id) == (digest, digest, job_id)
    assert registry.sweep_destroyed(_now()) == 0
    assert registry.sweep_destroyed(_now() + DAY) == 1
    assert _folders(home) == {base.digest}


def test_a_job_that_is_begun_again_publishes_what_it_placed(base: Version, job_id: str, home: Path) -> None:
    _die_placed(job_id)
    work = Work(_claim(job_id, "publish"))
    publish.run(work)
    assert _versions(base)[0] == (2, "serving", _digest(job_id))
    assert _unpublished() == []
    assert registry.sweep_destroyed(_now() + DAY) == 0
    assert _folders(home) == {base.digest, _digest(job_id)}


def test_a_job_that_fails_after_it_placed_takes_it_along(
    base: Version, job_id: str, home: Path, tmp_path: Path
) -> None:
    _die_placed(job_id)
    register_images(tmp_path, data=write_parquet(tmp_path / "other.parquet", image_rows(5)))
    claim = _claim(job_id, "publish")
    with pytest.raises(JobError, match="other data was registered") as caught:
        publish.run(Work(claim))
    jobs.fail(job_id, claim.fence, caught.value)
    assert registry.sweep_destroyed(_now()) == 2  # and the job's own files
    assert _folders(home) == {base.digest}
    assert not (home / "jobs" / job_id).exists()


def test_who_lost_the_lease_places_nothing(base: Version, job_id: str, home: Path) -> None:
    late = Work(_claim(job_id, "publish"))
    weights = publish._prepare(late, late.attempts()[-1])
    affected = affected_by(late.model, late.forget_ids(), reserve=False)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=None))
    now_mine = Work(_claim(job_id, "publish"))
    with pytest.raises(LeaseLost), late.fenced() as session:
        publish._switch(session, late, late.attempts()[-1], weights, affected)
    assert _folders(home) == {base.digest}
    publish.run(now_mine)
    assert _unpublished() == []
    assert _folders(home) == {base.digest, _digest(job_id)}


def test_the_same_digest_published_by_somebody_else_stays(
    base: Version, job_id: str, home: Path, tmp_path: Path
) -> None:
    _die_placed(job_id)
    work = Work(_claim(job_id, "publish"))
    copy = image_model(tmp_path / "copy", fill=1)
    assert register_images(tmp_path, path=copy).digest == _digest(job_id)
    with pytest.raises(Exception, match="serves another version"):
        publish.run(work)
    assert registry.sweep_destroyed(_now() + DAY) == 0
    assert _folders(home) == {base.digest, _digest(job_id)}
    assert _unpublished() == []


def test_a_job_that_published_other_weights_gives_up_what_it_placed(base: Version, job_id: str, home: Path) -> None:
    _die_placed(job_id)
    placed, work = _digest(job_id), Work(_claim(job_id, "publish"))
    other = image_model(work.scratch / "candidate-2", fill=2)
    values: dict[str, Any] = {"candidate_path": str(other)}
    values["candidate_digest"] = files.manifest_digest(files.digest_directory(other))
    with transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(**values))
    publish.run(work)
    with transaction() as session:
        leases.move_on(session, job_id, "notify")
    notify.run(Work(_claim(job_id, "notify")))
    assert [Path(row.path).name for row in _unpublished()] == [placed]
    assert registry.sweep_destroyed(_now()) == 1
    assert _folders(home) == {base.digest, _digest(job_id)}


def test_a_candidate_that_changed_or_is_gone_is_not_published(base: Version, job_id: str, home: Path) -> None:
    work = Work(_claim(job_id, "publish"))
    candidate = Path(str(work.attempts()[-1].candidate_path))
    (candidate / "config.json").write_text("{}")
    with pytest.raises(JobError, match="changed after verification"):
        publish.run(work)
    shutil.rmtree(candidate)
    with pytest.raises(JobError, match="changed after verification"):
        publish.run(work)
    assert _folders(home) == {base.digest}
    assert _unpublished() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_precision_that_changes_in_this_very_moment_is_seen(database_url: str, base: Version, job_id: str) -> None:
    work, raised = Work(_claim(job_id, "publish")), []
    told = {"schema": EVALUATION, "verdict": "pass", "basis": "measurement", "serve_precision": "fp32"}
    with transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(verification=told))

    def publish_it() -> None:
        try:
            publish.run(work)
        except JobError as error:
            raised.append(error.detail)

    publishing = Thread(target=publish_it)
    with transaction() as session:
        session.execute(update(Model).values(serve_precision="int4"))
        publishing.start()
        assert until_blocked(database_url, publishing)
    publishing.join(30)
    (detail,) = raised
    assert detail.startswith("the model is served in another precision")
    assert _versions(base) == [(1, "serving", base.digest)]


OLD = {"schema": "lethe/evaluation/1", "verdict": "pass", "grade": "A"}


def _by_old_rules(job_id: str) -> None:
    """The service was updated between the judgement and the publication."""
    review = {"kind": "approved", "attempt": 1}
    with transaction() as session:
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(verification=OLD))
        session.execute(update(Job).where(Job.id == job_id).values(verdict="pass", grade="A", review=review))


def _job_and_states(job_id: str) -> tuple[Job, list[str]]:
    with reading() as session:
        return jobs.get_job(session, job_id), [row.state for row in jobs.attempts_of(session, job_id)]


def test_what_was_judged_by_old_rules_is_judged_again(base: Version, job_id: str, home: Path) -> None:
    _by_old_rules(job_id)
    publish.run(Work(_claim(job_id, "publish")))
    job, states = _job_and_states(job_id)
    assert (job.stage, job.verdict, job.grade, job.review, states) == ("verify", None, None, None, ["proposed"])
    assert jobs.take_messages() == [(job_id, "verify")]
    assert _versions(base) == [(1, "serving", base.digest)]
    assert _unpublished() == []
    with reading() as session:
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.kind == "attempt.unjudged"))
        assert session.scalars(select(Attempt)).one().verification is None
    assert event.data["why"] == "judged by the rules of another version of the service: attempt 1"


def test_beside_another_attempt_by_old_rules_the_ladder_begins_again(base: Version, job_id: str) -> None:
    _by_old_rules(job_id)
    with transaction() as session:
        row = Attempt(id="att_0", job_id=job_id, number=2, method="scrub", params={}, seed=0, state="passed")
        row.started_at, row.verification = clock(session), OLD | {"schema": EVALUATION}
        session.add(row)
    publish.run(Work(_claim(job_id, "publish")))
    job, states = _job_and_states(job_id)
    assert (job.stage, job.review, states) == ("resolve", None, ["superseded", "superseded"])
    assert _versions(base) == [(1, "serving", base.digest)]


def test_what_lies_in_its_place_already_cannot_be_judged_again(base: Version, job_id: str, home: Path) -> None:
    """A crash after the renaming, and the update before the stage is begun again."""
    _die_placed(job_id)
    _by_old_rules(job_id)
    publish.run(Work(_claim(job_id, "publish")))
    job, states = _job_and_states(job_id)
    assert (job.stage, states) == ("resolve", ["superseded"])
    assert _versions(base) == [(1, "serving", base.digest)]
    assert registry.sweep_destroyed(_now() + DAY) == 1
    assert _folders(home) == {base.digest}
