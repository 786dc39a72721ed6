"""`lethe jobs` against the application."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.cli.main import main
from service.database import transaction
from service.jobs.models import Attempt, Job
from tests.service.cli.support import document
from tests.service.jobs.support import REASON, Failed, failed_job


@pytest.fixture
def failed(database_url: str, tmp_path: Path) -> Failed:
    return failed_job(tmp_path)


@pytest.fixture
def connected(connected: TestClient, failed: Failed) -> TestClient:
    """There is something to talk about."""
    return connected


def _said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == code
    told = capsys.readouterr()
    return told.err if code else told.out


def test_a_failed_job_is_listed_shown_and_released(
    connected: TestClient, failed: Failed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [job["id"] for job in document(capsys, "jobs", "list", "--status", "failed")["items"]] == [failed.job_id]
    assert failed.job_id in _said(capsys, "jobs", "list", "--model", "digits")
    assert _said(capsys, "jobs", "list", "--model", "other") == "There are no jobs.\n"
    assert "reviewer (release 1)" in _said(capsys, "jobs", "list", "--waiting", "release")
    assert _said(capsys, "jobs", "list", "--waiting", "approval") == "There are no jobs.\n"
    shown = _said(capsys, "jobs", "show", failed.job_id)
    assert "error: no rung of the ladder passed the gate" in shown
    assert "attempt 1: nabla_tau, inconclusive, verdict inconclusive" in shown
    assert "a reviewer may release attempt 1 until" in shown
    assert "days left)" in shown
    said = _said(capsys, "jobs", "release", failed.job_id, "--attempt", "1", "--reason", REASON)
    assert "queued (publish)" in said
    assert "attempt 1 released by key_" in said
    again = _said(capsys, "jobs", "release", failed.job_id, "--attempt", "1", "--reason", REASON, code=1)
    assert "only what a failed job has left can be released" in again


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["release", "JOB", "--attempt", "1", "--reason", "no"], 2, "/reason"),
        (["release", "JOB", "--attempt", "7", "--reason", REASON], 2, "the job has no attempt 7"),
        (["release", "JOB", "--attempt", "1"], 2, "Missing option"),
        (["approve", "JOB", "--attempt", "1"], 1, "does not wait for a reviewer"),
        (["show", "job_none"], 1, "there is no job of this id"),
    ],
)
def test_refusals_are_one_line(
    connected: TestClient,
    failed: Failed,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    arguments = [failed.job_id if option == "JOB" else option for option in options]
    err = _said(capsys, "jobs", *arguments, code=code)
    assert said in err
    assert err.count("\n") == 1


def test_a_job_that_waits_is_approved(
    connected: TestClient, failed: Failed, capsys: pytest.CaptureFixture[str]
) -> None:
    with transaction() as session:
        session.execute(update(Job).values(status="running", stage="publish", waits_for="reviewer"))
        session.execute(update(Attempt).values(state="passed"))
    assert "waits for a reviewer" in _said(capsys, "jobs", "show", failed.job_id)
    job = document(capsys, "jobs", "approve", failed.job_id, "--attempt", "1")
    assert (job["waits_for"], job["review"]["kind"]) == (None, "approved")


def test_watching_ends_with_the_job(connected: TestClient, failed: Failed, capsys: pytest.CaptureFixture[str]) -> None:
    assert "failed unlearn" in _said(capsys, "jobs", "watch", failed.job_id, code=1)
    with transaction() as session:
        session.execute(update(Job).values(status="completed"))
    assert document(capsys, "jobs", "watch", failed.job_id)["status"] == "completed"
