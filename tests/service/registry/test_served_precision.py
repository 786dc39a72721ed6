"""In which precision a model is served: given at registration, shown, and kept to once a version was judged in it."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.audit.models import AuditEvent
from service.database import reading, transaction
from service.errors import BadParameters, Conflict
from service.registry import service
from service.registry.models import Version
from tests.service.conftest import MakeKey
from tests.service.factories import image_model, register_images


def precision() -> str:
    with reading() as session:
        return service.get_model(session, "digits").serve_precision


def judged(version: Version, **verification: Any) -> None:
    """The version as a job would have left it."""
    with transaction() as session:
        session.get_one(Version, version.id).verification = verification


def test_it_is_fp32_unless_said_and_stays_until_said_otherwise(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    assert precision() == "fp32"
    register_images(tmp_path, serve_precision="int4")
    assert precision() == "int4"
    again = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    assert (again.number, precision()) == (2, "int4")
    with reading() as session:
        told = [event.data["serve_precision"] for event in session.scalars(select(AuditEvent).order_by(AuditEvent.id))]
    assert told == ["fp32", "int4", "int4"]


def test_it_is_shown(api: TestClient, make_key: MakeKey, tmp_path: Path) -> None:
    register_images(tmp_path, serve_precision="int8")
    assert api.get("/v1/models/digits", headers=make_key("submitter")).json()["serve_precision"] == "int8"


def test_an_unknown_one_is_refused_and_nothing_is_written(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="int3"):
        register_images(tmp_path, serve_precision="int3")
    with reading() as session:
        assert session.scalar(select(Version)) is None


def test_what_was_judged_by_measurement_is_served_as_it_was_judged(database_url: str, tmp_path: Path) -> None:
    version = register_images(tmp_path, serve_precision="int8")
    judged(version, basis="measurement", serve_precision="int8")
    with pytest.raises(Conflict, match="was judged as it is served, in int8; in fp32"):
        register_images(tmp_path, serve_precision="fp32")
    assert register_images(tmp_path, serve_precision="int8").id == version.id
    # An exact version was judged by what was run, and holds nothing to be brought back.
    judged(version, basis="procedure", serve_precision="int8")
    assert register_images(tmp_path, serve_precision="fp32").id == version.id
    assert precision() == "fp32"
