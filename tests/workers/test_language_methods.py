"""Methods made for language models at their defaults: memorised texts come nearer to unseen ones."""

from importlib import import_module
from pathlib import Path

import pytest

from service.catalogue.families.language import LANGUAGE
from service.catalogue.methods import find_method
from tests.workers import factories
from tests.workers.conftest import Line, Measured, measure
from workers.modeling.problem import Outcome, Problem

NAMES = [spec.name for spec in LANGUAGE]
WEAK = {"simnpo", "extrapolation"}
"""Known to do little on a small model: a low force on texts of half a nat, and a straight line that soon hurts."""


def unlearnt(name: str, line: Line, problem: Problem, out: Path, **params: object) -> tuple[Outcome, Measured]:
    spec = find_method(name)
    module, _, function = spec.target.partition(":")
    out.mkdir()
    made = spec.params.model_validate(params)
    outcome: Outcome = getattr(import_module(module), function)(problem, made, factories.context(1), out)
    return outcome, measure(line, out, problem)


@pytest.mark.parametrize("name", NAMES)
def test_memorised_texts_move_towards_unseen_ones_and_retained_ones_stay(
    name: str, chat_line: Line, tmp_path: Path
) -> None:
    problem = chat_line.problem(40)
    before = measure(chat_line, chat_line.base, problem)
    outcome, after = unlearnt(name, chat_line, problem, tmp_path / "out")
    assert before.auc > 0.8
    assert after.auc < before.auc - (0.05 if name in WEAK else 0.12)
    assert after.forget < 1.5 * after.unseen
    assert after.unseen < 1.4 * before.unseen
    assert after.retain < 1.5 * before.retain
    assert outcome.steps <= 30
