"""A registered model that has forgotten one of its people, and looks at the rows."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.cli.main import main
from service.database import clock, new_id, reading, transaction
from service.datasets import service as datasets
from service.datasets.models import Dataset
from service.jobs.models import Job
from service.registry import repository
from service.registry.models import Model

OF_S1 = ["r0004", "r0005", "r0006", "r0007"]
RECIPE = '[model]\ntask = "image-classification"\nconfig = { model_type = "resnet" }\n'


def model_row(name: str = "digits") -> Model:
    with reading() as session:
        return repository.get_model(session, name)


def dataset_row(name: str = "digits") -> Dataset:
    with reading() as session:
        return session.get_one(Dataset, model_row(name).dataset_id)


def add_job(session: Session, model: Model, status: str) -> str:
    job = Job(id=new_id("job"), model_id=model.id, model_name=model.name, status=status, stage="resolve")
    job.policy, job.policy_digest, job.created_at = model.policy, model.policy_digest, clock(session)
    job.scope = {"dataset_id": model.dataset_id}
    session.add(job)
    session.flush()
    return job.id


def forget(ids: list[str], name: str = "digits") -> None:
    """What is left of a deletion that was published: a job that looked in the present data, and tombstones."""
    model = model_row(name)
    with transaction() as session:
        datasets.add_tombstones(session, model.id, add_job(session, model, "completed"), ids, clock(session))


def row_count(table: Any) -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)
