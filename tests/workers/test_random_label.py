"""Wrong labels, with and without a mask of salient weights: against plain torch, bounded on what is easy to ruin."""

import dataclasses
from pathlib import Path

import pytest
import torch

from service.catalogue.families.baselines import RandomLabelParams
from service.catalogue.families.selective import SalunParams
from service.errors import BadParameters
from tests.workers import factories
from tests.workers.conftest import Line, measure
from tests.workers.mislabelled import mislabelled
from workers.methods.random_label import random_label
from workers.methods.salun import salun
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.relabelling import Relabelled, wrong_labels
from workers.modeling.sensitivity import largest_share, summed_gradients, weights_of


def test_no_wrong_label_is_right_and_all_others_are_as_likely() -> None:
    labels = torch.arange(10).repeat(3000)
    drawn = wrong_labels(labels, 10, torch.Generator().manual_seed(0))
    assert not bool((drawn == labels).any())
    moves = torch.bincount((drawn - labels) % 10, minlength=10)[1:].double()
    # Chi-squared with 8 degrees of freedom: 26 is passed once in a thousand draws.
    assert float(((moves - 30000 / 9) ** 2 / (30000 / 9)).sum()) < 26
    with pytest.raises(BadParameters, match="one class"):
        wrong_labels(torch.zeros(3, dtype=torch.int64), 1, torch.Generator())


def test_two_steps_are_two_steps_of_a_bare_loop(digits_line: Line) -> None:
    problem = digits_line.problem(40)
    params = RandomLabelParams(learning_rate=1e-3, retain_batch=16, forget_batch=20, bound="none")
    edit = Edit(problem, params, factories.context(3))
    steps = edit.over_retained(1.0, 1)[:2]
    relabelled = Relabelled(edit, bounded=False)
    edit.run(steps, relabelled.loss)

    other = Edit(problem, params, factories.context(3))
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-3, weight_decay=0.0)
    for step, rate in zip(steps, (1e-3, 0.55e-3), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        for part, rows in ((other.retain, step.retain), (other.forget, step.forget)):
            batch = part.batch(rows, torch.device("cpu"))
            labels = batch["labels"] if part is other.retain else relabelled._labels[rows]
            torch.nn.functional.cross_entropy(other.model(pixel_values=batch["pixel_values"]).logits, labels).backward()
        optimizer.step()
    for got, expected in zip(edit.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(got, expected, atol=1e-6)


def test_a_bound_keeps_ten_records_from_standing_out(digits_line: Line, tmp_path: Path) -> None:
    """Ten records, met fifteen times each: the published form drives them far above unseen ones."""
    problem = digits_line.problem(10)
    after = {}
    for bound in ("record", "none"):
        (tmp_path / bound).mkdir()
        params = RandomLabelParams(visits=15, bound=bound)
        random_label(problem, params, factories.context(1), tmp_path / bound)
        after[bound] = measure(digits_line, tmp_path / bound, problem)
    before = measure(digits_line, digits_line.base, problem)
    assert after["none"].forget > 1.25 * after["record"].forget
    assert before.forget < after["record"].forget < 3.0
    assert after["record"].unseen < 1.4 * before.unseen


def test_wrongly_labelled_records_get_another_wrong_label_and_nothing_collapses(
    digits_line: Line, tmp_path: Path
) -> None:
    problem = mislabelled(digits_line, 60)
    before = measure(digits_line, digits_line.base, problem)
    random_label(problem, RandomLabelParams(), factories.context(1), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert before.forget < after.forget
    assert after.unseen < 1.3 * before.unseen


def test_salient_weights_are_exactly_so_many_of_the_largest() -> None:
    gradients = [torch.tensor([[3.0, -5.0], [0.0, 1.0]]), torch.tensor([-4.0, 0.0])]
    masks = largest_share(gradients, 0.5)
    assert masks[0].tolist() == [[True, True], [False, False]]
    assert masks[1].tolist() == [True, False]
    # Where most gradients are 0 a threshold would take them all.
    assert sum(int(mask.sum()) for mask in largest_share([torch.zeros(10)], 0.3)) == 3


def test_summed_gradients_are_those_of_the_whole_set(digits_line: Line) -> None:
    """Equal batches: their mean gradients sum up to the gradient of the mean over the set, times how many they are."""
    edit = Edit(digits_line.problem(40), SalunParams(), factories.context())
    found = summed_gradients(edit, edit.forget, [list(range(0, 20)), list(range(20, 40))])
    loss = edit.objective(edit.forget, list(range(40)))
    expected = torch.autograd.grad(2 * loss, weights_of(edit))
    for got, wanted in zip(found, expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert (edit.forward, edit.backward) == (3, 2)


def test_weights_outside_the_mask_stay_bit_for_bit(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(270)
    outcome = salun(problem, SalunParams(epochs=0.5, density=0.4), factories.context(1), tmp_path)
    names = ("image-classification", torch.device("cpu"))
    served, edited = (load_model(path, *names).model for path in (digits_line.base, tmp_path))
    edit = Edit(problem, SalunParams(), factories.context())
    gradients = summed_gradients(edit, edit.forget, edit.forget.in_order(32))
    chosen = moved = 0
    for old, new, gradient, mask in zip(
        served.parameters(), edited.parameters(), gradients, largest_share(gradients, 0.41), strict=True
    ):
        assert torch.equal(old[~mask], new[~mask])
        chosen += int((mask & (gradient != 0)).sum())
        moved += int((old != new).sum())
    # All that could move did; where kernels see a single pixel, eight of nine weights have no slope.
    assert moved > 0.9 * chosen
    before, after = measure(digits_line, digits_line.base, problem), measure(digits_line, tmp_path, problem)
    # A third of the data: bounded, and what is kept is kept.
    assert before.forget < after.forget < 1.5
    assert after.unseen < 1.3 * before.unseen
    assert outcome.backward_passes == outcome.steps + 9


def test_one_class_is_refused_before_any_pass(digits_line: Line, tmp_path: Path) -> None:
    problem = dataclasses.replace(digits_line.problem(5), recipe=None)
    edit = Edit(problem, RandomLabelParams(), factories.context())
    edit.model.config.num_labels = 1
    with pytest.raises(BadParameters, match="one class"):
        Relabelled(edit, bounded=True)
    assert edit.forward == 0
