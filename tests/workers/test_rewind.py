"""Rewind: from the kept state on it is a plain training on retained records."""

from pathlib import Path

import pytest
import torch

from service.catalogue.families.founding import RewindParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.logged_lines import logged_digits, with_history
from workers.methods.rewind import rewind
from workers.modeling.earlier import earlier, restore_weights, state_before
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return logged_digits(tmp_path_factory.mktemp("rewind"))


def test_two_steps_are_those_of_a_bare_loop(line: Line, tmp_path: Path) -> None:
    problem = with_history(line, 50)
    assert problem.lineage is not None
    params = RewindParams(fraction=0.5, learning_rate=1e-3, retain_batch=225, epochs=1.0)
    outcome = rewind(problem, params, factories.context(3), tmp_path)
    point = state_before(problem, problem.lineage.steps // 2)
    assert f"went back to step {point.step} of {problem.lineage.steps}, then 1 passes" in outcome.notes
    edit = Edit(problem, params, factories.context(3))
    restore_weights(edit, point)
    optimizer = torch.optim.AdamW(edit.model.parameters(), lr=1e-3, weight_decay=0.0)
    for step, rate in zip(edit.over_retained(1.0, 0), (1e-3, 0.55e-3), strict=True):
        batch = edit.retain.batch(step.retain, torch.device("cpu"))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        logits = edit.model(pixel_values=batch["pixel_values"]).logits
        torch.nn.functional.cross_entropy(logits, batch["labels"]).backward()
        optimizer.step()
    made = load_model(tmp_path, "image-classification", torch.device("cpu")).model
    for got, expected in zip(made.parameters(), edit.model.parameters(), strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("forget", [10, 150])
def test_an_early_state_forgets_and_keeps_the_rest(line: Line, tmp_path: Path, forget: int) -> None:
    """Digits with 15 % wrong labels: what is known by heart goes, what neighbours support stays."""
    problem = with_history(line, forget)
    before = measure(line, line.base, problem)
    rewind(problem, RewindParams(fraction=0.1), factories.context(), tmp_path)
    after = measure(line, tmp_path, problem)
    assert after.forget > before.forget
    assert abs(after.auc - 0.5) < max(0.1, 0.8 * abs(before.auc - 0.5))
    assert after.unseen < 1.5 * before.unseen
    assert after.retain < before.retain + 0.5


def test_an_earlier_state_beside_an_edit_counts_for_itself(line: Line) -> None:
    problem = with_history(line, 50)
    edit = Edit(problem, EditParams(), factories.context())
    steps = edit.over_retained(0.2, 0)
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain))
    edit.notes.append("own")
    then = earlier(edit, state_before(problem, 10**6))
    assert (then.notes, then.steps, then.forward) == ([], 0, 0)
    for _ in range(3):
        then.losses(then.forget, [0, 1])
    then.notes.append("other")
    edit.run(steps, lambda step: edit.objective(edit.retain, step.retain))
    # What the second model was asked about forgotten records is no point of the edit's curve.
    outcome = edit.save(line.base.parent / "unused")
    assert outcome.notes == ["own"]
    assert all("forget_loss" not in point for point in outcome.curve)


def test_noise_is_added_when_asked_for(line: Line, tmp_path: Path) -> None:
    problem = with_history(line, 10)
    for name, noise in (("still", 0.0), ("noisy", 0.01)):
        (tmp_path / name).mkdir()
        rewind(problem, RewindParams(epochs=0.1, noise=noise), factories.context(), tmp_path / name)
    weights = []
    for name in ("still", "noisy"):
        model = load_model(tmp_path / name, "image-classification", torch.device("cpu")).model
        weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert float((weights[0] - weights[1]).std()) == pytest.approx(0.01, rel=0.05)


def test_a_state_from_so_early_must_have_been_kept(line: Line, digits_line: Line, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="no state of the training is left"):
        rewind(with_history(line, 5), RewindParams(fraction=0.0), factories.context(), tmp_path)
    with pytest.raises(BadParameters, match="what the training of the model recorded"):
        rewind(digits_line.problem(5), RewindParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_served_weights_play_no_part(line: Line, tmp_path: Path) -> None:
    problem = with_history(line, 10)
    edit = Edit(problem, EditParams(), factories.context())
    with torch.no_grad():
        for parameter in edit.model.parameters():
            parameter.zero_()
    restore_weights(edit, state_before(problem, 10**6))
    served = load_model(line.base, "image-classification", torch.device("cpu")).model
    for got, expected in zip(edit.model.parameters(), served.parameters(), strict=True):
        assert torch.equal(got, expected)
