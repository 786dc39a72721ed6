"""Two steps of a method in plain torch: the same batches, logits at every position, one record after the other."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from service.catalogue.parameters import ForgetPassesParams
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.problem import Outcome, Problem
from workers.modeling.tasks import Batch

RATE = 0.02
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": RATE,
    "passes": 2,
    "forget_batch": 10,
    "retain_batch": 8,
}
SETTINGS_FREE: dict[str, Any] = {**SETTINGS, "bound": "none"}
"""Two steps of SGD with momentum 0.9: AdamW would turn the rounding of a zero gradient into a whole step."""


@dataclass(frozen=True)
class Parts:
    """One record's answers: logits [M, C] and true targets [M], of the edited and of the served model."""

    logits: Tensor
    served: Tensor
    targets: Tensor

    @property
    def losses(self) -> Tensor:
        """Cross-entropy of each prediction [M], nats."""
        return torch.nn.functional.cross_entropy(self.logits, self.targets, reduction="none")

    @property
    def served_losses(self) -> Tensor:
        """The same under the served model."""
        return torch.nn.functional.cross_entropy(self.served, self.targets, reduction="none")

    @property
    def kl(self) -> Tensor:
        """KL(served || edited) of each prediction [M], nats, by torch's own function."""
        own, served = self.logits.log_softmax(1), self.served.log_softmax(1)
        return torch.nn.functional.kl_div(own, served, log_target=True, reduction="none").sum(1)


Term = Callable[[list[Parts], list[Parts]], Tensor]


def run_beside(method: Any, params: ForgetPassesParams, term: Term, line: Line, out: Path) -> Outcome:
    """Two steps of a method on ten records, whose weights are those of a bare loop that minimises `term`; answers what
    the method says of itself."""
    problem = line.problem(10)
    outcome: Outcome = method(problem, params, factories.context(3), out)
    assert_same_weights(out, line, two_steps(problem, params, 3, term))
    return outcome


def two_steps(
    problem: Problem, params: ForgetPassesParams, seed: int, term: Term, rate: float = RATE
) -> PreTrainedModel:
    """The model after two steps that minimise `term` of the forgotten and the retained records of a step."""
    edit = Edit(problem, params, factories.context(seed))
    model, served = edit.model, copy.deepcopy(edit.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for step, factor in zip(edit.over_forgotten(params.passes), (1.0, 0.55), strict=True):
        optimizer.param_groups[0]["lr"] = rate * factor
        optimizer.zero_grad()
        batches = [
            part.batch(rows, torch.device("cpu"))
            for part, rows in ((edit.forget, step.forget), (edit.retain, step.retain))
        ]
        term(*(_parts(model, served, batch) for batch in batches)).backward()
        optimizer.step()
    return model


def _parts(model: PreTrainedModel, served: PreTrainedModel, batch: Batch) -> list[Parts]:
    if "pixel_values" in batch:
        logits, labels = model(pixel_values=batch["pixel_values"]).logits, batch["labels"]
        with torch.no_grad():
            teacher = served(pixel_values=batch["pixel_values"]).logits
        return [
            Parts(logits[row : row + 1], teacher[row : row + 1], labels[row : row + 1]) for row in range(len(labels))
        ]
    logits = model(input_ids=batch["input_ids"]).logits
    with torch.no_grad():
        teacher = served(input_ids=batch["input_ids"]).logits
    found = []
    for row, targets in enumerate(batch["targets"]):
        bearing = [at for at in range(1, len(targets)) if int(targets[at]) != -100]
        before = [at - 1 for at in bearing]
        found.append(Parts(logits[row, before], teacher[row, before], targets[bearing]))
    return found


@torch.no_grad()
def assert_same_weights(directory: Path, line: Line, expected: PreTrainedModel) -> None:
    """The saved model is the expected one, and not the served one."""
    got, served = (
        dict(load_model(place, line.train.task, torch.device("cpu")).model.named_parameters())
        for place in (directory, line.base)
    )
    moved = max(float((value - served[name]).abs().max()) for name, value in got.items())
    apart = max(float((got[name] - value).abs().max()) for name, value in expected.named_parameters())
    assert moved > 1e-4
    assert apart < 1e-3 * moved + 1e-6
