"""Stage attest on a real database: who was only set aside leaves the versions' lists although nothing is published."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import update

from service.auth.service import Principal
from service.catalogue.lineage import LINEAGE
from service.database import reading, transaction
from service.datasets import service as datasets
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.errors import LeaseLost
from service.jobs import dispatch, leases
from service.jobs.models import Job
from service.registry import files
from service.registry import service as registry
from service.registry.models import Version
from service.reports import service as reports
from service.reports.schema import Report
from tests.dying import die_before_commit
from tests.service.factories import image_model, register_images
from workers.lineage.reserve import read_reserve, write_reserve
from workers.tasks import attest, resolve
from workers.tasks.work import Work

OF_S1 = {"r0004", "r0005", "r0006", "r0007"}
OF_S2 = {"r0008", "r0009", "r0010", "r0011"}
ATTEST = """
import json
from service.jobs.leases import Claim
from workers.tasks import attest
from workers.tasks.work import Work
attest.run(Work(Claim(**json.loads(sys.argv[2]))))
"""


def _model(path: Path, fill: int) -> Path:
    """A directory whose training has set two people aside."""
    image_model(path, fill=fill)
    (path / LINEAGE).mkdir()
    write_reserve(OF_S1 | OF_S2, path / LINEAGE)
    return path


@pytest.fixture
def folders(database_url: str, tmp_path: Path) -> list[Path]:
    """The directories of both versions of a model, the serving one first."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[batch]\nwindow = "0s"\n')
    made = [register_images(tmp_path, path=_model(tmp_path / str(fill), fill), policy=policy) for fill in (0, 1)]
    return [Path(version.path) for version in reversed(made)]


@pytest.fixture
def posted(folders: list[Path]) -> tuple[str, str]:
    """(request, job) for the deletion of one of them, resolved."""
    body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": "s1"}]}}
    made = deletion.create(CreateRequest.model_validate(body), Principal("key_1", frozenset({"admin"})))
    (job_id,) = dispatch.dispatch()
    resolve.run(Work(_claim(job_id, "resolve")))
    return str(made.request["id"]), job_id


def _claim(job_id: str, stage: str) -> leases.Claim:
    claim = leases.claim(job_id, stage, "test")
    assert claim is not None
    return claim


def _take_lease_away(job_id: str) -> None:
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=None))


def _reserves(folders: list[Path]) -> list[set[str]]:
    return [read_reserve(folder / LINEAGE) for folder in folders]


def test_they_leave_every_version_s_list_before_the_answer(folders: list[Path], posted: tuple[str, str]) -> None:
    request_id, job_id = posted
    assert _reserves(folders) == [OF_S1 | OF_S2] * 2
    attest.run(Work(_claim(job_id, "attest")))
    assert _reserves(folders) == [OF_S2] * 2
    for folder in folders:
        assert (folder / LINEAGE / "reserve.parquet").stat().st_mode & 0o777 == 0o600
        assert files.manifest_digest(files.digest_directory(folder)) == folder.name
    report = Report.model_validate_json(reports.read_form(request_id, "json"))
    assert [target.outcome for target in report.targets] == ["no_records"]
    with reading() as session:
        model = registry.get_model(session, "digits")
        assert datasets.tombstones(session, model.id) == OF_S1
        assert session.get_one(Version, model.serving_version_id).path == str(folders[0])


def test_a_crash_in_between_is_repaired_by_the_next_claim(folders: list[Path], posted: tuple[str, str]) -> None:
    _, job_id = posted
    die_before_commit(1, ATTEST, json.dumps(asdict(_claim(job_id, "attest"))))
    assert _reserves(folders) == [OF_S2] * 2  # their tombstones are older than this stage
    write_reserve(OF_S1 | OF_S2, folders[1] / LINEAGE)  # as where it had died between the two
    _take_lease_away(job_id)
    attest.run(Work(_claim(job_id, "attest")))
    assert _reserves(folders) == [OF_S2] * 2


def test_who_lost_the_lease_changes_no_list(folders: list[Path], posted: tuple[str, str]) -> None:
    _, job_id = posted
    late = Work(_claim(job_id, "attest"))
    _take_lease_away(job_id)
    _claim(job_id, "attest")
    with pytest.raises(LeaseLost):
        attest.run(late)
    assert _reserves(folders) == [OF_S1 | OF_S2] * 2
