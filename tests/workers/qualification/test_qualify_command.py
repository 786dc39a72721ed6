"""`lethe qualify` as typed, with real trainings: who is qualified, what a second run repeats, what a kill changes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.cli.main import main
from service.verification.qualification import VALID, load_qualification
from tests.workers.qualification.shelves import data_of, words_of
from workers.qualification import runs

SMALL = ["--sizes", "5", "--repetitions", "1"]


def told(path: Path) -> dict[str, Any]:
    """The document without its dates and what follows from them."""
    found = json.loads(path.read_text())
    for name in ("issued", "valid_until", "digest"):
        del found[name]
    return dict(found)


@pytest.mark.usefixtures("doing_nothing", "home")
def test_a_method_that_does_nothing_is_not_qualified(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(shelf, "do_nothing", tmp_path / "w", *SMALL, "--json")
    assert main(words) == 1
    found = load_qualification(tmp_path / "w.json")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == found.as_json()
    assert "3 simulated deletions beside 3 trainings are left to run: about" in printed.err
    assert "size 5: 15 records in all are likely too few, an AUC known within 0.05 takes some 286" in printed.err
    assert (found.method, found.params, found.verdict) == ("do_nothing", {}, "not qualified")
    assert found.valid_until - found.issued == VALID
    (five,) = found.classes
    assert (five.size, five.runs) == (5, 3)
    assert set(five.designs) == {"random", "memorised", "duplicated"}
    assert (five.candidate.failed, five.retrained.failed) == (3, 0)
    figures = {figure.name: figure for figure in five.pooled}
    assert figures["auc"].outcome == "fail"
    assert (figures["auc"].estimate or 0.0) > 0.65
    assert figures["utility"].outcome != "fail"
    assert {"auc_int8", "auc_int4", "retained_accuracy"} < set(figures)
    assert any("canary: the model holds no canaries" in note for note in found.notes)
    assert not list((tmp_path / "w").glob("retrained-*")) + list((tmp_path / "w").glob("candidate-*"))


def exact(shelf: Path, work: Path) -> list[str]:
    """The exact method by a recipe that takes a quarter of the time: both sides are trained by it."""
    return words_of(shelf, "retrain", work, *SMALL, "--recipe", str(shelf / "quick.toml"))


@pytest.fixture(scope="module")
def retrained(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """(exit code, document) of the exact method, qualified without an interruption."""
    work = tmp_path_factory.mktemp("whole") / "w"
    return main(exact(shelf, work)), work.with_suffix(".json")


def test_an_exact_retrain_is_at_worst_not_measured_well_enough(retrained: tuple[int, Path]) -> None:
    code, path = retrained
    assert code == 3
    (five,) = load_qualification(path).classes
    assert (five.verdict, five.runs) == ("inconclusive", 3)
    auc = five.pooled[0]
    assert auc.ci95 is not None
    assert auc.ci95[0] < 0.5 < auc.ci95[1]


def test_killed_and_started_again_it_ends_in_the_same_document(
    shelf: Path, retrained: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "w"
    words = exact(shelf, work)
    with subprocess.Popen([sys.executable, "-m", "service.cli.main", *words]) as process:
        while not list((work / "runs").glob("*.json")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (work / "runs").glob("*.json")}
    assert 0 < len(before) < 3
    assert main(words) == retrained[0]
    assert {name: (work / "runs" / name).stat().st_mtime_ns for name in before} == before
    assert told(work.with_suffix(".json")) == told(retrained[1])
    # Once more: nothing is left to be trained.
    monkeypatch.setattr(runs, "train_by_recipe", None)
    monkeypatch.setattr(runs, "run_attempt", None)
    work.with_suffix(".json").unlink()
    assert main(words) == retrained[0]
    assert told(work.with_suffix(".json")) == told(retrained[1])


@pytest.mark.usefixtures("home")
def test_what_cannot_be_qualified_is_refused_in_one_line(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "plan.json").write_text(json.dumps({"task": "causal-lm", "begun": "2026-11-01"}))
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "something").touch()
    for work, method, more, why in (
        (other, "retrain", SMALL, "holds the runs of another task"),
        (strange, "retrain", SMALL, "holds something else than a qualification"),
        (tmp_path / "w1", "nothing", SMALL, "unknown method 'nothing'"),
        (tmp_path / "w2", "retrain", ["--sizes", "0"], "--sizes '0'"),
        (tmp_path / "w3", "retrain", ["--sizes", "100"], "no set of 100 records is a tenth of 200"),
        (tmp_path / "w4", "nabla_tau", [*SMALL, "--params", '{"passes": 0}'], "nabla_tau: passes"),
    ):
        assert main(words_of(shelf, method, work, *more)) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert why in captured.err
    words = ["qualify", "--model", str(shelf / "model"), "--task", "image-classification", *data_of(shelf)[:2]]
    assert main([*words, "--method", "retrain", "--work", str(tmp_path / "w5")]) == 2
    assert "needs held-out records" in capsys.readouterr().err
