"""An alarm of the wager over publications, from the rows of a model to the plan of its next job."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service.auth.service import Principal
from service.database import reading, transaction
from service.deletion import service as deletion
from service.deletion.schemas import CreateRequest
from service.jobs import dispatch, leases, service
from service.registry.models import Version
from tests.service.factories import image_rows, register_images, write_parquet
from workers.tasks import plan, resolve
from workers.tasks.work import Work

POLICY = '[ladder]\nmethods = ["nabla_tau"]\n[batch]\nwindow = "0s"\n'
RECIPE = '[model]\ntask = "image-classification"\nconfig = { model_type = "resnet" }\n'


def planned(folder: Path, verification: dict[str, Any] | None) -> dict[str, Any]:
    """The plan of the next deletion from a model whose serving version was published with this evaluation."""
    (folder / "policy.toml").write_text(POLICY)
    (folder / "recipe.toml").write_text(RECIPE)
    holdout = write_parquet(folder / "holdout.parquet", image_rows(20))
    files = {"policy": folder / "policy.toml", "recipe": folder / "recipe.toml", "holdout": holdout}
    version = register_images(folder, **files)
    with transaction() as session:
        session.get_one(Version, version.id).verification = verification
    body = {"regulation": "gdpr", "subject": {"identifiers": [{"type": "subject_id", "value": "s1"}]}}
    deletion.create(CreateRequest.model_validate(body), Principal("key_1", frozenset({"admin"})))
    (job_id,) = dispatch.dispatch()
    for stage in (resolve, plan):
        stage.run(work_on(job_id, stage))
    with reading() as session:
        made = service.get_job(session, job_id).plan
    assert made is not None
    return made


def work_on(job_id: str, stage: ModuleType) -> Work:
    claim = leases.claim(job_id, stage.__name__.rpartition(".")[2], "test")
    assert claim is not None
    return Work(claim)


def measured(right: float) -> dict[str, Any]:
    return {"basis": "measurement", "metrics": {"canary_guesses": 146, "canary_guesses_right": right}}


@pytest.mark.parametrize("verification", [None, measured(78.0), measured(110.0) | {"basis": "procedure"}])
def test_without_an_alarm_the_policy_is_followed(
    database_url: str, tmp_path: Path, verification: dict[str, Any] | None
) -> None:
    made = planned(tmp_path, verification)
    assert [rung["method"] for rung in made["rungs"]] == ["nabla_tau", "retrain"]
    assert "alarm" not in made["why"]


def test_after_an_alarm_the_next_job_is_exact_and_says_why(database_url: str, tmp_path: Path) -> None:
    made = planned(tmp_path, measured(110.0))
    assert [rung["method"] for rung in made["rungs"]] == ["retrain"]
    assert "an alarm" in made["why"]
