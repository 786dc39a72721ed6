"""A reviewer's part in publication, with real servers and workers: releasing what is undecided, approving a pass."""

import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.reports.bundle import build_bundle
from service.reports.signing import load_or_create_key
from service.reports.verify import verify_bundle
from tests.e2e.world import Assets, World, checked, here

pytestmark = pytest.mark.e2e

WORKERS = 1
REASON = "The person waits since spring; a retrain follows with the next data."
# One approximate method, and no recipe to retrain by: ten records are too few to measure, so nothing can pass.
UNDECIDED = '[ladder]\nmethods = ["nabla_tau"]\n[batch]\nwindow = "1s"\n[approval]\noverride = true\n'
APPROVED = '[ladder]\nmethods = ["retrain"]\n[batch]\nwindow = "1s"\n[approval]\npublication = true\n'


def _register(world: World, name: str, policy: str, assets: Assets, model: Path) -> None:
    file = world.home.parent / f"{name}.toml"
    file.write_text(policy)
    options = ["--path", str(model), "--task", "image-classification", "--data", str(assets.train)]
    here("models", "register", name, *options, "--holdout", str(assets.holdout), "--policy", str(file))


@pytest.fixture(scope="module", autouse=True)
def _registered(world: World, digits: Assets) -> None:
    bare = world.home.parent / "made-elsewhere"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((digits.model / name).read_bytes())
    _register(world, "undecided", UNDECIDED, digits, bare)
    _register(world, "approved", APPROVED, digits, digits.model)


def _jobs(world: World, *arguments: str) -> dict[str, Any]:
    key = world.stack.admin_key
    told = checked("jobs", *arguments, "--json", home=world.home, LETHE_URL=world.stack.url, LETHE_API_KEY=key)
    return dict(json.loads(told))


def _report(world: World, request_id: str) -> dict[str, Any]:
    return dict(world.get(f"/v1/deletion-requests/{request_id}/report.json"))


def _bundle(world: World, request_id: str) -> bytes:
    answer = world.client.get(f"/v1/deletion-requests/{request_id}/report/bundle")
    assert answer.status_code == 200
    return answer.content


def _faults(world: World, report: dict[str, Any]) -> list[str]:
    """What the verifier finds in this report, signed by the service's own key."""
    bundle = build_bundle(json.dumps(report).encode(), b"%PDF-", load_or_create_key(world.home))
    return [finding.detail for finding in verify_bundle(bundle).findings if not finding.ok]


def _other_reason(review: dict[str, Any]) -> None:
    review |= {"reason": "All checks passed.", "reason_sha256": sha256(b"All checks passed.").hexdigest()}


def _other_key(review: dict[str, Any]) -> None:
    review["key_id"] = "key_somebody_else"


def _edited(report: dict[str, Any], edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(report))
    for part in (copy, copy["targets"][0]):
        edit(part["publication"]["review"])
    return copy


def test_an_inconclusive_attempt_is_released_and_its_report_says_so(world: World) -> None:
    request = world.wait(world.post("t-person-070", model="undecided")["id"], seconds=300, until=("failed",))
    job_id = request["targets"][0]["job_id"]
    job = _jobs(world, "show", job_id)
    assert [attempt["state"] for attempt in job["attempts"]] == ["inconclusive"]
    assert job["releasable"]["attempts"] == [1]

    released = _jobs(world, "release", job_id, "--attempt", "1", "--reason", REASON)
    assert released["review"]["reason"] == REASON
    done = world.wait(request["id"], seconds=300)
    target = done["targets"][0]
    assert (target["outcome"], target["verdict"], target["grade"]) == ("published", "inconclusive", None)
    version = world.version("undecided", target["new_version"])
    assert (version["state"], version["verification"]["verdict"]) == ("serving", "inconclusive")

    report = _report(world, request["id"])
    assert (report["verification"]["verdict"], report["grade"]) == ("inconclusive", None)
    assert report["attempts"][0]["state"] == "released"
    review = report["publication"]["review"]
    assert (review["kind"], review["reason"], review["key_id"]) == ("released", REASON, released["review"]["key_id"])
    html = world.client.get(f"/v1/deletion-requests/{request['id']}/report.html").text
    assert "Released by a reviewer on" in html
    assert REASON in html

    verified = verify_bundle(_bundle(world, request["id"]))
    assert verified.ok, [finding for finding in verified.findings if not finding.ok]
    assert _faults(world, report) == []
    assert "undecided: the reason is not the one whose digest is in the log" in _faults(
        world, _edited(report, _other_reason)
    )
    assert "undecided: the log names another reviewer or another time" in _faults(world, _edited(report, _other_key))
    world.poll(lambda: world.get(f"/v1/jobs/{job_id}")["status"] == "completed", 30, "the end of the job")
    assert not (world.home / "jobs" / job_id).exists()


def test_a_version_that_passed_waits_for_its_reviewer(world: World) -> None:
    request = world.post("t-person-071", model="approved")
    job_id = world.poll(
        lambda: world.get(f"/v1/deletion-requests/{request['id']}")["targets"][0]["job_id"], 30, "the job"
    )
    waiting = world.poll(lambda: (job := _job(world, job_id))["waits_for"] and job, 300, "the gate")
    assert (waiting["status"], waiting["stage"], waiting["verdict"]) == ("running", "publish", "pass")
    assert waiting["days_left"] > 27
    fence = world.sql("SELECT fence, sends FROM jobs WHERE id = :job", job=job_id)
    assert len(world.versions("approved")) == 1

    # Nobody holds it and nobody asks again and again.
    time.sleep(3)
    assert world.sql("SELECT fence, sends FROM jobs WHERE id = :job", job=job_id) == fence

    _jobs(world, "approve", job_id, "--attempt", str(waiting["attempts"][-1]["number"]))
    done = world.wait(request["id"], seconds=300)
    assert (done["targets"][0]["outcome"], done["targets"][0]["grade"]) == ("published", "A")
    report = _report(world, request["id"])
    assert report["publication"]["review"]["kind"] == "approved"
    verified = verify_bundle(_bundle(world, request["id"]))
    assert verified.ok, [finding for finding in verified.findings if not finding.ok]
    hidden = json.loads(json.dumps(report))
    for part in (hidden, hidden["targets"][0]):
        part["publication"]["review"] = None
    assert _faults(world, hidden) == ["approved: the report names no reviewer, and the policy asks for one"]


def _job(world: World, job_id: str) -> dict[str, Any]:
    return dict(world.get(f"/v1/jobs/{job_id}"))


def test_it_can_be_cancelled_while_it_waits(world: World) -> None:
    before = len(world.versions("approved"))
    request = world.post("t-person-072", model="approved")
    job_id = world.poll(
        lambda: world.get(f"/v1/deletion-requests/{request['id']}")["targets"][0]["job_id"], 30, "the job"
    )
    world.poll(lambda: _job(world, job_id)["waits_for"], 300, "the gate")
    answer = world.client.post(f"/v1/deletion-requests/{request['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    world.poll(lambda: _job(world, job_id)["status"] == "cancelled", 60, "the job to notice")
    assert len(world.versions("approved")) == before
