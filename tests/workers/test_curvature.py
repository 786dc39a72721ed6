"""Gradients, Hessian products, layer groups and bounded moves, against dense linear algebra."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.parameters import EditParams
from service.errors import BadParameters, Cancelled, JobError
from tests.workers import factories
from tests.workers.conftest import Line
from workers.modeling.curvature import Hessian, conjugate_gradients, gradient_sum
from workers.modeling.editing import Edit
from workers.modeling.heads import all_record_inputs, head_data
from workers.modeling.layers import head_of, parameters_of, size_in_bytes, tied
from workers.modeling.moving import Limits, Ray, largest_within


def test_conjugate_gradients_solve_a_system() -> None:
    random = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=random, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(12), torch.randn(12, generator=random, dtype=torch.float64)
    found = conjugate_gradients(lambda vector: matrix @ vector, target, 50, 1e-10)
    assert torch.allclose(found.x, torch.linalg.solve(matrix, target), atol=1e-7)
    assert not found.negative
    assert found.products <= 20


def test_negative_curvature_is_told_and_not_followed() -> None:
    matrix = torch.diag(torch.tensor([2.0, -1.0]))
    found = conjugate_gradients(lambda vector: matrix @ vector, torch.tensor([0.1, 1.0]), 10)
    assert found.negative
    assert torch.isfinite(found.x).all()


def test_products_of_the_head_are_those_of_the_dense_hessian(digits_line: Line) -> None:
    """Softmax regression in closed form: sum over records of (diag p - p p^T) x outer(inputs)."""
    edit = Edit(digits_line.problem(50), EditParams(), factories.context())
    parameters = parameters_of(edit.model, "head")
    inputs, _ = head_data(edit, edit.forget)
    inputs = torch.cat([inputs, torch.ones(50, 1, dtype=torch.float64)], dim=1)
    head = head_of(edit.model)
    weights = torch.cat([head.weight, head.bias[:, None]], dim=1).detach().double()
    p = torch.softmax(inputs @ weights.T, dim=1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    dense = torch.einsum("nab,ni,nj->aibj", inner, inputs, inputs) / 50
    vector = torch.randn(head.weight.numel() + 10, generator=torch.Generator().manual_seed(1))
    square = torch.cat([vector[:-10].view(10, -1), vector[-10:, None]], dim=1).double()
    expected = torch.einsum("aibj,bj->ai", dense, square) + 0.1 * square
    got = Hessian(edit, edit.forget, parameters, 0.1, 1000).product(vector).double()
    assert torch.allclose(torch.cat([expected[:, :-1].reshape(-1), expected[:, -1]]), got, atol=1e-4)


def test_weighted_gradients_add_up(chat_line: Line) -> None:
    edit = Edit(chat_line.problem(3), EditParams(), factories.context())
    parameters = parameters_of(edit.model, "all")
    weights = np.array([2.0, 0.0, -1.0])
    single = [gradient_sum(edit, edit.forget, parameters, [row]) for row in range(3)]
    together = gradient_sum(edit, edit.forget, parameters, weights=weights)
    assert torch.allclose(together, 2 * single[0] - single[2], atol=1e-5)
    assert edit.backward == 4


def test_long_sums_and_solutions_can_be_cancelled(digits_line: Line) -> None:
    """Asked before each chunk of 128 records and each product."""
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 2

    context = dataclasses.replace(factories.context(), cancelled=cancelled)
    edit = Edit(digits_line.problem(400), EditParams(), context)
    parameters = parameters_of(edit.model, "head")
    with pytest.raises(Cancelled, match="gradients"):
        gradient_sum(edit, edit.forget, parameters)
    assert edit.backward == 2
    asked.clear()
    vector = torch.ones(sum(p.numel() for p in parameters))
    with pytest.raises(Cancelled, match="Hessian"):
        Hessian(edit, edit.forget, parameters, 0.1, 400).product(vector)
    assert edit.backward == 6
    asked.clear()
    with pytest.raises(Cancelled, match="after 2 products"):
        conjugate_gradients(lambda v: torch.tensor([1.0, 2.0, 3.0]) * v, torch.ones(3), 9, context=context)


def test_a_transformer_has_second_derivatives(chat_line: Line) -> None:
    """The product against a difference of gradients."""
    edit = Edit(chat_line.problem(4), EditParams(), factories.context())
    parameters = parameters_of(edit.model, "last_blocks", 1)
    vector = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(2))
    vector /= vector.norm()
    product = Hessian(edit, edit.forget, parameters, 0.0, 10).product(vector)
    ray = Ray(parameters, vector)
    ray.to(1e-2)
    ahead = gradient_sum(edit, edit.forget, parameters)
    ray.to(-1e-2)
    behind = gradient_sum(edit, edit.forget, parameters)
    assert torch.allclose(product, (ahead - behind) / 2e-2 / 4, atol=0.02 * float(product.abs().max()))


def test_groups_of_layers(digits_line: Line, chat_line: Line) -> None:
    images = Edit(digits_line.problem(5), EditParams(), factories.context())
    texts = Edit(chat_line.problem(5), EditParams(), factories.context())
    assert tied(texts.model)
    assert not tied(images.model)
    assert head_of(images.model).out_features == 10
    embedding = parameters_of(texts.model, "embedding")
    assert [p.shape[1] for p in embedding] == [64, 64]
    assert parameters_of(texts.model, "head")[0] is embedding[0]
    assert 0 < size_in_bytes(parameters_of(images.model, "embedding")) < size_in_bytes([*images.model.parameters()])
    one, both = (size_in_bytes(parameters_of(texts.model, "last_blocks", blocks)) for blocks in (1, 2))
    assert both == 2 * one
    with pytest.raises(BadParameters, match="no single linear head"):
        head_of(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))
    with pytest.raises(BadParameters, match="no list of blocks"):
        parameters_of(torch.nn.Linear(2, 2), "last_blocks")


def test_inputs_of_a_head_give_the_logits(digits_line: Line, chat_line: Line, tmp_path: Path) -> None:
    from tests.workers.test_nabla_tau import text_line

    for line in (digits_line, chat_line, text_line(tmp_path)):
        edit = Edit(line.problem(8), EditParams(), factories.context())
        inputs, targets = head_data(edit, edit.forget)
        head = head_of(edit.model)
        bias = 0.0 if head.bias is None else head.bias.detach().double()
        logits = inputs @ head.weight.detach().double().T + bias
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        assert float(losses.mean()) == pytest.approx(float(edit.objective(edit.forget, range(8)).detach()), abs=1e-4)
        assert len(all_record_inputs(edit, edit.forget)) == 8


def test_a_length_is_found_between_too_little_and_too_much() -> None:
    assert largest_within(lambda scale: scale <= 3.0, 1.0, 8, 20) == pytest.approx(3.0, abs=1e-5)
    assert largest_within(lambda scale: scale <= 0.3, 1.0, 0, 20) == pytest.approx(0.3, abs=1e-5)
    assert largest_within(lambda scale: True, 1.0, 0, 5) == 1.0
    assert largest_within(lambda scale: True, 1.0, 3, 5) == 8.0
    assert largest_within(lambda scale: False, 1.0, 3, 5) == 0.0


def test_limits_notice_harm_and_reaching_too_far(digits_line: Line) -> None:
    edit = Edit(digits_line.problem(50), EditParams(), factories.context())
    limits = Limits(edit, True, 0.02)
    assert limits.hold()
    parameters = parameters_of(edit.model, "head")
    ray = Ray(parameters, -torch.cat([p.detach().reshape(-1) for p in parameters]))
    ray.to(2.0)
    assert not limits.harmless()
    assert not limits.short_of_unseen()
    assert Limits(edit, False, 0.02).hold()
    ray.to(0.0)
    assert limits.hold()
    with pytest.raises(JobError, match="not finite"):
        Ray(parameters, torch.full((sum(p.numel() for p in parameters),), float("nan")))
