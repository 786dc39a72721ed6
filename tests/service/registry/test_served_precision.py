"""In which precision a model is served: given at registration, shown, and kept to once a version was judged in it."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.audit.models import AuditEvent
from service.database import clock, reading, transaction
from service.errors import BadParameters, Conflict
from service.registry import service
from service.registry.models import Model, Version
from tests.locks import until_blocked
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
    with pytest.raises(Conflict, match="was judged as it was served, in int8; in fp32"):
        register_images(tmp_path, serve_precision="fp32")
    assert register_images(tmp_path, serve_precision="int8").id == version.id
    # An exact version was judged by what was run, and holds nothing to be brought back.
    judged(version, basis="procedure", serve_precision="int8")
    assert register_images(tmp_path, serve_precision="fp32").id == version.id
    assert precision() == "fp32"


def test_a_retired_version_serves_again_only_as_it_was_judged(database_url: str, tmp_path: Path) -> None:
    first = register_images(tmp_path)
    judged(first, basis="measurement")
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), serve_precision="int8")
    with transaction() as session, pytest.raises(Conflict, match="judged as it was served, in fp32; in int8"):
        service.activate(session, "digits", 1, "local", clock(session))
    judged(first, basis="measurement", serve_precision="int8")
    with transaction() as session:
        assert service.activate(session, "digits", 1, "local", clock(session)).state == "serving"


def test_an_exact_version_serves_again_in_any_precision(database_url: str, tmp_path: Path) -> None:
    judged(register_images(tmp_path), basis="procedure", serve_precision="fp32")
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), serve_precision="int8")
    with transaction() as session:
        assert service.activate(session, "digits", 1, "local", clock(session)).state == "serving"


def _beside(tmp_path: Path, **options: Any) -> Version:
    """Other weights come to serve, on the same data: what served before stays where it is, without an end."""
    return register_images(tmp_path, path=image_model(tmp_path / "other", fill=1), **options)


def _versions() -> int:
    with reading() as session:
        return len(session.scalars(select(Version)).all())


@pytest.mark.parametrize("precision_given", ["fp32", None])
def test_a_retired_directory_comes_back_only_as_it_was_judged(
    database_url: str, tmp_path: Path, precision_given: str | None
) -> None:
    """Registered again it is a version of its own, without a judgement."""
    judged(register_images(tmp_path, serve_precision="int8"), basis="measurement", serve_precision="int8")
    _beside(tmp_path, serve_precision="fp32")
    with pytest.raises(Conflict, match=r"^version 1 of 'digits' has these weights and was judged .* in int8; in fp32"):
        register_images(tmp_path, serve_precision=precision_given)
    assert (_versions(), precision()) == (2, "fp32")
    back = register_images(tmp_path, serve_precision="int8")
    assert (back.number, back.verification, precision()) == (3, None, "int8")
    # The row that serves now holds no judgement, and its weights are those of the row that does.
    with pytest.raises(Conflict, match="version 1 of 'digits' has these weights"):
        register_images(tmp_path, serve_precision="fp32")
    assert precision() == "int8"


def test_a_row_without_a_judgement_serves_again_only_as_its_weights_were_judged(
    database_url: str, tmp_path: Path
) -> None:
    judged(register_images(tmp_path, serve_precision="int8"), basis="measurement", serve_precision="int8")
    _beside(tmp_path)
    register_images(tmp_path, serve_precision="int8")
    _beside(tmp_path, serve_precision="fp32")
    with transaction() as session, pytest.raises(Conflict, match="was judged as it was served, in int8; in fp32"):
        service.activate(session, "digits", 3, "local", clock(session))


def test_a_file_more_or_another_name_makes_no_other_weights(database_url: str, tmp_path: Path) -> None:
    judged(register_images(tmp_path, serve_precision="int8"), basis="measurement", serve_precision="int8")
    dressed = image_model(tmp_path / "dressed")
    (dressed / "README.md").write_text("the same weights")
    for name in ("digits", "elsewhere"):
        with pytest.raises(Conflict, match="version 1 of 'digits' has these weights"):
            register_images(tmp_path, name=name, path=dressed, serve_precision="fp32")
    assert register_images(tmp_path, name="elsewhere", path=dressed, serve_precision="int8").number == 1


def test_weights_that_were_judged_twice_are_served_in_either(database_url: str, tmp_path: Path) -> None:
    first = register_images(tmp_path, serve_precision="int8")
    judged(first, basis="measurement", serve_precision="int8")
    _beside(tmp_path)
    judged(register_images(tmp_path), basis="measurement", serve_precision="int4")
    register_images(tmp_path, serve_precision="int4")
    assert precision() == "int4"
    with pytest.raises(Conflict, match=r"version 3 of 'digits' has these weights .* in int4; in fp32"):
        register_images(tmp_path, serve_precision="fp32")
    judged(first, basis="procedure", serve_precision="int8")
    register_images(tmp_path, serve_precision="fp32")
    assert precision() == "fp32"


def test_other_weights_are_nobodys_concern(database_url: str, tmp_path: Path) -> None:
    judged(register_images(tmp_path, serve_precision="int8"), basis="measurement", serve_precision="int8")
    assert _beside(tmp_path, serve_precision="fp32").number == 2


def _refusals(call: Callable[[], object], refused: list[str]) -> Thread:
    """A thread that makes the call and notes that it was refused."""

    def run() -> None:
        try:
            call()
        except Conflict as error:
            refused.append(error.detail)

    return Thread(target=run)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_registers_another_precision_waits_for_who_publishes(database_url: str, tmp_path: Path) -> None:
    """The version that comes to serve was judged in fp32, and nobody else sees it yet."""
    base, refused = register_images(tmp_path), list[str]()
    thread = _refusals(lambda: register_images(tmp_path, serve_precision="int4"), refused)
    with transaction() as session:
        published = service.publish_version(
            session,
            job_id="job_1",
            model_id=base.model_id,
            base_version_id=base.id,
            digest="ab" * 32,
            path=tmp_path / "published",
            method="scrub",
            verification={"basis": "measurement", "serve_precision": "fp32"},
            destroy_after=timedelta(days=7),
            now=clock(session),
            manifest={},
        )
        thread.start()
        assert until_blocked(database_url, thread)
    thread.join(30)
    assert refused == ["this directory is version 1 of 'digits', which a deletion has retired"]
    with reading() as session:
        model = service.get_model(session, "digits")
        assert (model.serve_precision, model.serving_version_id) == ("fp32", published.id)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_activates_waits_for_who_changes_the_precision(database_url: str, tmp_path: Path) -> None:
    judged(register_images(tmp_path), basis="measurement", serve_precision="fp32")
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    refused: list[str] = []

    def activate() -> None:
        with transaction() as session:
            service.activate(session, "digits", 1, "local", clock(session))

    thread = _refusals(activate, refused)
    with transaction() as session:
        session.execute(update(Model).values(serve_precision="int4"))
        thread.start()
        assert until_blocked(database_url, thread)
    thread.join(30)
    assert len(refused) == 1
    assert "was judged as it was served, in fp32; in int4" in refused[0]
    with reading() as session:
        assert service.serving_version(session, service.get_model(session, "digits")).number == 2
