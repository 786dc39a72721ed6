"""UNDIAL and JensUn: targets against closed forms, two steps against plain torch, for both tasks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.catalogue.families.language import JensUnParams, UndialParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.by_hand import SETTINGS_FREE, Parts, run_beside
from tests.workers.conftest import Line
from workers.methods.jensun import jensun, to_flat, to_text
from workers.methods.undial import undial, without_truth
from workers.modeling.answers import Answers
from workers.modeling.loading import load_model

LINES = ["digits_line", "chat_line"]


def test_the_teacher_keeps_the_order_of_the_other_classes() -> None:
    logits, targets = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 2])
    wanted = without_truth(logits, targets, 100.0)
    e = math.e
    assert wanted[0].tolist() == pytest.approx([0.0, e / (e + 1), 1 / (e + 1)], abs=1e-6)
    assert wanted[1].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
    assert logits[0, 0] == 2.0


def half_js(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon of probabilities [M, C], term by term; 0 log 0 is 0."""
    middle = (first + second) / 2
    return (torch.xlogy(first, first / middle) + torch.xlogy(second, second / middle)).sum(1) / 2


def undial_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    pushed = []
    for part in forget:
        teacher = part.served - 4.0 * torch.nn.functional.one_hot(part.targets, part.served.shape[1])
        pushed.append(torch.nn.functional.cross_entropy(part.logits, teacher.softmax(1)))
    return torch.stack(pushed).mean() + 0.3 * torch.cat([part.losses for part in retain]).mean()


def jensun_term(forget: list[Parts], retain: list[Parts]) -> Tensor:
    flat = [half_js(p.logits.softmax(1), torch.full_like(p.logits, 1 / p.logits.shape[1])).mean() for p in forget]
    kept = torch.cat([half_js(p.logits.softmax(1), p.served.softmax(1)) for p in retain])
    return 0.5 * torch.stack(flat).mean() + 0.5 * kept.mean()


CASES: list[Any] = [
    (undial, UndialParams, {"beta": 4.0, "alpha": 0.3}, undial_term),
    (jensun, JensUnParams, {}, jensun_term),
]


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_two_steps_are_those_of_a_bare_loop(
    case: Any, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    method, made, own, term = case
    line: Line = request.getfixturevalue(kind)
    outcome = run_beside(method, made(**SETTINGS_FREE, **own), term, line, tmp_path)
    assert outcome.forward_passes == 3 * 2


def test_the_uniform_answer_is_at_0_and_certainty_has_its_closed_form() -> None:
    """JSD between certainty and the uniform answer over C classes, p = 1 / C at the certain one."""
    flat, certain = torch.zeros(1, 4).log_softmax(1), torch.tensor([[80.0, 0.0, 0.0, 0.0]]).log_softmax(1)
    assert float(to_flat(flat)) == pytest.approx(0.0, abs=1e-6)
    expected = math.log(2) + (0.25 * math.log(0.25) - 1.25 * math.log(1.25)) / 2
    assert float(to_flat(certain)) == pytest.approx(expected, abs=1e-5)


def test_a_refusal_starts_anew_in_each_record() -> None:
    """Five predictions of two records are drawn to tokens 2, 0, 2 and 2, 0."""
    log_probs = torch.full((5, 3), -80.0)
    for row, token in enumerate((2, 0, 2, 2, 0)):
        log_probs[row, token] = 0.0
    found = Answers(log_probs, torch.zeros(5, dtype=torch.int64), torch.tensor([0, 0, 0, 1, 1]), 2)
    assert to_text(found, torch.tensor([2, 0])).abs().max() < 1e-5
    assert to_text(found, torch.tensor([0, 2])).tolist() == pytest.approx([math.log(2)] * 5, abs=1e-5)


def test_a_refusal_becomes_likely_and_a_classifier_gives_none(
    chat_line: Line, digits_line: Line, tmp_path: Path
) -> None:
    problem = chat_line.problem(10)
    params = JensUnParams(target="refusal", bound="none", passes=40, learning_rate=3e-3)
    jensun(problem, params, factories.context(), tmp_path)
    loaded = load_model(tmp_path, "causal-lm", torch.device("cpu"))
    first = loaded.task.tokenizer(" No idea", add_special_tokens=False)["input_ids"][0]  # type: ignore[attr-defined]
    prompt = loaded.task.tokenizer(problem.forget.take([0])["prompt"][0])["input_ids"]  # type: ignore[attr-defined]
    assert int(loaded.model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax()) == first
    with pytest.raises(BadParameters, match="language models"):
        jensun(digits_line.problem(10), params, factories.context(), tmp_path)
