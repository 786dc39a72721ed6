"""A worker without disk or memory: the job fails with its cause, the serving version is untouched, retry works."""

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.e2e.world import Assets, World

pytestmark = pytest.mark.e2e

WORKERS = 1


@pytest.fixture(scope="module", autouse=True)
def _registered(world: World, digits: Assets) -> None:
    world.register("digits", digits)


def _limit_files(world: World, size: int) -> None:
    # The kernel refuses writes beyond the limit in the workers and in everything they start, as a full disk does.
    for child in world.stack.children:
        if child.name.startswith("worker"):
            for process in [child.process.pid, *_children(child.process.pid)]:
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _children(pid: int) -> list[int]:
    """All descendants: the processes that wait for stages, and the servers that fork for them."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in _children(child)]


def _retry(world: World, request_id: str) -> None:
    answer = world.client.post(f"/v1/deletion-requests/{request_id}/retry")
    assert answer.status_code == 200, answer.text


def test_full_disk(world: World) -> None:
    serving = [version["digest"] for version in world.versions("digits") if version["state"] == "serving"]
    _limit_files(world, 16_000)
    try:
        request = world.wait(world.post("t-person-060", model="digits")["id"], until=("failed",))
    finally:
        _limit_files(world, resource.RLIM_INFINITY)
    job = world.get(f"/v1/jobs/{request['targets'][0]['job_id']}")
    assert job["status"] == "failed"
    assert job["error"]["code"] == "disk_full"
    assert [version["digest"] for version in world.versions("digits") if version["state"] == "serving"] == serving

    _retry(world, request["id"])
    assert world.wait(request["id"])["targets"][0]["outcome"] == "published"


def _runner(world: World) -> int | None:
    """The process of a heavy stage: forked by a fork server, and its only child."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"workers.runner" in command and str(world.home).encode() in environment:
            for child in _children(int(entry.name)):
                return child
    return None


def test_a_worker_killed_for_memory(world: World) -> None:
    before = len(world.versions("digits"))
    request = world.post("t-person-061", model="digits")
    killed: set[int] = set()
    while len(killed) < 2:
        process = world.poll(lambda: (pid := _runner(world)) not in killed and pid, 60, "a training process")
        os.kill(process, signal.SIGKILL)
        killed.add(process)
    failed = world.wait(request["id"], until=("failed",))
    assert world.get(f"/v1/jobs/{failed['targets'][0]['job_id']}")["error"]["code"] == "out_of_memory"
    assert len(world.versions("digits")) == before

    _retry(world, request["id"])
    assert world.wait(request["id"])["targets"][0]["outcome"] == "published"


def test_cancelled_while_it_runs(world: World) -> None:
    before = len(world.versions("digits"))
    request = world.post("t-person-062", model="digits")
    world.poll(lambda: world.get(f"/v1/deletion-requests/{request['id']}")["stage"] == "unlearn", 60, "unlearn")
    answer = world.client.post(f"/v1/deletion-requests/{request['id']}/cancel")
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    job_id = answer.json()["targets"][0]["job_id"]
    world.poll(lambda: world.get(f"/v1/jobs/{job_id}")["status"] == "cancelled", 60, "the job to notice")
    assert len(world.versions("digits")) == before


def test_one_of_two_cancelled_leaves_the_other(world: World) -> None:
    kept, dropped = world.post("t-person-063", model="digits"), world.post("t-person-064", model="digits")
    world.poll(lambda: world.get(f"/v1/deletion-requests/{dropped['id']}")["stage"] == "unlearn", 60, "unlearn")
    assert world.client.post(f"/v1/deletion-requests/{dropped['id']}/cancel").status_code == 200
    done = world.wait(kept["id"])
    assert done["targets"][0]["outcome"] == "published"
    assert world.get(f"/v1/deletion-requests/{dropped['id']}")["status"] == "cancelled"
    tombstones = {
        row[0]
        for row in world.sql("SELECT record_id FROM tombstones WHERE job_id = :job", job=done["targets"][0]["job_id"])
    }
    assert len(tombstones) == 10


def test_the_worker_of_light_stages_did_all_that_without_torch(world: World) -> None:
    worker = next(child for child in world.stack.children if child.name == "worker-cpu")
    for process in [worker.process.pid, *_children(worker.process.pid)]:
        assert "libtorch" not in Path(f"/proc/{process}/maps").read_text()
