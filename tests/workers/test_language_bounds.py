"""Methods made for language models at their defaults: a few texts do not ruin the model, unseen ones are let alone."""

import dataclasses
from pathlib import Path

import pytest

from tests.workers.conftest import Line, measure
from tests.workers.test_language_methods import NAMES, unlearnt


@pytest.mark.parametrize("name", NAMES)
def test_ten_texts_do_not_ruin_the_model(name: str, chat_line: Line, tmp_path: Path) -> None:
    """The setting in which unbounded ascent meets the same few records hundreds of times."""
    problem = chat_line.problem(10)
    before = measure(chat_line, chat_line.base, problem)
    outcome, after = unlearnt(name, chat_line, problem, tmp_path / "out")
    assert outcome.steps <= 10
    assert after.forget < 1.6 * after.unseen
    assert after.unseen < 1.35 * before.unseen
    assert after.retain < 1.5 * before.retain


@pytest.mark.parametrize("name", NAMES)
def test_unseen_texts_are_left_nearly_alone(name: str, chat_line: Line, tmp_path: Path) -> None:
    """Null: held-out records named as the forget set already lie near their bounds."""
    unseen = chat_line.certification
    null = dataclasses.replace(chat_line.problem(75), forget=unseen.subset(range(60)))
    before = measure(chat_line, chat_line.base, null)
    _, after = unlearnt(name, chat_line, null, tmp_path / "out", passes=2)
    assert abs(before.auc - 0.5) < 0.1
    assert abs(after.auc - 0.5) < 0.12
    assert after.unseen < 1.4 * before.unseen
    assert after.retain < 1.5 * before.retain
