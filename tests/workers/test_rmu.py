"""RMU: one step by hand, states that turn to one direction, blocks that stay, and layers that are not there."""

from pathlib import Path

import pytest
import torch

from service.catalogue.families.language import RmuParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line
from workers.methods.rmu import Tap, blocks_of, rmu, steering_target
from workers.modeling.batching import Encoded
from workers.modeling.editing import Edit
from workers.modeling.loading import LoadedModel, load_model


def states(loaded: LoadedModel, line: Line, rows: list[int], block: int) -> torch.Tensor:
    """What the block says before each answer token of these records [M, D], by transformers' own account."""
    batch = Encoded(loaded.task, line.train).batch(rows, torch.device("cpu"))
    with torch.no_grad():
        told = loaded.model(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states[block + 1]
    found: torch.Tensor = told[:, :-1][batch["targets"][:, 1:] != -100]
    return found


def alike(found: torch.Tensor) -> float:
    """Length of the mean direction: 1 where all states point the same way."""
    return float(torch.nn.functional.normalize(found, dim=1).mean(dim=0).norm())


def test_forgotten_states_turn_to_one_direction_and_the_later_block_stays(chat_line: Line, tmp_path: Path) -> None:
    problem = chat_line.problem(20)
    params = RmuParams(layer=0, bound="none", coefficient=4.0, passes=20, alpha=1.0)
    rmu(problem, params, factories.context(2), tmp_path)
    device = torch.device("cpu")
    served, edited = (load_model(place, "causal-lm", device) for place in (chat_line.base, tmp_path))
    before, after = (states(model, chat_line, list(range(20)), 0) for model in (served, edited))
    assert alike(after) > alike(before) + 0.2
    kept = [states(model, chat_line, list(range(100, 140)), 0) for model in (served, edited)]
    moved_kept = float((kept[1] - kept[0]).norm(dim=1).mean() / kept[0].norm(dim=1).mean())
    moved = float((after - before).norm(dim=1).mean() / before.norm(dim=1).mean())
    assert moved > 2 * moved_kept
    names = {
        name
        for name, value in edited.model.named_parameters()
        if not torch.equal(value, dict(served.model.named_parameters())[name])
    }
    assert names
    assert all(name.startswith("transformer.h.0.") for name in names)


def test_the_target_has_the_length_that_is_asked_for(chat_line: Line) -> None:
    """c times the mean length of the served states, in a direction whose entries are not negative."""
    edit = Edit(chat_line.problem(10), RmuParams(), factories.context(2))
    found = states(edit.loaded, chat_line, list(range(10)), 0)
    target = steering_target(edit, Tap(edit.model, 0), 3.0)
    assert float(target.norm()) == pytest.approx(3 * float(found.norm(dim=1).mean()), rel=1e-4)
    assert (target >= 0).all()


def test_a_layer_that_is_not_there_and_a_model_without_blocks_are_refused(chat_line: Line, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="blocks 0 to 1"):
        rmu(chat_line.problem(10), RmuParams(layer=2), factories.context(), tmp_path)
    with pytest.raises(BadParameters, match="does not find"):
        blocks_of(torch.nn.Linear(2, 2))
