"""Twenty requests at once: one or two jobs, every one completed, and every one read back from the serving path."""

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pyarrow import parquet

from tests.e2e.world import Assets, World, serving

pytestmark = pytest.mark.e2e

WORKERS = 1


def test_twenty_requests_end_in_one_or_two_jobs_and_are_read_back(world: World, digits: Assets) -> None:
    world.register("digits", digits)
    people = [f"t-person-{number:03d}" for number in range(20)]
    with serving(world, "digits") as address:
        assert _served_version(address, digits) == 1
        with ThreadPoolExecutor(20) as pool:
            requests = list(pool.map(lambda person: world.post(person, model="digits"), people))
        done = [world.wait(request["id"], seconds=300) for request in requests]
        newest = max(request["targets"][0]["new_version"] for request in done)
        world.poll(lambda: _served_version(address, digits) == newest, 30, "the server to switch")

    jobs = world.get("/v1/jobs")["items"]
    assert 1 <= len(jobs) <= 2
    assert {request["targets"][0]["job_id"] for request in done} == {job["id"] for job in jobs}
    trained_on = _trained_on(world, "digits")
    for person, request in zip(people, done, strict=True):
        target = request["targets"][0]
        assert (target["outcome"], target["verdict"]) == ("published", "pass")
        report = world.get(f"/v1/deletion-requests/{request['id']}/report.json")
        reported = report["targets"][0]["lineage"]["new_version"]
        assert reported["number"] == target["new_version"]
        assert reported["digest"] == world.version("digits", reported["number"])["digest"]
        theirs = _records_of(digits, person)
        assert theirs
        assert not theirs & trained_on
    assert world.version("digits", newest)["state"] == "serving"


def test_the_same_person_again_completes_with_an_honest_answer(world: World) -> None:
    again = world.wait(world.post("t-person-000", model="digits")["id"])
    assert again["targets"][0]["outcome"] == "already_deleted"
    assert again["targets"][0]["new_version"] is None


def test_an_unknown_person_completes_with_no_records_found(world: World) -> None:
    before = len(world.versions("digits"))
    done = world.wait(world.post("nobody-of-that-name", model="digits")["id"])
    assert done["targets"][0]["outcome"] == "no_records"
    assert len(world.versions("digits")) == before
    report = world.get(f"/v1/deletion-requests/{done['id']}/report.json")
    assert report["targets"][0]["outcome"] == "no_records"


def test_the_same_person_twice_in_one_batch_completes_both(world: World) -> None:
    first = world.post("t-person-030", model="digits")
    second = world.post("t-person-030@example.org", model="digits", kind="email")
    done = [world.wait(first["id"]), world.wait(second["id"])]
    assert {request["targets"][0]["outcome"] for request in done} <= {"published", "already_deleted"}
    assert "published" in {request["targets"][0]["outcome"] for request in done}


def _served_version(address: str, assets: Assets) -> int:
    """The version that answers a real prediction."""
    image = parquet.read_table(assets.holdout, columns=["image"]).column("image")[0].as_py()["bytes"]
    body = {"instances": [{"image": base64.b64encode(image).decode()}]}
    answer = httpx.post(f"{address}/predict", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["predictions"]) == 1
    return int(answer.headers["Lethe-Model-Version"])


def _records_of(assets: Assets, person: str) -> set[str]:
    table = parquet.read_table(assets.train, columns=["record_id", "subject_id"]).to_pydict()
    return {rid for rid, sid in zip(table["record_id"], table["subject_id"], strict=True) if sid == person}


def _trained_on(world: World, model: str) -> set[str]:
    """Record ids in the training record of the version that is being served."""
    path = world.sql(
        "SELECT v.path FROM versions v JOIN models m ON m.serving_version_id = v.id WHERE m.name = :name",
        name=model,
    )[0][0]
    return set(parquet.read_table(Path(path) / "training_records.parquet").column("record_id").to_pylist())
