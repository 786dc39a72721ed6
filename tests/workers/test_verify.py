"""Stage verify on a real database, with a real pool and a copy that another person keeps; and what the report says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, update

from service.auth.service import Principal
from service.cli.main import main
from service.database import transaction
from service.datasets.sources import dataset_digest
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.errors import JobError
from service.jobs import dispatch, leases
from service.jobs.models import Attempt, Job
from service.references.service import Wanted, prepare
from service.registry.models import Model, ReferencePool
from service.registry.service import register_model
from service.reports import service as reports
from service.reports.schema import Report
from service.reports.verify import verify_bundle
from service.verification.qualification import rules_digest
from service.verification.schema import EVALUATION, Check, Evaluation
from service.verification.statistics import NotMeasurable
from tests.e2e.world import RECIPE, write_digits
from workers.modeling.code_version import package_versions
from workers.modeling.training_record import read_record
from workers.planning.calibrated import NO_REFERENCES, References
from workers.tasks import attest, materials, plan, publish, resolve, unlearn, verify
from workers.tasks.work import Work

TASK = "image-classification"
POLICY = '[ladder]\nmethods = ["retrain"]\n[batch]\nwindow = "0s"\n'
SUBJECT = "t-person-003"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in which somebody else has two of a person's images, a model trained on it, and a pool of eight."""
    folder = tmp_path_factory.mktemp("shelf")
    train, holdout = write_digits(folder, people=40, rows=5)
    table = pq.read_table(train).to_pydict()
    for own, other in ((15, 100), (16, 101)):
        for column in ("image", "label"):
            table[column][other] = table[column][own]
    assert table["subject_id"][15] == SUBJECT
    pq.write_table(pa.table(table), train)
    pq.write_table(pq.read_table(holdout).slice(0, 200), holdout)
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 30", "epochs = 3"))
    (folder / "policy.toml").write_text(POLICY)
    data = ["--data", str(train), "--holdout", str(holdout)]
    assert main(["train", "--recipe", str(folder / "recipe.toml"), *data, "--out", str(folder / "model")]) == 0
    pool = ["--count", "8", "--out", str(folder / "pool")]
    assert main(["references", "--model", str(folder / "model"), "--task", TASK, *data, *pool]) == 0
    return folder


def work_on(job_id: str, stage: ModuleType) -> Work:
    """A claim of the job at this stage."""
    claim = leases.claim(job_id, stage.__name__.rpartition(".")[2], "test")
    assert claim is not None
    return Work(claim)


def advance(job_id: str, *stages: ModuleType) -> None:
    for stage in stages:
        stage.run(work_on(job_id, stage))


@pytest.fixture
def posted(database_url: str, shelf: Path) -> tuple[str, str]:
    """(request, job) for the deletion of the person."""
    files = {"holdout": shelf / "holdout.parquet", "policy": shelf / "policy.toml"}
    register_model("digits", shelf / "model", TASK, shelf / "train.parquet", **files)
    body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": SUBJECT}]}}
    made = deletion.create(CreateRequest.model_validate(body), Principal("key_1", frozenset({"admin"})))
    (job_id,) = dispatch.dispatch()
    return str(made.request["id"]), job_id


def place_pool(shelf: Path, state: str) -> Path:
    """The pool of the model, as the tasks leave it in this state."""
    pool_id = prepare("digits", Wanted(count=8))
    with transaction() as session:
        row = session.get_one(ReferencePool, pool_id)
        row.state = state
        shutil.copytree(shelf / "pool", row.path, dirs_exist_ok=True)
        return Path(row.path)


def check_of(evaluation: Evaluation | None, name: str) -> Check:
    assert evaluation is not None
    check = evaluation.check(name)
    assert check is not None
    return check


def test_a_ready_pool_is_used_and_the_report_counts_copies_and_verifies(posted: tuple[str, str], shelf: Path) -> None:
    request_id, job_id = posted
    place_pool(shelf, "ready")
    advance(job_id, resolve, plan, unlearn, verify, publish, attest)
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    found = check_of(report.verification, "reference_auc")
    assert (found.role, found.references, found.n, found.cluster) == ("diagnostic", 4, 5, "subject")
    assert found.estimate is not None
    assert found.p_value is not None
    assert (report.grade, report.verification.basis if report.verification else None) == ("A", "procedure")
    assert report.scope is not None
    assert (report.scope.near_duplicates.computed, report.scope.near_duplicates.retained) == (True, 2)
    told = " ".join(report.limits)
    for said in (
        "2 retained records are exact copies of forgotten ones",
        "trained without companion canaries",
        "4 for each record",
        "supplied and not kept out of the training by a coin",
    ):
        assert said in told
    ids = pq.read_table(shelf / "train.parquet")["record_id"].to_pylist()
    text = report.model_dump_json()
    assert not [name for name in [*ids, SUBJECT] if name in text]
    verified = verify_bundle(reports.read_form(request_id, "zip"))
    assert verified.ok, [finding for finding in verified.findings if not finding.ok]


def test_without_a_pool_the_check_is_not_run_and_nothing_else_changes(posted: tuple[str, str]) -> None:
    request_id, job_id = posted
    advance(job_id, resolve, plan, unlearn, verify, publish, attest)
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    found = check_of(report.verification, "reference_auc")
    assert (found.role, found.verdict, found.reason) == ("diagnostic", "info", "not run: no references")
    assert report.grade == "A"


def test_the_report_says_what_the_candidate_was_made_with(posted: tuple[str, str], shelf: Path) -> None:
    request_id, job_id = posted
    advance(job_id, resolve, plan, unlearn, verify, publish, attest)
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    made, record = report.attempts[0].made_with, read_record(shelf / "model")
    assert made is not None
    assert record is not None
    held_out = dataset_digest(shelf / "holdout.parquet")
    assert (made.recipe_digest, made.holdout_digest) == (record.recipe_digest, held_out)
    assert made.packages == package_versions()
    assert report.policy is not None
    assert report.policy.rules_digest == rules_digest(report.policy.document)
    assert verify_bundle(reports.read_form(request_id, "zip")).ok


def test_what_has_to_be_qualified_is_what_made_the_candidate(posted: tuple[str, str]) -> None:
    """The workers were updated between the attempt and its judgement."""
    _, job_id = posted
    advance(job_id, resolve, plan, unlearn)
    work = work_on(job_id, verify)
    (attempt,) = work.attempts()
    now = materials.use_of(work)
    assert verify._use_of(work, attempt) == now
    made = {"packages": {"torch": "1.0"}, "recipe_digest": "r" * 64, "holdout_digest": None}
    attempt.result = {"code_version": "0.1", "made_with": made}
    assert verify._use_of(work, attempt) == now.model_copy(update=made | {"code_version": "0.1"})
    attempt.result = {}  # an attempt of an earlier version of the service says nothing of it
    assert verify._use_of(work, attempt) == now


def test_a_model_that_is_served_rounded_is_judged_rounded(posted: tuple[str, str]) -> None:
    request_id, job_id = posted
    with transaction() as session:
        session.execute(update(Model).values(serve_precision="int8"))
    advance(job_id, resolve, plan, unlearn, verify, publish, attest)
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    assert report.verification is not None
    assert (report.grade, report.verification.serve_precision) == ("A", "int8")
    assert check_of(report.verification, "utility_fp32").role == "diagnostic"
    assert "weights rounded to int8, as this model is served" in " ".join(report.limits)
    verified = verify_bundle(reports.read_form(request_id, "zip"))
    assert verified.ok, [finding for finding in verified.findings if not finding.ok]


def test_a_change_of_precision_meanwhile_keeps_a_measured_candidate_from_being_published(
    posted: tuple[str, str],
) -> None:
    _, job_id = posted
    advance(job_id, resolve, plan, unlearn, verify)
    with transaction() as session:
        attempt = session.scalars(select(Attempt).where(Attempt.job_id == job_id)).one()
        attempt.verification = {**(attempt.verification or {}), "basis": "measurement"}
        session.execute(update(Model).values(serve_precision="int4"))
    with pytest.raises(JobError, match="another precision"):
        advance(job_id, publish)


def test_what_was_judged_before_an_update_is_judged_again_and_its_bundle_verifies(posted: tuple[str, str]) -> None:
    request_id, job_id = posted
    advance(job_id, resolve, plan, unlearn, verify)
    with transaction() as session:
        attempt = session.scalars(select(Attempt).where(Attempt.job_id == job_id)).one()
        attempt.verification = {**(attempt.verification or {}), "schema": "lethe/evaluation/1"}
    advance(job_id, publish)
    assert Work(leases.Claim(job_id, "verify", 0, 0, "test")).job.stage == "verify"
    advance(job_id, verify, publish, attest)
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    assert report.verification is not None
    assert (report.verification.schema_id, report.grade, len(report.attempts)) == (EVALUATION, "A", 1)
    verified = verify_bundle(reports.read_form(request_id, "zip"))
    assert verified.ok, [finding for finding in verified.findings if not finding.ok]


def _whole(path: Path) -> None:
    del path


def _damaged(path: Path) -> None:
    (path / "gate.arrow").write_bytes(b"")


def _gone(path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("state", "damage", "why"),
    [
        ("ready", _whole, None),
        ("building", _whole, "not run: the reference pool is not ready, but building"),
        ("refreshing", _whole, "not run: the reference pool is not ready, but refreshing"),
        ("ready", _damaged, "not run: the reference pool cannot be used with this data"),
        ("ready", _gone, "not run: the reference pool cannot be used with this data"),
    ],
)
def test_a_pool_that_cannot_be_used_is_no_reason_to_fail(
    posted: tuple[str, str], shelf: Path, state: str, damage: Callable[[Path], None], why: str | None
) -> None:
    work = work_on(posted[1], resolve)
    assert materials.references_of(work) is NO_REFERENCES
    damage(place_pool(shelf, state))
    found = materials.references_of(work)
    if why is None:
        assert isinstance(found, References)
    else:
        assert found == NotMeasurable(why)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == posted[1]).values(status="cancelled"))
