"""An edit by a low-rank adapter: nothing at first, off is what was served, and merged it is a plain model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.language import GradDiffParams, KlMinParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line
from workers.methods.kl_min import kl_min
from workers.modeling.editing import Edit
from workers.modeling.frozen import Frozen
from workers.modeling.loading import load_model
from workers.modeling.low_rank import put_adapter

PARAMS = GradDiffParams(lora_rank=3, learning_rate=1e-2, passes=1, forget_batch=10)
LINES = ["digits_line", "chat_line"]


@pytest.mark.parametrize("kind", LINES)
def test_an_adapter_begins_at_the_served_model_and_off_is_always_that(
    kind: str, request: pytest.FixtureRequest
) -> None:
    line: Line = request.getfixturevalue(kind)
    problem = line.problem(10)
    served = Edit(problem, GradDiffParams(), factories.context())
    edit = Edit(problem, PARAMS, factories.context())
    frozen, rows = Frozen(edit), list(range(10))
    assert frozen.model is edit.model
    before = served.answers(served.forget, rows).logits
    assert torch.allclose(edit.answers(edit.forget, rows).logits, before, atol=1e-5)
    edit.run(edit.over_forgotten(1), lambda step: edit.objective(edit.forget, step.forget))
    assert (edit.answers(edit.forget, rows).logits - before).abs().max() > 1e-3
    assert torch.allclose(frozen.answers(edit.forget, rows).logits, before, atol=1e-5)
    trained = [name for name, parameter in edit.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize("kind", LINES)
def test_a_merged_edit_is_a_plain_model_that_answers_alike_and_differs_by_that_rank(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    line: Line = request.getfixturevalue(kind)
    edit = Edit(line.problem(10), PARAMS, factories.context())
    edit.run(edit.over_forgotten(1), lambda step: edit.objective(edit.forget, step.forget))
    with torch.no_grad():
        before = edit.answers(edit.forget, [0, 1]).logits
    edit.save(tmp_path)
    device = torch.device("cpu")
    after = Edit(line.problem(10), PARAMS, factories.context())
    after.model = load_model(tmp_path, line.train.task, device).model
    with torch.no_grad():
        assert torch.allclose(after.answers(after.forget, [0, 1]).logits, before, atol=1e-4)
    served = dict(load_model(line.base, line.train.task, device).model.named_parameters())
    edited = dict(after.model.named_parameters())
    assert edited.keys() == served.keys()
    ranks = set()
    for name, value in edited.items():
        moved = (value - served[name]).detach().flatten(1).numpy() if value.ndim > 1 else np.zeros((1, 1))
        ranks.add(int(np.linalg.matrix_rank(moved, tol=1e-5)))
        if value.ndim < 2:
            assert torch.equal(value, served[name])
    # A convolution's adapter is of that rank in its channels, a dense layer's as a matrix.
    assert 3 in ranks
    assert max(ranks) <= 3


def test_a_step_between_two_passes_of_the_served_model_trains_the_adapter(chat_line: Line, tmp_path: Path) -> None:
    """KL holds by the same model with the adapter off, in between: the run costs no copy and moves what it should."""
    params = KlMinParams(lora_rank=4, learning_rate=1e-2, passes=4, bound="none")
    outcome = kl_min(chat_line.problem(10), params, factories.context(), tmp_path)
    assert outcome.forward_passes == 3 * outcome.steps
    assert outcome.curve[-1]["forget_loss"] > outcome.curve[0]["forget_loss"] + 0.5


def test_what_takes_no_adapter_is_refused() -> None:
    with pytest.raises(BadParameters, match="several members"):
        put_adapter(torch.nn.Linear(2, 2), 4)  # type: ignore[arg-type]
