"""Models over HTTP."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.service.conftest import MakeKey
from tests.service.factories import image_model, register_images, write_parquet

Headers = dict[str, str]


def test_models_and_versions_are_shown(api: TestClient, make_key: MakeKey, digits: str, tmp_path: Path) -> None:
    headers = make_key("submitter")
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    listed = api.get("/v1/models", headers=headers).json()
    assert [item["name"] for item in listed["items"]] == ["digits"]
    model = api.get("/v1/models/digits", headers=headers).json()
    assert model == listed["items"][0]
    assert model["serving"]["number"] == 2
    assert model["dataset"]["records"] == 24
    assert model["dataset"]["identifier_types"] == ["email", "phone", "subject_id"]
    versions = api.get(model["links"]["versions"], headers=headers).json()["items"]
    assert [(item["number"], item["state"], item["parent"]) for item in versions] == [
        (2, "serving", 1),
        (1, "retired", None),
    ]
    version = api.get(versions[0]["links"]["self"], headers=headers).json()
    assert set(version["files"]) == {"config.json", "model.safetensors"}
    assert version["digest"] == model["serving"]["digest"]


def test_files_of_the_serving_version_only(api: TestClient, admin: Headers, digits: str, tmp_path: Path) -> None:
    model = image_model(tmp_path / "new", fill=1)
    write_parquet(model / "training_records.parquet", {"record_id": ["r0000"], "exposures": [1]})
    register_images(tmp_path, path=model)
    base = "/v1/models/digits/versions/2/files"
    answer = api.get(f"{base}/model.safetensors", headers=admin)
    assert answer.content == (model / "model.safetensors").read_bytes()
    assert answer.headers["lethe-model-version"] == "2"
    old = api.get("/v1/models/digits/versions/1/files/model.safetensors", headers=admin)
    assert (old.status_code, old.json()["code"]) == (409, "conflict")
    assert api.get(f"{base}/training_records.parquet", headers=admin).status_code == 404


@pytest.mark.parametrize(
    "path", ["../config.json", "..%2f..%2fkeys%2fmaster.key", "%2fetc%2fpasswd", "", "nothing", "%00"]
)
def test_no_path_leads_out_of_the_version(api: TestClient, admin: Headers, digits: str, path: str) -> None:
    answer = api.get(f"/v1/models/digits/versions/1/files/{path}", headers=admin)
    assert answer.status_code in (404, 405), answer.text


def test_a_retired_version_is_served_again_only_if_it_may(
    api: TestClient, admin: Headers, digits: str, tmp_path: Path
) -> None:
    register_images(tmp_path, path=image_model(tmp_path / "new", fill=1))
    path = "/v1/models/digits/versions/1/activate"
    assert api.post(path, headers=admin).json()["state"] == "serving"
    assert api.post(path, headers=admin).json()["state"] == "serving"
    rows = {"record_id": ["r"], "subject_id": ["s"], "image": [image_bytes()], "label": [0]}
    data = write_parquet(tmp_path / "other.parquet", rows)
    register_images(tmp_path, path=image_model(tmp_path / "third", fill=2), data=write_identifiers(data, rows))
    answer = api.post(path, headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert api.post("/v1/models/digits/versions/9/activate", headers=admin).status_code == 404


def image_bytes() -> bytes:
    """One small image."""
    from tests.service.factories import png

    return png(1)


def write_identifiers(path: Path, rows: dict[str, list[object]]) -> Path:
    """The same with the identifier columns that registration asks for."""
    return write_parquet(path, rows | {"mail": ["a@b.c"], "tel": ["+49 30 1"]})


def test_the_catalogue_is_listed(api: TestClient, make_key: MakeKey) -> None:
    headers = make_key("submitter")
    methods = api.get("/v1/methods", headers=headers).json()["items"]
    assert {"retrain", "nabla_tau", "negative_gradient_plus"} <= {item["name"] for item in methods}
    assert all(item["parameters"]["type"] == "object" for item in methods)
    metrics = api.get("/v1/metrics", headers=headers).json()["items"]
    assert all({"name", "role", "direction", "needs", "summary"} == set(item) for item in metrics)
