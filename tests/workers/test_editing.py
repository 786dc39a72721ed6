"""The shared loop: orders of batches, bounds, and a run that is interrupted and goes on."""

import dataclasses
from pathlib import Path

import pytest
import torch

from service.catalogue.families.baselines import FinetuneParams
from service.catalogue.parameters import ForgetPassesParams, RetainEpochsParams
from service.errors import Cancelled, JobError
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.finetune import finetune
from workers.modeling import keeping
from workers.modeling.directories import sha256_file
from workers.modeling.editing import Bounds, Edit, settings_of
from workers.modeling.problem import Context, Progress


def test_fine_tuning_two_steps_is_two_steps_of_a_bare_loop(digits_line: Line) -> None:
    """Against plain torch: AdamW on cross-entropy in evaluation mode, the rate falling to a tenth."""
    problem = digits_line.problem(50)
    params = RetainEpochsParams(learning_rate=1e-3, retain_batch=16)
    edit = Edit(problem, params, factories.context(3))
    steps = edit.over_retained(1.0, visits=0)[:2]
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain))

    other = Edit(problem, params, factories.context(3))
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-3, weight_decay=0.0)
    for step, rate in zip(steps, (1e-3, 0.55e-3), strict=True):
        batch = other.retain.batch(step.retain, torch.device("cpu"))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        logits = other.model(pixel_values=batch["pixel_values"]).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
    for got, expected in zip(edit.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


def test_orders_cover_what_they_promise(digits_line: Line) -> None:
    edit = Edit(digits_line.problem(50), ForgetPassesParams(forget_batch=20, retain_batch=100), factories.context())
    passes = edit.over_forgotten(3)
    assert sorted(row for step in passes for row in step.forget) == sorted([*range(50)] * 3)
    assert {len(step.retain) for step in passes} == {100} | ({50} & {len(step.retain) for step in passes})
    epochs = edit.over_retained(2.0, visits=1)
    assert len(epochs) == 2 * 9
    assert sorted(row for step in epochs for row in step.forget) == [*range(50)]
    assert [bool(step.forget) for step in epochs] == [True] * 3 + [False] * 15


def test_the_rate_of_another_optimiser_is_not_taken_over(digits_line: Line) -> None:
    problem = digits_line.problem(10)
    assert settings_of(problem, RetainEpochsParams()).learning_rate == pytest.approx(2e-3)
    assert settings_of(problem, RetainEpochsParams(optimizer="sgd")).learning_rate == 1e-3
    assert settings_of(problem, RetainEpochsParams(forget_batch=99)).forget_batch == 10


def test_bounds_close_as_records_reach_their_ceiling(digits_line: Line) -> None:
    edit = Edit(digits_line.problem(50), ForgetPassesParams(), factories.context())
    bounds, rows = Bounds(edit, bounded=True), list(range(50))
    assert bounds.weights(rows, torch.zeros(50)).sum() > 40
    assert not bounds.reached()
    assert bounds.weights(rows, torch.full((50,), 99.0)).sum() == 0
    assert bounds.reached()
    free = Bounds(edit, bounded=False)
    assert free.weights(rows, torch.full((50,), 99.0)).sum() == 50
    assert not free.reached()


def test_without_a_held_out_set_the_ceiling_is_that_of_guessing(digits_line: Line) -> None:
    problem = dataclasses.replace(digits_line.problem(5), selection=None)
    edit = Edit(problem, ForgetPassesParams(), factories.context())
    assert edit.ceilings().tolist() == pytest.approx([2.302585] * 5)


class _Interrupted:
    """Cancels after so many reports of progress."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_an_interrupted_run_goes_on_where_it_was(
    digits_line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.0)
    problem, params = digits_line.problem(100), FinetuneParams(epochs=1.0)
    context = dataclasses.replace(factories.context(5), scratch=tmp_path / "scratch")
    for name in ("whole", "second", "other"):
        (tmp_path / name).mkdir()
    whole = finetune(problem, params, factories.context(5), tmp_path / "whole")
    with pytest.raises(Cancelled):
        finetune(problem, params, dataclasses.replace(context, cancelled=_Interrupted(11)), tmp_path / "never")
    again = finetune(problem, params, context, tmp_path / "second")
    assert again.notes == ["resumed after step 11"]
    assert (again.steps, again.backward_passes) == (whole.steps, whole.backward_passes)
    same = [sha256_file(tmp_path / name / "model.safetensors") for name in ("whole", "second")]
    assert same[0] == same[1]
    # A run of other settings finds nothing there that is its own.
    other = finetune(problem, FinetuneParams(epochs=0.5), context, tmp_path / "other")
    assert other.notes == []


def two_phases(line: Line, context: Context) -> Edit:
    problem, params = line.problem(100), RetainEpochsParams(learning_rate=1e-3)
    edit = Edit(problem, params, context)
    steps = edit.over_retained(0.4, visits=0)
    for factor in (1.0, 0.5):
        edit.run(steps, lambda step: edit.objective(edit.retain, step.retain), factor=lambda _, f=factor: f)
    return edit


@pytest.mark.parametrize("damaged", [False, True])
def test_a_damaged_state_of_a_later_phase_begins_with_the_first(
    digits_line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Never a second phase on weights that the first one did not edit."""
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.0)
    scratch = tmp_path / "scratch"
    whole = two_phases(digits_line, factories.context(5))
    context = dataclasses.replace(factories.context(5), scratch=scratch)
    with pytest.raises(Cancelled):
        two_phases(digits_line, dataclasses.replace(context, cancelled=_Interrupted(whole.steps // 2 + 2)))
    (place,) = scratch.glob("state-2-*")
    if damaged:
        weights = place / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    again = two_phases(digits_line, context)
    assert [note.startswith("resumed") for note in again.notes] == ([] if damaged else [True])
    assert again.steps == whole.steps
    for got, expected in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_progress_is_told_and_a_loss_that_is_not_finite_ends_the_run(digits_line: Line) -> None:
    told: list[Progress] = []
    context = Context(torch.device("cpu"), progress=told.append)
    edit = Edit(digits_line.problem(50), RetainEpochsParams(), context)
    steps = edit.over_retained(0.2, visits=1)
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain))
    assert told[-1].fraction == 1.0
    assert told[-1].metrics["retain_loss"] > 0
    with pytest.raises(JobError, match="step"):
        edit.run(steps, lambda step: edit.objective(edit.retain, step.retain) * float("nan"))


def test_fine_tuning_keeps_what_it_is_shown(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(200)
    before = measure(digits_line, digits_line.base, problem)
    finetune(problem, FinetuneParams(epochs=2.0), factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.retain < 1.25 * before.retain
    # The known weakness: what was learnt by heart stays told apart from what was never seen.
    assert after.retain < after.forget < 0.85 * after.unseen
    assert after.auc > 0.51
