"""The bad teacher: divergences against a closed form, steps against plain torch, bounded and null cases."""

import math
from pathlib import Path

import pytest
import torch

from service.catalogue.families.baselines import BadTeacherParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.bad_teacher import bad_teacher
from workers.modeling.distillation import Teacher, divergence, untrained
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.problem import Problem

CPU = torch.device("cpu")


def test_divergence_is_the_closed_form_of_two_classes() -> None:
    """p = sigmoid(2), q = sigmoid(-1): p ln(p/q) + (1-p) ln((1-p)/(1-q)); at T = 2 of the halved logits, times 4."""
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])

    def kl(a: float, b: float) -> float:
        p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert float(divergence(teacher, student)) == pytest.approx(kl(2, -1), rel=1e-5)
    assert float(divergence(teacher, student, 2.0)) == pytest.approx(4 * kl(1, -0.5), rel=1e-5)
    assert divergence(teacher, teacher + 3.0).tolist() == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize("kind", ["digits_line", "chat_line"])
def test_a_teacher_says_what_the_served_model_says_whatever_becomes_of_it(
    kind: str, request: pytest.FixtureRequest
) -> None:
    line: Line = request.getfixturevalue(kind)
    edit = Edit(line.problem(20), BadTeacherParams(), factories.context())
    expected = edit.answers(edit.forget, [3, 1, 8]).logits.detach().clone()
    teacher = Teacher(edit)
    with torch.no_grad():
        for weight in edit.model.parameters():
            weight.mul_(0.5)
    before = edit.forward
    assert torch.allclose(teacher.logits(edit.forget, [3, 1, 8]), expected, atol=1e-5)
    assert edit.forward == before + 1
    again = edit.answers(edit.forget, [8, 3])
    # Kept: in another order, and without another pass.
    assert torch.allclose(
        teacher.logits(edit.forget, [8, 3]), teacher.logits(edit.forget, [8, 1, 3])[_of(edit, [8, 1, 3], (0, 2))]
    )
    assert len(teacher.logits(edit.forget, [8, 3])) == len(again.logits)
    assert edit.forward == before + 3
    assert all(weight.requires_grad for weight in edit.model.parameters())


def test_a_given_teacher_is_put_to_rest(digits_line: Line) -> None:
    """A fresh model comes in training mode: its answers must not depend on the batch, nor take gradients."""
    edit = Edit(digits_line.problem(20), BadTeacherParams(), factories.context())
    made = untrained(edit).train()
    teacher = Teacher(edit, made)
    assert not made.training
    assert not any(weight.requires_grad for weight in made.parameters())
    alone = teacher.logits(edit.retain, [4])
    assert torch.allclose(teacher.logits(edit.retain, [4, 5, 6])[:1], alone, atol=1e-5)


def _of(edit: Edit, rows: list[int], places: tuple[int, ...]) -> torch.Tensor:
    owners = edit.answers(edit.forget, rows).rows
    return torch.cat([(owners == place).nonzero()[:, 0] for place in places])


def test_two_steps_are_two_steps_of_a_bare_loop(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(20)
    # SGD: where student and teacher agree slopes are rounding errors, and AdamW makes steps of them.
    params = BadTeacherParams(
        optimizer="sgd", learning_rate=0.01, forget_batch=10, retain_batch=16, passes=1, bound="none"
    )
    outcome = bad_teacher(problem, params, factories.context(3), tmp_path)
    got = load_model(tmp_path, "image-classification", CPU).model

    other = Edit(problem, params, factories.context(3))
    bad = untrained(other).eval()
    good = load_model(digits_line.base, "image-classification", CPU).model
    optimizer = torch.optim.SGD(other.model.parameters(), lr=0.01, momentum=0.9)
    for step, rate in zip(other.over_forgotten(1), (0.01, 0.0055), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        for part, rows, teacher in ((other.forget, step.forget, bad), (other.retain, step.retain, good)):
            pixels = part.batch(rows, CPU)["pixel_values"]
            with torch.no_grad():
                wanted = torch.softmax(teacher(pixel_values=pixels).logits, dim=1)
            said = torch.log_softmax(other.model(pixel_values=pixels).logits, dim=1)
            torch.nn.functional.kl_div(said, wanted, reduction="batchmean").backward()
        optimizer.step()
    for own, expected in zip(got.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)
    # Two students, two good teachers and one bad one a step: a single pass leaves nothing to be kept.
    assert (outcome.steps, outcome.forward_passes, outcome.backward_passes) == (2, 8, 2)


def test_unbounded_it_forgets_more_than_a_model_that_never_saw_the_records(digits_line: Line, tmp_path: Path) -> None:
    """The known failure: forgotten records end near the loss of guessing, where unseen ones are not."""
    problem = digits_line.problem(20)
    before = measure(digits_line, digits_line.base, problem)
    after = {}
    for bound in ("record", "none"):
        (tmp_path / bound).mkdir()
        params = BadTeacherParams(passes=25, bound=bound)
        bad_teacher(problem, params, factories.context(1), tmp_path / bound)
        after[bound] = measure(digits_line, tmp_path / bound, problem)
    assert after["none"].forget > after["none"].unseen + 0.4
    assert after["none"].forget > after["record"].forget
    assert after["record"].forget < before.unseen + 0.5
    assert after["record"].unseen < 1.25 * before.unseen


def test_a_language_model_is_distilled_token_by_token(chat_line: Line, tmp_path: Path) -> None:
    problem: Problem = chat_line.problem(25)
    before = measure(chat_line, chat_line.base, problem)
    outcome = bad_teacher(problem, BadTeacherParams(), factories.context(1), tmp_path)
    after = measure(chat_line, tmp_path, problem)
    assert before.forget < after.forget < 1.5 * before.unseen
    assert abs(after.auc - 0.5) < 0.5 * (before.auc - 0.5)
    # The first pushes go too far: all records are done within a few steps, and the others repair what came of it.
    assert outcome.steps == 20
    assert after.retain < before.retain + 0.4
    assert after.unseen < 1.35 * before.unseen
