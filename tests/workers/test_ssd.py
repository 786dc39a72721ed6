"""Selective synaptic dampening: Fisher information and the scaling against closed forms; what it can do."""

from pathlib import Path

import pytest
import torch

from service.catalogue.families.selective import SsdParams
from service.catalogue.parameters import EditParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.mislabelled import mislabelled
from workers.methods.ssd import dampen, ssd
from workers.modeling.editing import Edit
from workers.modeling.sensitivity import fisher_diagonal, weights_of


def test_fisher_information_of_the_head_is_the_closed_form(digits_line: Line) -> None:
    """A softmax head has gradients (p - y) h per record; squares are taken of each before they are averaged."""
    edit = Edit(digits_line.problem(12), EditParams(), factories.context())
    heads = [(at, weight) for at, weight in enumerate(weights_of(edit)) if weight.shape[0] == 10]
    (at_matrix, matrix), (at_bias, _) = heads[-2:]
    features: list[torch.Tensor] = []
    head = next(m for m in edit.model.modules() if isinstance(m, torch.nn.Linear) and m.weight is matrix)
    hook = head.register_forward_hook(lambda _module, inputs, _output: features.append(inputs[0].detach()))
    found = edit.answers(edit.forget, list(range(12)))
    hook.remove()
    off = torch.softmax(found.logits.detach(), dim=1) - torch.nn.functional.one_hot(found.targets, 10)

    information = fisher_diagonal(edit, edit.forget, range(12))
    assert torch.allclose(information[at_bias], (off**2).mean(dim=0), rtol=1e-3, atol=1e-7)
    expected = (off[:, :, None] * features[0][:, None, :]).square().mean(dim=0)
    assert torch.allclose(information[at_matrix], expected, rtol=1e-3, atol=1e-7)
    assert edit.backward == 12


def test_chosen_weights_are_scaled_by_the_inverse_ratio() -> None:
    """alpha 2, lambda 1.5: ratios 1, 2, 4 and 15 leave the first two and scale the others by 1.5 / ratio."""
    weights = [torch.nn.Parameter(torch.tensor([1.0, -1.0, 8.0, -30.0, 5.0]))]
    forget = [torch.tensor([1.0, 2.0, 4.0, 15.0, 0.0])]
    everything = [torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])]
    assert dampen(weights, forget, everything, SsdParams(selection=2.0, dampening=1.5)) == 2
    assert weights[0].tolist() == pytest.approx([1.0, -1.0, 3.0, -3.0, 5.0])
    # A weight only ever shrinks: lambda above alpha would have it grow.
    weights = [torch.nn.Parameter(torch.tensor([1.0]))]
    dampen(weights, [torch.tensor([3.0])], [torch.tensor([1.0])], SsdParams(selection=2.0, dampening=6.0))
    assert weights[0].tolist() == [1.0]


def test_random_records_are_hardly_touched(digits_line: Line, tmp_path: Path) -> None:
    """The known failure on random sets, and the null case: nothing says which weights are theirs."""
    problem = digits_line.problem(60)
    before = measure(digits_line, digits_line.base, problem)
    outcome = ssd(problem, SsdParams(sample=60), factories.context(1), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert int(outcome.notes[0].split()[0]) < 0.02 * 175_610
    assert after.auc > before.auc - 0.04
    assert after.unseen < 1.2 * before.unseen
    assert (outcome.steps, outcome.backward_passes, outcome.exact) == (0, 120, False)


def test_where_no_weight_can_be_chosen_it_is_refused_before_any_work(digits_line: Line, tmp_path: Path) -> None:
    """The data's information holds the forgotten records' share of it: 90 of 900 can have ten times as much at most."""
    with pytest.raises(BadParameters, match="selection must be below 10"):
        ssd(digits_line.problem(90), SsdParams(), factories.context(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_few_odd_records_take_the_model_with_them(digits_line: Line, tmp_path: Path) -> None:
    """The known failure the other way: retained records lose more than the forgotten ones, and stay within guessing."""
    problem = mislabelled(digits_line, 10)
    before = measure(digits_line, digits_line.base, problem)
    outcome = ssd(problem, SsdParams(sample=100), factories.context(1), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert int(outcome.notes[0].split()[0]) > 1000
    assert after.retain - before.retain > after.forget - before.forget
    assert after.retain < 2.302585


def test_a_language_model_can_be_dampened(chat_line: Line, tmp_path: Path) -> None:
    problem = chat_line.problem(20)
    before = measure(chat_line, chat_line.base, problem)
    ssd(problem, SsdParams(sample=40, selection=5.0), factories.context(1), tmp_path)
    after = measure(chat_line, tmp_path, problem)
    assert after.forget - before.forget > after.retain - before.retain > -0.05
    assert after.unseen < 1.5 * before.unseen
