"""Registering models: first versions, versions made elsewhere, and what is refused with nothing written."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from service.audit.models import AuditEvent
from service.audit.service import events_of
from service.database import clock, reading, transaction
from service.datasets import service as datasets
from service.datasets.models import Dataset
from service.errors import BadDataset, BadModel, BadParameters, BadRecipe, Conflict
from service.registry import service
from service.registry.models import Model, Version
from tests.service.factories import image_model, image_rows, register_images, write_parquet

RECIPE = '[model]\ntask = "image-classification"\nconfig = { model_type = "resnet" }\n'


def _count(table: Any) -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def _states(name: str = "digits") -> list[tuple[int, str]]:
    with reading() as session:
        model = service.get_model(session, name)
        return [(row.number, row.state) for row in service.versions(session, model.id)]


def _without(subject: str) -> dict[str, list[Any]]:
    rows = image_rows()
    keep = [place for place, name in enumerate(rows["subject_id"]) if name != subject]
    return {name: [values[place] for place in keep] for name, values in rows.items()}


def _forget(ids: list[str]) -> None:
    with transaction() as session:
        model = service.get_model(session, "digits")
        datasets.add_tombstones(session, model.id, "job_1", ids, clock(session))


def test_the_first_version_serves(database_url: str, home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE)
    version = register_images(tmp_path, recipe=recipe, holdout=write_parquet(tmp_path / "h.parquet", image_rows(2)))
    assert (version.number, version.state, version.parent_id) == (1, "serving", None)
    assert Path(version.path) == home / "models" / "digits" / version.digest
    assert sorted(path.name for path in Path(version.path).iterdir()) == ["config.json", "model.safetensors"]
    with reading() as session:
        model = service.get_model(session, "digits")
        dataset = session.get_one(Dataset, model.dataset_id)
        assert model.serving_version_id == version.id
        assert model.recipe is not None
        assert model.recipe["model"]["config"]["model_type"] == "resnet"
        assert (dataset.records, dataset.subjects, dataset.holdout_records) == (24, 6, 8)
        assert [event["kind"] for event in events_of(session, [version.id])] == ["version.registered"]


def test_a_new_directory_adds_a_version_and_retires_the_old(database_url: str, tmp_path: Path) -> None:
    first = register_images(tmp_path)
    second = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    assert second.number == 2
    assert second.parent_id == first.id
    assert _states() == [(2, "serving"), (1, "retired")]
    assert _count(Dataset) == 1


def test_registering_the_same_again_changes_nothing_but_what_is_given(database_url: str, tmp_path: Path) -> None:
    first = register_images(tmp_path)
    policy = tmp_path / "p.toml"
    policy.write_text("[approval]\nrequired = true\n")
    again = register_images(tmp_path, policy=policy)
    assert again.id == first.id
    with reading() as session:
        assert service.get_model(session, "digits").policy["approval"]["required"] is True
    assert _count(Version) == 1


def test_other_data_gives_older_versions_an_end(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    data = write_parquet(tmp_path / "new.parquet", _without("s1"))
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), data=data)
    with transaction() as session:
        old = service.versions(session, service.get_model(session, "digits").id)[1]
        assert old.destroy_by is not None
        with pytest.raises(Conflict):
            service.activate(session, "digits", 1, "local", clock(session))


def test_data_with_forgotten_records_is_refused(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    _forget(["r0004", "r0005"])
    model = image_model(tmp_path / "new", fill=1)
    with pytest.raises(BadDataset, match=r"digits\.parquet: holds 2 records that 'digits' was made to forget"):
        register_images(tmp_path, path=model)
    data = write_parquet(tmp_path / "clean.parquet", _without("s1"))
    assert register_images(tmp_path, path=model, data=data).number == 2


def test_a_model_trained_on_forgotten_or_unknown_records_is_refused(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    _forget(["r0004"])
    model = image_model(tmp_path / "new", fill=1)
    write_parquet(model / "training_records.parquet", {"record_id": ["r0000", "r0004"], "exposures": [1, 1]})
    data = write_parquet(tmp_path / "clean.parquet", _without("s1"))
    with pytest.raises(BadModel, match=r"training_records\.parquet: lists 1 records that 'digits' was made to forget"):
        register_images(tmp_path, path=model, data=data)
    write_parquet(model / "training_records.parquet", {"record_id": ["r0000", "elsewhere"], "exposures": [1, 1]})
    with pytest.raises(BadDataset, match=r"clean\.parquet: lacks 1 records that"):
        register_images(tmp_path, path=model, data=data)


def test_a_version_that_a_deletion_retired_cannot_come_back(database_url: str, tmp_path: Path) -> None:
    first = register_images(tmp_path)
    data = write_parquet(tmp_path / "clean.parquet", _without("s1"))
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1), data=data)
    with pytest.raises(Conflict, match="version 1 of 'digits', which a deletion has retired"):
        register_images(tmp_path, path=Path(first.path), data=data)
    again = Path(shutil.copytree(first.path, tmp_path / "again"))
    (again / "extra.safetensors").write_bytes((again / "model.safetensors").read_bytes() + b" ")
    with pytest.raises(Conflict, match="version 1 of 'digits', which a deletion has retired"):
        register_images(tmp_path, path=again, data=data)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"name": "../up"}, BadParameters),
        ({"name": ""}, BadParameters),
        ({"columns": {"colour": "x"}}, BadParameters),
        ({"data": "missing"}, BadDataset),
        ({"path": "missing"}, BadModel),
        ({"labels": 2}, BadModel),
        ({"recipe": "[model]\ntask = 'causal-lm'\n"}, BadRecipe),
        ({"recipe": "[training]\nepoch = 3\n"}, BadRecipe),
        ({"recipe": "[model\n"}, BadRecipe),
    ],
)
def test_what_is_refused_leaves_nothing(
    database_url: str, home: Path, tmp_path: Path, options: dict[str, Any], kind: type[Exception]
) -> None:
    given: dict[str, Any] = {"name": options.get("name", "digits"), "columns": options.get("columns")}
    if "labels" in options:
        given["path"] = image_model(tmp_path / "two", labels=options["labels"])
    if "recipe" in options:
        given["recipe"] = tmp_path / "r.toml"
        given["recipe"].write_text(options["recipe"])
    for name in ("data", "path"):
        if name in options:
            given[name] = tmp_path / str(options[name])
    with pytest.raises(kind) as caught:
        register_images(tmp_path, **given)
    assert "\n" not in str(caught.value)
    assert _count(Model) == _count(Version) == _count(Dataset) == _count(AuditEvent) == 0
    assert not (home / "models").exists()
    assert list((home / "datasets").glob("*")) == []


def test_publishing_moves_the_pointer_once(database_url: str, home: Path, tmp_path: Path) -> None:
    base = register_images(tmp_path)
    published = _publish(base, fill=1)
    assert published.number == 2
    assert published.manifest["files"].keys() == {"config.json", "model.safetensors"}
    with pytest.raises(Conflict, match="serves another version"):
        _publish(base, fill=2)
    assert _states() == [(2, "serving"), (1, "retired")]
    with transaction() as session, pytest.raises(Conflict, match="retired by a deletion"):
        service.activate(session, "digits", 1, "local", clock(session))


def _publish(base: Version, fill: int) -> Version:
    digest = str(fill) * 64
    path = service.version_path("digits", digest)
    shutil.copytree(base.path, path)
    with transaction() as session:
        now = clock(session)
        version = service.publish_version(
            session,
            job_id="job_1",
            model_id=base.model_id,
            base_version_id=base.id,
            digest=digest,
            path=path,
            method="retrain",
            verification={"verdict": "pass", "grade": "A"},
            destroy_after=timedelta(days=7),
            now=now,
        )
        datasets.add_tombstones(session, base.model_id, "job_1", ["r0004"], now)
        datasets.add_tombstones(session, base.model_id, "job_1", ["r0004", "r0005"], now)
    return version


def test_versions_and_artefacts_are_destroyed_when_their_date_has_come(
    database_url: str, home: Path, tmp_path: Path
) -> None:
    base = register_images(tmp_path)
    version = _publish(base, fill=1)
    scores = home / "jobs" / "job_1"
    scores.mkdir(parents=True)
    with transaction() as session:
        now = clock(session)
        for _ in range(2):
            service.track_artefact(session, model_id=base.model_id, job_id="job_1", kind="job-files", path=scores)
        outside = {"model_id": base.model_id, "job_id": "job_2", "kind": "strange", "path": tmp_path}
        service.track_artefact(session, **outside, destroy_by=now)
    assert service.sweep_destroyed(now) == 0
    assert service.sweep_destroyed(now + timedelta(days=8)) == 1
    assert service.sweep_destroyed(now + timedelta(days=8)) == 0
    assert not Path(base.path).exists()
    assert Path(version.path).exists()
    assert tmp_path.exists()
    assert _states() == [(2, "serving"), (1, "destroyed")]
    with transaction() as session:
        assert service.mark_job_artefacts_destroyed(session, "job_1", now) == 1
        kinds = [event["kind"] for event in events_of(session, [base.id])]
    assert kinds == ["version.registered", "artefact.destroyed"]


def test_a_directory_that_two_versions_share_is_kept(database_url: str, tmp_path: Path) -> None:
    base = register_images(tmp_path)
    second = register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    register_images(tmp_path, path=Path(base.path))
    assert _states() == [(3, "serving"), (2, "retired"), (1, "retired")]
    with transaction() as session:
        session.get_one(Version, base.id).destroy_by = clock(session)
    with reading() as session:
        now = clock(session)
    assert service.sweep_destroyed(now + timedelta(seconds=1)) == 1
    assert Path(base.path).exists()
    assert Path(second.path).exists()


def test_a_retired_version_that_holds_nothing_forgotten_can_serve_again(database_url: str, tmp_path: Path) -> None:
    register_images(tmp_path)
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    with transaction() as session:
        assert service.activate(session, "digits", 1, "key_1", clock(session)).state == "serving"
    assert _states() == [(2, "retired"), (1, "serving")]


def test_intake_sees_a_new_model_within_a_second(database_url: str, tmp_path: Path) -> None:
    assert service.intake_models(refresh=True) == {}
    register_images(tmp_path)
    assert service.intake_models() == {}
    known = service.intake_models(refresh=True)["digits"]
    assert (known.approval, known.identifier_types) == (False, {"email", "phone"})
