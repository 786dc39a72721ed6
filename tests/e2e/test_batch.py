"""Twenty requests at once: one or two jobs, every one completed, and every one read back from the serving path."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.e2e.world import Assets, World

pytestmark = pytest.mark.e2e


def test_twenty_requests_end_in_one_or_two_jobs_and_are_read_back(world: World, digits: Assets) -> None:
    world.register("digits", digits)
    people = [f"t-person-{number:03d}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        requests = list(pool.map(lambda person: world.post(person, model="digits"), people))

    done = [world.wait(request["id"]) for request in requests]

    jobs = world.get("/v1/jobs")["items"]
    assert 1 <= len(jobs) <= 2
    assert all(job["status"] == "completed" for job in jobs)
    serving = [version for version in world.versions("digits") if version["state"] == "serving"]
    assert len(serving) == 1
    trained_on = _trained_on(world, "digits")
    ids = parquet.read_table(digits.train, columns=["record_id", "subject_id"]).to_pydict()
    for person, request in zip(people, done, strict=True):
        target = request["targets"][0]
        assert target["outcome"] == "published"
        assert target["verdict"] == "pass"
        report = world.get(f"/v1/deletion-requests/{request['id']}/report.json")
        reported = report["targets"][0]["lineage"]["new_version"]
        published = next(version for version in world.versions("digits") if version["number"] == target["new_version"])
        assert reported["digest"] == published["digest"]
        theirs = {rid for rid, sid in zip(ids["record_id"], ids["subject_id"], strict=True) if sid == person}
        assert theirs
        assert not theirs & trained_on


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


def _trained_on(world: World, model: str) -> set[str]:
    """Record ids in the training record of the version that is being served."""
    path = world.sql(
        "SELECT v.path FROM versions v JOIN models m ON m.serving_version_id = v.id WHERE m.name = :name",
        name=model,
    )[0][0]
    return set(parquet.read_table(Path(path) / "training_records.parquet").column("record_id").to_pylist())
