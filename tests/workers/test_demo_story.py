"""How the demo tells what it measured: plain lines without control codes, and nothing that the report does not say."""

import os
from pathlib import Path
from typing import Any

import pytest

from service.errors import JobError
from service.settings import get_settings
from workers.demo.asking import Asked, attempts_told, cost, membership_told
from workers.demo.processes import Command, embedded_defaults
from workers.demo.screen import Screen


def _attempt(method: str, verdict: str, basis: str, **check: Any) -> dict[str, Any]:
    state = {"pass": "passed", "fail": "failed"}.get(verdict, verdict)
    shown = {"id": "membership_auc", "estimate": 0.561, "ci": [0.5, 0.62], "margin": 0.1, "n": 120, **check}
    utility = {"id": "utility", "role": "gate", "verdict": verdict, "estimate": 1.3}
    return {
        "method": method,
        "state": state,
        "verdict": verdict,
        "basis": basis,
        "seconds": 1.25,
        "error": None,
        "verification": {"checks": [{"role": "gate", "verdict": "inconclusive", **shown}, utility]},
    }


def _asked(*attempts: dict[str, Any]) -> Asked:
    return Asked("12 writers", "digits", "subject_id", ["a"], report={"attempts": list(attempts), "verification": None})


def test_attempts_are_told_with_what_decided_them() -> None:
    asked = _asked(
        _attempt("nabla_tau", "inconclusive", "measurement"),
        _attempt("negative_gradient_plus", "fail", "measurement"),
        _attempt("retrain", "pass", "procedure"),
        _attempt("retrain", "pass", "procedure", margin=None, n=10),
    )
    assert attempts_told(asked) == [
        "nabla_tau: inconclusive",
        "negative_gradient_plus: fail",
        *["retrain: pass, by procedure"] * 2,
    ]
    judged, failed, exact, small = membership_told(asked)
    assert judged == ("nabla_tau: membership AUC 0.56, interval 0.50 to 0.62, has to lie in 0.40 to 0.60: inconclusive")
    assert failed.endswith("has to lie in 0.40 to 0.60: fail (failed: utility)")
    assert "told but not what decides: pass, by procedure" in exact
    assert "10 records are too few to judge by it" in small
    assert cost(asked) == "5.0 s"


def test_a_broken_attempt_is_told_with_its_error() -> None:
    broken = _attempt("nabla_tau", "pass", "measurement") | {
        "state": "error",
        "verdict": None,
        "verification": None,
        "error": "the loss is nan at step 3",
    }
    assert attempts_told(_asked(broken)) == ["nabla_tau: error (the loss is nan at step 3)"]
    assert membership_told(_asked(broken)) == []


def test_without_a_terminal_there_are_lines_and_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.heading("1. A part [of the story]")
    screen.line("x" * 200)
    screen.said("Who?", "[nobody]", "(true)")
    with screen.bars(["support", "digits"]) as bars:
        bars.update("support", 0.0, "computing")
        bars.update("support", 0.5, "computing")
        bars.update("digits", 1.0, "completed")
        bars.finish("digits")
    screen.table(["request", "report"], [["digits\n12 writers", "verified"]])
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "1. A part [of the story] (0 s)" in told
    assert "x" * 200 in told
    assert "[nobody]" in told
    assert told.count("computing") == 1
    assert "12 writers" in told


def test_the_demo_ignores_the_settings_of_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETHE_DATABASE_URL", "postgresql://somewhere/else")
    monkeypatch.setenv("LETHE_DEVICE", "cpu")
    before = dict(os.environ)
    with embedded_defaults(tmp_path):
        settings = get_settings()
        assert settings.database_url == f"sqlite:///{tmp_path / 'lethe.db'}"
        assert settings.broker_url == ""
        assert settings.device == "cpu"
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert dict(os.environ) == before
    get_settings.cache_clear()


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"lethe nonsense failed: .*nonsense"):
        Command("nonsense", ["nonsense"], tmp_path / "logs").check()
    assert "Usage" in Command("help", ["--help"], tmp_path / "logs").check()
