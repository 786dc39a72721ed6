"""SCRUB: its two kinds of step against plain torch, the rewinding, and what it does to sets that ruin a model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from service.catalogue.families.baselines import ScrubParams
from service.errors import BadParameters, Cancelled
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.mislabelled import mislabelled
from workers.methods.scrub import Terms, rounds, scrub
from workers.modeling import keeping
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.directories import sha256_file
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.nearest import Nearest

CPU = torch.device("cpu")
QUICK = {"rounds": 3, "max_rounds": 1, "round_epochs": 0.25, "temperature": 2.0}


def test_rounds_begin_and_end_with_repair(digits_line: Line) -> None:
    params = ScrubParams(rounds=4, max_rounds=2, round_epochs=1.0, retain_batch=100, forget_batch=25)
    planned = rounds(Edit(digits_line.problem(100), params, factories.context()), params)
    assert [(len(pushes), len(repairs)) for pushes, repairs in planned] == [(0, 8), (4, 8), (4, 8), (0, 8)]
    for pushes, _ in planned[1:3]:
        assert sorted(row for step in pushes for row in step.forget) == [*range(100)]
    with pytest.raises(ValidationError, match="less than rounds"):
        ScrubParams(rounds=4, max_rounds=4)


def test_a_max_step_from_the_served_weights_has_nowhere_to_go(digits_line: Line) -> None:
    """The reason for a first round without one: the divergence from a twin has no slope."""
    edit = Edit(digits_line.problem(10), ScrubParams(), factories.context())
    loss = Terms(edit, ScrubParams(bound="none")).away(edit.over_forgotten(1)[0])
    slopes = torch.autograd.grad(loss, list(edit.model.parameters()), materialize_grads=True)
    assert abs(float(loss.detach())) < 1e-6
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-5


def test_both_steps_are_those_of_a_bare_loop(digits_line: Line) -> None:
    problem = digits_line.problem(16)
    params = ScrubParams(bound="none", retain_batch=16, forget_batch=16)
    edit = Edit(problem, params, factories.context(3))
    terms = Terms(edit, params)
    served = load_model(digits_line.base, "image-classification", CPU).model
    with torch.no_grad():
        for weight in edit.model.parameters():
            weight.mul_(0.9)
    step = edit.over_forgotten(1)[0]
    for part, rows, got in (
        (edit.forget, step.forget, terms.away(step)),
        (edit.retain, step.retain, terms.near(step)),
    ):
        batch = part.batch(rows, CPU)
        own = edit.model(pixel_values=batch["pixel_values"]).logits
        wanted = torch.softmax(served(pixel_values=batch["pixel_values"]).logits / 4, dim=1)
        d = 16 * torch.nn.functional.kl_div(torch.log_softmax(own / 4, dim=1), wanted, reduction="batchmean")
        expected = -d if part is edit.forget else torch.nn.functional.cross_entropy(own, batch["labels"]) + 0.5 * d
        assert float(got.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_state_nearest_to_unseen_records_of_the_same_classes_is_kept(digits_line: Line) -> None:
    problem = digits_line.problem(40)
    edit = Edit(problem, ScrubParams(), factories.context())
    nearest = Nearest(edit, ScrubParams())
    assert problem.selection is not None
    losses, _ = record_losses(edit.model, Encoded(edit.task, problem.selection), CPU, 256)
    labels = np.array(problem.selection.column("label"))
    by_hand = np.mean([losses[labels == label].mean() for label in problem.forget.column("label")])
    assert nearest.expected() == pytest.approx(float(by_hand), rel=1e-5)

    served = [weight.detach().clone() for weight in edit.model.parameters()]
    nearest.offer()
    first = nearest.distance
    with torch.no_grad():
        for weight in edit.model.parameters():
            weight.mul_(3.0)
    nearest.offer()
    assert nearest.distance == first
    nearest.restore()
    assert all(torch.equal(a, b) for a, b in zip(served, edit.model.parameters(), strict=True))


def test_without_unseen_records_there_is_no_rewinding(digits_line: Line, tmp_path: Path) -> None:
    problem = dataclasses.replace(digits_line.problem(10), selection=None)
    with pytest.raises(BadParameters, match="held-out"):
        scrub(problem, ScrubParams(), factories.context(), tmp_path)


@pytest.mark.parametrize("case", ["thirty_percent", "mislabelled"])
def test_it_stays_bounded(case: str, digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(270) if case == "thirty_percent" else mislabelled(digits_line, 20)
    before = measure(digits_line, digits_line.base, problem)
    outcome = scrub(problem, ScrubParams(rounds=3, max_rounds=2, round_epochs=0.5), factories.context(1), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert before.forget < after.forget < before.forget + 1.5
    assert after.unseen < 1.3 * before.unseen
    assert after.retain < before.retain + 0.5
    assert outcome.notes[-1].startswith("kept the state after step")


def test_a_language_model_is_moved_away_on_its_forgotten_records(chat_line: Line, tmp_path: Path) -> None:
    problem = chat_line.problem(50)
    before = measure(chat_line, chat_line.base, problem)
    scrub(problem, ScrubParams(rounds=3, max_rounds=2, round_epochs=0.3), factories.context(1), tmp_path)
    after = measure(chat_line, tmp_path, problem)
    assert before.forget < after.forget
    assert after.retain < after.forget
    assert after.unseen < 1.25 * before.unseen


def test_an_interrupted_run_still_knows_its_nearest_state(
    digits_line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.0)
    problem, params = digits_line.problem(32), ScrubParams.model_validate(QUICK)
    for name in ("whole", "second", "never"):
        (tmp_path / name).mkdir()
    whole = scrub(problem, params, factories.context(5), tmp_path / "whole")
    calls = iter(range(1000))
    context = dataclasses.replace(factories.context(5), scratch=tmp_path / "scratch")
    # In the last round: the states of the first two are only on disk.
    stopped = dataclasses.replace(context, cancelled=lambda: next(calls) > whole.steps - 3)
    with pytest.raises(Cancelled):
        scrub(problem, params, stopped, tmp_path / "never")
    again = scrub(problem, params, context, tmp_path / "second")
    assert again.notes[0].startswith("resumed after step")
    assert again.notes[-1] == whole.notes[-1]
    same = [sha256_file(tmp_path / name / "model.safetensors") for name in ("whole", "second")]
    assert same[0] == same[1]
