"""L1-sparse fine-tuning: against plain torch, and what its penalty does when it is small and when it is large."""

from pathlib import Path

import torch

from service.catalogue.families.baselines import L1SparseParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.l1_sparse import add_subgradient, l1_sparse
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model


def test_two_steps_are_two_steps_on_the_penalised_loss(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(836)
    params = L1SparseParams(learning_rate=1e-3, retain_batch=32, penalty=1e-3, epochs=1.0)
    outcome = l1_sparse(problem, params, factories.context(3), tmp_path)
    assert (outcome.steps, outcome.forward_passes, outcome.backward_passes) == (2, 2, 2)
    got = load_model(tmp_path, "image-classification", torch.device("cpu")).model

    other = Edit(problem, params, factories.context(3))
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-3, weight_decay=0.0)
    for step, fraction in zip(other.over_retained(1.0, visits=0), (0.0, 0.5), strict=True):
        batch = other.retain.batch(step.retain, torch.device("cpu"))
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - 0.9 * fraction)
        optimizer.zero_grad()
        logits = other.model(pixel_values=batch["pixel_values"]).logits
        norm = sum(weight.abs().sum() for weight in other.model.parameters())
        (torch.nn.functional.cross_entropy(logits, batch["labels"]) + 1e-3 * (1 - fraction) * norm).backward()
        optimizer.step()
    for own, expected in zip(got.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)


def test_the_subgradient_is_a_sign() -> None:
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -3.0, 0.0]]))
    model.weight.grad = torch.ones(1, 3)
    add_subgradient(model, 0.5)
    assert model.weight.grad.tolist() == [[1.5, 0.5, 1.0]]


def test_weights_shrink_and_a_large_penalty_takes_the_utility_with_them(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(200)
    norms, after = {}, {}
    for name, penalty in (("none", 0.0), ("published", 5e-4), ("large", 5e-2)):
        (tmp_path / name).mkdir()
        l1_sparse(problem, L1SparseParams(penalty=penalty), factories.context(1), tmp_path / name)
        model = load_model(tmp_path / name, "image-classification", torch.device("cpu")).model
        norms[name] = sum(float(weight.detach().abs().sum()) for weight in model.parameters())
        after[name] = measure(digits_line, tmp_path / name, problem)
    assert norms["large"] < norms["published"] < norms["none"]
    before = measure(digits_line, digits_line.base, problem)
    assert after["published"].unseen < 1.25 * before.unseen
    assert after["published"].auc < before.auc
    assert after["large"].retain > 1.1 * after["published"].retain
