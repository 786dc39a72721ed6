"""Datamodels against linear worlds in which the effects are known, and the head's Newton step against a refit."""

import numpy as np
import pytest
import torch

from service.errors import BadParameters
from workers.modeling.datamodels import forget_effects
from workers.modeling.head_removal import _one, _scores, _step


def _world(models: int, records: int, noise: float, seed: int = 0):
    """Half-data models of a linear world: each record has an effect of its own on itself and a small one on others."""
    draw = np.random.default_rng(seed)
    trained = draw.random((models, records)) < 0.5
    beta = draw.normal(0, 0.02, (records, records))
    beta[np.diag_indices(records)] = draw.uniform(1.0, 3.0, records)
    outputs = draw.normal(0, 1, records) + trained @ beta + draw.normal(0, noise, (models, records))
    return trained, outputs, beta


@pytest.mark.parametrize("how", ["ridge", "lasso"])
def test_many_models_give_the_sum_of_effects_back(how) -> None:
    trained, outputs, beta = _world(400, 40, 0.05)
    forgotten = np.array([3, 7, 11])
    found = forget_effects(trained, outputs[:, :12], forgotten, np.arange(12), how)
    assert found == pytest.approx(beta[forgotten][:, :12].sum(axis=0), abs=0.12)


def test_few_models_find_what_a_record_does_to_itself() -> None:
    trained, outputs, beta = _world(16, 400, 0.2)
    forgotten = np.arange(10)
    own = np.concatenate([forgotten, np.arange(100, 110)])
    found = forget_effects(trained, outputs[:, own], forgotten, own, "own")
    assert found[:10] == pytest.approx(np.diag(beta)[:10], abs=0.7)
    assert np.abs(found[:10] - np.diag(beta)[:10]).mean() < 0.35
    # Retained records owe them next to nothing.
    assert np.abs(found[10:]).max() < 0.5
    # The minimum-norm solution of all features cannot see it with so few models: about 16 / 400 of it.
    ridge = forget_effects(trained, outputs[:, own], forgotten, own, "ridge")
    assert np.abs(ridge[:10]).mean() < 0.4 * np.diag(beta)[:10].mean()


def test_without_any_effect_nothing_is_found() -> None:
    draw = np.random.default_rng(1)
    trained = np.argsort(draw.random((32, 300)), axis=1) < 150
    outputs = draw.normal(0, 1, (32, 20))
    found = forget_effects(trained, outputs, np.arange(5), np.arange(20), "own")
    assert abs(found.mean()) < 0.25


def test_what_cannot_be_fitted_is_refused() -> None:
    trained, outputs, _ = _world(3, 10, 0.1)
    with pytest.raises(BadParameters, match="four models"):
        forget_effects(trained, outputs, np.arange(2), np.arange(10), "own")
    trained, outputs, _ = _world(8, 600, 0.1)
    with pytest.raises(BadParameters, match="lasso"):
        forget_effects(trained, outputs, np.arange(500), np.arange(600), "lasso")


def test_the_newton_step_of_a_logistic_head_comes_near_to_training_it_without_the_records() -> None:
    """Against a refit of the same regression on the retained rows alone, to the minimum."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 5, generator=draw, dtype=torch.float64)
    labels = (inputs[:, 0] + 0.8 * torch.randn(400, generator=draw, dtype=torch.float64) > 0).long()
    forget, keep, damping = torch.arange(30), torch.arange(30, 400), 1e-4
    whole = _fit(_one(inputs), labels, damping)
    refit = _fit(_one(inputs[keep]), labels[keep], damping)
    moved = whole + _step(whole, _one(inputs[keep]), _one(inputs[forget]), labels[forget], len(keep), damping)
    before, after = (float((weights - refit).norm()) for weights in (whole, moved))
    assert after < 0.25 * before
    scores = _scores(_one(inputs[forget]) @ refit.T, labels[forget])
    reached = _scores(_one(inputs[forget]) @ moved.T, labels[forget])
    assert np.abs(reached - scores).max() < 0.05


def _fit(inputs: torch.Tensor, labels: torch.Tensor, damping: float) -> torch.Tensor:
    weights = torch.zeros(2, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weights.T, labels) + damping / 2 * weights.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weights.detach()
