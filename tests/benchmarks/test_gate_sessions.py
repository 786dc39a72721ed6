"""Verdicts on disk: they come back as they were, and other code or another policy judges again."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import gate_sessions
from benchmarks.gate_judging import Verdicts
from benchmarks.gate_sessions import judging_version, read_verdicts
from service.verification.policy import Policy


def test_verdicts_come_back_as_they_were(tmp_path: Path) -> None:
    first = ("retrain-00", "random", "noise at the margin", True, True, "pass", "")
    judged = [
        Verdicts(*first, attempts=("pass", "fail"), shared=("inconclusive", "fail"), estimates=(0.01, -0.02)),
        Verdicts("retrain-00", "random", "retrain", False, False, "inconclusive", "too few people"),
    ]
    path = tmp_path / "judged.json"
    path.write_text(json.dumps([asdict(one) for one in judged]))
    assert read_verdicts(path) == judged


def test_another_policy_judges_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = judging_version()
    assert judging_version() == before
    stricter = Policy.model_validate({"verification": {"alpha": 0.01}})
    monkeypatch.setattr(gate_sessions, "POLICY", stricter)
    assert judging_version() != before
