"""`lethe models prepare`: what it queues and follows, what it says of cost, and what it refuses in one line."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
from sqlalchemy import select, update

from service.cli.main import main
from service.database import clock, new_id, transaction
from service.errors import JobError
from service.jobs.models import Attempt, Job
from service.queue import TASK_TRAIN_REFERENCE
from service.references import building
from service.references.service import Wanted, prepare
from service.registry.models import Model, ReferencePool, Version
from tests.service.factories import register_images
from tests.service.references.support import COUNT, claim, members, plan, register, row, settle, train_waiting


@pytest.fixture(autouse=True)
def _registered(database_url: str, tmp_path: Path) -> None:
    register(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """(exit code, standard output, standard error) of `lethe models prepare digits ...`."""

    def call(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["models", "prepare", "digits", *options])
        return code, *capsys.readouterr()

    return call


def _queued() -> list[ReferencePool]:
    with transaction() as session:
        return list(session.scalars(select(ReferencePool)))


def _worker(*steps: Callable[[str], Any]) -> Thread:
    """Does the work once the command has queued it."""

    def work() -> None:
        while not _queued():
            time.sleep(0.05)
        for step in steps:
            step(_queued()[0].id)

    thread = Thread(target=work)
    thread.start()
    return thread


def _until_said(line: str) -> None:
    """Until the command, which runs in this very process, has written it; what a test asserts afterwards, if never."""
    deadline = time.monotonic() + 30
    while line not in cast(Any, sys.stderr).getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_it_queues_the_building_and_follows_it_until_the_pool_is_ready(run: Callable[..., Any]) -> None:
    worker = _worker(plan, lambda _: _until_said("building, 0 of 8"), train_waiting, settle)
    code, out, err = run("--references", str(COUNT), "--seed", "5", "--json")
    worker.join()
    assert code == 0, err
    told = json.loads(out)
    assert (told["state"], told["count"], told["seed"], told["done"]) == ("ready", COUNT, 5, COUNT)
    assert told["sides"] == {"method": 0, "gate": COUNT}
    lines = err.splitlines()
    assert "building, 0 of 8, waiting for a worker" in lines
    assert lines[-1] == "ready"
    code, out, _ = run()  # again: nothing is left to do
    assert (code, out) == (0, "digits: 8 references (8 for the gate) are ready\n")
    assert len(_queued()) == 1


def test_a_failure_is_told_and_the_same_command_goes_on(run: Callable[..., Any]) -> None:
    def broken(pool_id: str) -> None:
        building.fail(claim(TASK_TRAIN_REFERENCE, members(pool_id)[0].id), JobError("no space left"))

    worker = _worker(plan, broken)
    code, _, err = run("--references", str(COUNT))
    worker.join()
    assert code == 1
    assert err.splitlines()[-1] == ("lethe: the pool of 'digits' failed: no space left; prepare it again to go on")
    pool_id = _queued()[0].id
    resumed = Thread(target=lambda: (_until(pool_id, "building"), train_waiting(pool_id), settle(pool_id)))
    resumed.start()
    assert run()[0] == 0
    resumed.join()


def _until(pool_id: str, state: str) -> None:
    while row(pool_id).state != state:
        time.sleep(0.05)


def _heed_interrupts() -> None:
    """A shell that runs the tests in the background has them, and what they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_command_leaves_the_work_running() -> None:
    command = [sys.executable, "-m", "service.cli.main", "models", "prepare", "digits", "--references", str(COUNT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts) as process:  # noqa: PLW1509
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting for a worker\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "`lethe models prepare digits` follows it again" in said
    assert [pool.state for pool in _queued()] == ["planning"]


def test_it_can_be_cancelled(run: Callable[..., Any]) -> None:
    pool_id = prepare("digits", Wanted(count=COUNT))
    plan(pool_id)
    assert run("--cancel") == (0, "digits: cancelled; 0 of 8 references are trained\n", "")
    code, _, err = run("--cancel")
    assert (code, err) == (1, "lethe: nothing is being prepared for 'digits': its pool is cancelled\n")


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--references", "4"), 2, "4 references make no pool: take at least 8"),
        (("--references", "9"), 2, "9 references are odd: they come in pairs, take 10"),
        (("--references", "4", "--estimate"), 2, "4 references make no pool"),
        (("--strategy", "thirds"), 2, "--strategy 'thirds' is unknown"),
        (("--reserved", "0.2"), 2, "for --strategy reserved_split"),
        (("--strategy", "reserved_split", "--reserved", "1"), 2, "a share between 0 and 1"),
        (("--recipe", "missing.toml"), 2, "missing.toml: cannot be read"),
        (("--cancel",), 1, "it has no reference pool"),
    ],
)
def test_what_makes_no_pool_is_one_clear_line(
    run: Callable[..., Any], options: tuple[str, ...], code: int, told: str
) -> None:
    got, out, err = run(*options)
    assert (got, out) == (code, "")
    assert told in err
    assert err.count("\n") == 1
    assert _queued() == []


def test_without_a_recipe_or_a_model_it_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_images(tmp_path, "bare")
    assert main(["models", "prepare", "bare"]) == 2
    assert "nothing says how 'bare' is trained: give --recipe" in capsys.readouterr().err
    assert main(["models", "prepare", "none"]) == 1
    assert "there is no model 'none'" in capsys.readouterr().err


def _estimate(run: Callable[..., Any], *options: str) -> dict[str, Any]:
    code, out, err = run("--estimate", "--json", *options)
    assert code == 0, err
    return dict(json.loads(out))


def test_a_pool_of_halves_is_seldom_the_better_buy_and_it_says_so(run: Callable[..., Any]) -> None:
    told = _estimate(run)
    # Nothing so far: one job a month; 27 days of patience let 12 * 27 / 365 jobs share a retraining, so none does.
    assert told["horizon"]["jobs"] == pytest.approx(12)
    assert told["horizon"]["jobs_per_retrain"] == 1.0
    # 32 halves; each job touches 16 of them, and an approximate job costs (10 * 0.1 + 1) / 11 of a retrain.
    assert told["prepare"] == 16
    assert told["refreshing"] == pytest.approx(12 * 16 * 0.5)
    assert told["jobs"] == pytest.approx(12 * 2 / 11)
    assert told["retraining"] == pytest.approx(12)
    assert told["better"] == "retraining"
    code, out, _ = run("--estimate")
    assert code == 0
    assert "retraining is the better buy" in out
    assert "12 deletion jobs (one a month, since there were none so far)" in out
    assert _queued() == []


def test_a_cheap_pool_on_reserved_people_can_be_the_better_buy(run: Callable[..., Any], tmp_path: Path) -> None:
    quick = tmp_path / "quick.toml"
    quick.write_text((tmp_path / "recipe.toml").read_text().replace("epochs = 4", "epochs = 1"))
    told = _estimate(run, "--strategy", "reserved_split", "--reserved", "0.2", "--recipe", str(quick))
    assert (told["share"], told["recipe_cost"]) == (0.1, 0.25)
    assert told["prepare"] == pytest.approx(32 * 0.1 * 0.25)
    assert (told["refreshing"], told["better"]) == (0, "pool")
    assert told["total"] < told["retraining"]


def test_the_policy_and_the_past_say_what_is_to_be_expected(run: Callable[..., Any], tmp_path: Path) -> None:
    register(tmp_path, '[batch]\nsafety = "240h"\n[references]\nhorizon = "100d"\njobs = 50\nrefresh_wait = "4d"')
    horizon = _estimate(run)["horizon"]
    assert horizon["jobs"] == 50
    assert horizon["jobs_per_refresh"] == pytest.approx(50 * 4 / 100)
    assert horizon["jobs_per_retrain"] == pytest.approx(50 * 20 / 100)

    register(tmp_path, '[references]\nhorizon = "365d"')
    _past(jobs=3, people=4, seconds=30.0, approximate=6.0)
    told = _estimate(run)
    assert told["horizon"]["jobs"] == pytest.approx(3 * 365 / 60, rel=0.01)  # registered sixty days ago
    assert told["horizon"]["subjects_per_job"] == 4
    assert told["horizon"]["job_cost"] == pytest.approx(0.2)
    assert told["train_seconds"] == 30
    assert told["affected"] == pytest.approx(32 * (1 - 2**-4))
    _, out, _ = run("--estimate")
    assert "(3 in 60 days so far), people in each: 4," in out
    assert "One retrain took 30 s here" in out


def test_where_every_job_is_exact_a_pool_saves_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    register(tmp_path, "[ladder]\napproximate_attempts = 0")
    told = _estimate(run, "--strategy", "reserved_split")
    assert told["horizon"]["job_cost"] == 1.0
    assert (told["better"], told["pays_after"]) == ("retraining", None)


def _past(jobs: int, people: int, seconds: float, approximate: float) -> None:
    """So many published jobs in the sixty days since the model was registered."""
    with transaction() as session:
        moment = clock(session)
        model = session.scalars(select(Model)).one()
        session.execute(update(Model).values(created_at=moment - timedelta(days=60)))
        session.execute(update(Version).values(manifest={"training": {"seconds": seconds}}))
        for _ in range(jobs):
            job = Job(id=new_id("job"), model_id=model.id, model_name="digits", status="completed", stage="notify")
            job.policy, job.policy_digest, job.created_at = {}, "", moment
            job.scope, job.new_version_id = {"subjects": people}, "ver_1"
            session.add(job)
            session.flush()
            attempt = Attempt(id=new_id("att"), job_id=job.id, number=1, method="nabla_tau", params={}, seed=0)
            attempt.state, attempt.result, attempt.started_at = "passed", {"seconds": approximate}, moment
            session.add(attempt)
