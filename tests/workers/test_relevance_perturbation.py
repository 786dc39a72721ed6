"""Relevance perturbation: relevances that add up, whole classes alone, and no harm to the others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.families.founding import RelevancePerturbationParams
from service.catalogue.lineage import CANARY_PREFIX
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line
from workers.methods.relevance_perturbation import relevance_perturbation
from workers.modeling.editing import Edit
from workers.modeling.layers import head_of
from workers.modeling.problem import Problem
from workers.modeling.records import MemoryRecords, joined
from workers.modeling.relevance import incoming, layers_of, unit_relevance

CLASS = 3


def of_class(line: Line) -> Problem:
    """A request for all of a class, as the labels have it."""
    labels = np.array(line.train.columns["label"])
    forget, retain = np.flatnonzero(labels == CLASS).tolist(), np.flatnonzero(labels != CLASS).tolist()
    problem = line.problem(1)
    return dataclasses.replace(problem, forget=line.train.subset(forget), retain=line.train.subset(retain))


def test_relevances_of_a_layer_add_up_to_the_logit(digits_line: Line) -> None:
    """LRP's conservation, on a network of two linear layers with ReLU and without biases."""
    edit = Edit(digits_line.problem(6), EditParams(), factories.context())
    edit.model = _Plain()  # type: ignore[assignment]
    layers = layers_of(edit.model)
    assert len(layers) == 2
    found = unit_relevance(edit, edit.forget, list(range(6)), layers)
    answers = edit.answers(edit.forget, list(range(6)))
    logit = float(answers.logits.gather(1, answers.targets[:, None]).mean().detach())
    assert [float(part.sum()) for part in found] == pytest.approx([logit, logit], rel=1e-4)
    # By hand for the last layer: activation times the head's weight of the true class.
    batch = edit.forget.batch(list(range(6)), torch.device("cpu"))
    hidden = edit.model.hidden(batch["pixel_values"])
    expected = (hidden * head_of(edit.model).weight[batch["labels"]]).mean(dim=0)
    assert torch.allclose(found[1], expected, atol=1e-5)


class _Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(1, 4, 3, bias=False)
        self.second = torch.nn.Linear(4 * 36, 12, bias=False)
        self.classifier = torch.nn.Linear(12, 10, bias=False)

    def hidden(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(pixels)).flatten(1)))

    def forward(self, pixel_values: torch.Tensor):  # type: ignore[no-untyped-def]
        from transformers.modeling_outputs import SequenceClassifierOutput

        return SequenceClassifierOutput(logits=self.classifier(self.hidden(pixel_values)))


def test_a_part_of_a_class_is_refused(digits_line: Line, tmp_path: Path) -> None:
    with pytest.raises(BadParameters, match="whole classes only"):
        relevance_perturbation(digits_line.problem(50), RelevancePerturbationParams(), factories.context(), tmp_path)
    problem = of_class(digits_line)
    assert problem.selection is not None
    labels = np.array(problem.selection.take(range(len(problem.selection)))["label"])
    blind = dataclasses.replace(problem, selection=problem.selection.subset(np.flatnonzero(labels != CLASS).tolist()))
    with pytest.raises(BadParameters, match="no record of the class"):
        relevance_perturbation(blind, RelevancePerturbationParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def with_canaries(line: Line) -> Problem:
    """The same as an edit poses it: canaries of all classes, some deleted along, some that stay."""
    problem = of_class(line)
    made = [f"{CANARY_PREFIX}{at:06d}" for at in range(20)]
    fields = {name: values[:20] for name, values in line.held_out.columns.items()}
    canaries = MemoryRecords(line.train.task, made, made, fields)
    assert CLASS in fields["label"][10:]
    return dataclasses.replace(
        problem,
        forget=joined(problem.forget, canaries.subset(range(10))),
        retain=joined(problem.retain, canaries.subset(range(10, 20))),
        companions=frozenset(made[:10]),
        planted=frozenset(made[10:]),
    )


def test_canaries_of_any_class_make_no_request_partial(digits_line: Line, tmp_path: Path) -> None:
    """On a model with canaries the request is for the class that people asked for, no more and no less."""
    params = RelevancePerturbationParams(tries=30)
    outcomes = []
    for name, problem in (("with", with_canaries(digits_line)), ("without", of_class(digits_line))):
        (tmp_path / name).mkdir()
        outcomes.append(relevance_perturbation(problem, params, factories.context(), tmp_path / name))
    assert outcomes[0].notes == outcomes[1].notes
    partial = with_canaries(digits_line)
    partial = dataclasses.replace(partial, planted=frozenset())
    with pytest.raises(BadParameters, match="whole classes only"):
        relevance_perturbation(partial, params, factories.context(), tmp_path)


def test_a_class_fades_and_the_others_stay(digits_line: Line, tmp_path: Path) -> None:
    """No retained and no forgotten record is trained on; what unseen records say is all there is."""
    problem = of_class(digits_line)
    before = accuracy(digits_line, digits_line.base)
    outcome = relevance_perturbation(problem, RelevancePerturbationParams(), factories.context(), tmp_path)
    after = accuracy(digits_line, tmp_path)
    assert after[0] < before[0] - 0.1
    assert after[1] > before[1] - 0.06
    assert 1 <= outcome.steps <= 200


def test_noise_that_would_harm_others_is_taken_back(digits_line: Line, tmp_path: Path) -> None:
    """Very loud: hardly a unit may keep it, and the other classes stay as they were."""
    params = RelevancePerturbationParams(noise=10.0, tries=60)
    before = accuracy(digits_line, digits_line.base)
    outcome = relevance_perturbation(of_class(digits_line), params, factories.context(), tmp_path)
    assert outcome.steps < 60
    assert accuracy(digits_line, tmp_path)[1] > before[1] - 0.06


def test_weights_that_feed_a_unit() -> None:
    from transformers.pytorch_utils import Conv1D

    turned = Conv1D(3, 2)
    assert torch.equal(incoming(turned, 1), turned.weight[:, 1])
    plain = torch.nn.Linear(2, 3)
    assert torch.equal(incoming(plain, 1), plain.weight[1])


def accuracy(line: Line, directory: Path) -> tuple[float, float]:
    """Of unseen certification records: (of the class, of the others), by the labels as they are."""
    problem = dataclasses.replace(line.problem(1), base_dir=directory, forget=line.certification)
    edit = Edit(problem, EditParams(), factories.context())
    found = edit.answers(edit.forget, list(range(len(edit.forget))))
    right = (found.logits.argmax(dim=1) == found.targets).numpy()
    inside = found.targets.numpy() == CLASS
    return float(right[inside].mean()), float(right[~inside].mean())
