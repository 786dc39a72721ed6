"""kill -9 of the workers in each stage: the job still ends in exactly one published version.

A trigger in the database holds the worker still inside the stage (the product has no switch for it), so that the kill
always lands where the test says.
"""

import time

import pytest

from service import queue
from service.jobs.stages import STAGES, queue_of
from service.queue import QUEUE_GPU
from tests.e2e.world import Assets, World

pytestmark = pytest.mark.e2e

# The trigger sleeps when the first claim of any stage reports that it has begun; the claim after it passes.
HOLD = """
CREATE OR REPLACE FUNCTION hold() RETURNS trigger AS $$
BEGIN
  IF NEW.kind = 'stage' AND NEW.data->>'status' = 'running' AND (NEW.data->>'claim')::int = 1
  THEN PERFORM pg_sleep(60); END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql;
DROP TRIGGER IF EXISTS hold ON job_events;
CREATE TRIGGER hold BEFORE INSERT ON job_events FOR EACH ROW EXECUTE FUNCTION hold();
"""
# Inside the publish transaction, after the directory is in place and before the commit.
HOLD_COMMIT = """
CREATE OR REPLACE FUNCTION hold() RETURNS trigger AS $$
BEGIN
  IF (SELECT claims FROM jobs WHERE id = NEW.job_id) = 1 THEN PERFORM pg_sleep(60); END IF;
  RETURN NEW;
END $$ LANGUAGE plpgsql;
DROP TRIGGER IF EXISTS hold ON versions;
CREATE TRIGGER hold BEFORE INSERT ON versions FOR EACH ROW EXECUTE FUNCTION hold();
"""
RELEASE = "DROP TRIGGER IF EXISTS hold ON job_events; DROP TRIGGER IF EXISTS hold ON versions;"
END_SLEEPERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'
"""


@pytest.fixture(scope="module", autouse=True)
def _registered(world: World, digits: Assets) -> None:
    world.register("digits", digits)


def _sleepers(world: World) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    return int(world.sql(query)[0][0])


def _kill_held(world: World, stage: str) -> None:
    world.poll(lambda: _sleepers(world), 180, "a worker inside the stage")
    assert world.kill_workers(queue_of(stage)) > 0
    world.sql(END_SLEEPERS)
    world.poll(lambda: not _sleepers(world), 30, "the held backends to end")


def test_kill_in_every_stage_of_one_job_ends_in_one_version(world: World) -> None:
    before = len(world.versions("digits"))
    world.sql(HOLD)
    try:
        request = world.post("t-person-040", model="digits")
        killed_in = []
        for stage in STAGES:
            world.poll(lambda: _sleepers(world), 120, f"a worker inside {stage}")
            killed_in.append(world.sql("SELECT stage FROM jobs WHERE status = 'running'")[0][0])
            _kill_held(world, stage)
        done = world.wait(request["id"])
        _job_completed(world, done["targets"][0]["job_id"])
    finally:
        world.sql(RELEASE)
    assert tuple(killed_in) == STAGES
    assert done["targets"][0]["outcome"] == "published"
    assert len(world.versions("digits")) == before + 1
    assert sum(version["state"] == "serving" for version in world.versions("digits")) == 1


def test_kill_between_the_directory_and_the_commit(world: World) -> None:
    before = len(world.versions("digits"))
    world.sql(HOLD_COMMIT)
    try:
        request = world.post("t-person-050", model="digits")
        _kill_held(world, "publish")
        done = world.wait(request["id"])
    finally:
        world.sql(RELEASE)
    assert done["targets"][0]["outcome"] == "published"
    assert len(world.versions("digits")) == before + 1


def test_kill_in_the_middle_of_training(world: World) -> None:
    before = len(world.versions("digits"))
    request = world.post("t-person-051", model="digits")
    query = "SELECT count(*) FROM jobs WHERE stage = 'unlearn' AND progress > 0.06 AND status = 'running'"
    world.poll(lambda: world.sql(query)[0][0], 60, "training under way")
    assert world.kill_workers(QUEUE_GPU) == 2
    assert world.wait(request["id"])["targets"][0]["outcome"] == "published"
    assert len(world.versions("digits")) == before + 1


def test_duplicated_deliveries_change_nothing(world: World) -> None:
    before = len(world.versions("digits"))
    request = world.post("t-person-052", model="digits")
    job_id = world.poll(
        lambda: world.get(f"/v1/deletion-requests/{request['id']}")["targets"][0]["job_id"], 30, "a job"
    )
    deadline = time.monotonic() + 60
    while world.get(f"/v1/jobs/{job_id}")["status"] in ("queued", "running") and time.monotonic() < deadline:
        for stage in STAGES:
            for _ in range(3):
                queue.send(queue.TASK_ADVANCE, job_id, stage, queue=queue_of(stage))
        time.sleep(0.5)
    assert world.wait(request["id"])["targets"][0]["outcome"] == "published"
    assert len(world.versions("digits")) == before + 1
    published = "SELECT count(*) FROM audit_events WHERE kind = 'version.published' AND data->>'job' = :job"
    assert world.sql(published, job=job_id)[0][0] == 1


def _job_completed(world: World, job_id: str) -> None:
    job = world.poll(
        lambda: (found := world.get(f"/v1/jobs/{job_id}"))["status"] in ("completed", "failed") and found,
        60,
        "the end",
    )
    assert job["status"] == "completed", job
