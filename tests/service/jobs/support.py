"""A job of two requests whose ladder has ended without a pass, made from rows and small files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import update

from service.auth.service import Principal
from service.database import clock, new_id, reading, transaction
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.errors import JobError
from service.jobs import dispatch, leases
from service.jobs import service as jobs
from service.jobs.models import Attempt, Job
from service.registry import files
from service.registry import service as registry
from service.registry.models import Model
from service.settings import get_settings
from service.verification.schema import Evaluation
from tests.service.factories import image_model, register_images
from tests.service.reports import samples

ADMIN = Principal("key_1", frozenset({"admin"}))
OVERRIDE = '[batch]\nwindow = "0s"\n[approval]\noverride = true\n'
UNDECIDED: dict[str, Any] = {"ci": (0.3, 0.7), "ci95": (0.29, 0.71)}
REASON = "No more records will come; the exact retrain is planned for March."


@dataclass(frozen=True)
class Failed:
    """The job, its requests, and the directory of its candidate."""

    job_id: str
    requests: list[str]
    candidate: Path


def post(subject: str, callback_url: str | None = None) -> str:
    """A request about one person of the model."""
    body: dict[str, Any] = {"regulation": "gdpr", "callback_url": callback_url}
    body["subject"] = {"identifiers": [{"type": "subject_id", "value": subject}]}
    return str(deletion.create(CreateRequest.model_validate(body), ADMIN).request["id"])


def failed_job(
    folder: Path, policy: str = OVERRIDE, told: Evaluation | None = None, callback_url: str | None = None
) -> Failed:
    """Two requests, one job, one attempt with this evaluation (inconclusive by default), and no further rung.

    `callback_url` is that of the first request.
    """
    (folder / "policy.toml").write_text(policy)
    register_images(folder, policy=folder / "policy.toml")
    requests = [post("s1", callback_url), post("s2")]
    (job_id,) = dispatch.dispatch()
    candidate = _candidate(job_id, requests, told or samples.evaluation(**UNDECIDED))
    claim = leases.claim(job_id, "unlearn", "test")
    assert claim is not None
    jobs.fail(job_id, claim.fence, JobError("no rung of the ladder passed the gate"))
    return Failed(job_id, requests, candidate)


def _candidate(job_id: str, requests: list[str], told: Evaluation) -> Path:
    """What resolve, plan, unlearn and verify leave behind, without torch."""
    folder = get_settings().home / "jobs" / job_id
    candidate = image_model(folder / "fence-3" / "candidate-1", fill=1)
    with transaction() as session:
        job, now = session.get_one(Job, job_id), clock(session)
        scope = {"records": 8, "subjects": 2, "dataset_id": session.get_one(Model, job.model_id).dataset_id}
        scope |= {"requests": {each: {"records": 4, "outcome": None} for each in requests}}
        session.execute(update(Job).where(Job.id == job_id).values(scope=scope))
        registry.track_artefact(session, model_id=job.model_id, job_id=job_id, kind=registry.JOB_FILES, path=folder)
        row = Attempt(id=new_id("att"), job_id=job_id, number=1, method="nabla_tau", params={}, seed=0, started_at=now)
        row.state = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}[told.verdict]
        row.candidate_path, row.verification = str(candidate), told.as_json()
        row.candidate_digest = files.manifest_digest(files.digest_directory(candidate))
        session.add(row)
        leases.move_on(session, job_id, "unlearn")
    return candidate


def job_of(job_id: str) -> Job:
    """The row as it is now."""
    with reading() as session:
        return jobs.get_job(session, job_id)
