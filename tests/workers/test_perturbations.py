"""Top-K and random-k perturbation, and what they share."""

import dataclasses
from pathlib import Path

import pytest
import torch

from service.catalogue.families.founding import RandomKPerturbationParams, TopKPerturbationParams
from service.catalogue.parameters import EditParams
from tests.workers import factories
from tests.workers.conftest import Line, measure
from workers.methods.random_k_perturbation import random_k_perturbation
from workers.methods.top_k_perturbation import top_k_perturbation
from workers.modeling.editing import Edit
from workers.modeling.loading import load_model
from workers.modeling.perturbing import perturb
from workers.modeling.problem import Problem
from workers.modeling.sensitivity import largest_share

STILL = {"learning_rate": 1e-12, "epochs": 0.05}
"""A repair that repairs nothing, to see what was perturbed."""


def changed(line: Line, out: Path) -> torch.Tensor:
    """Which weights are others than the served ones [P]."""
    models = [load_model(place, line.train.task, torch.device("cpu")).model for place in (line.base, out)]
    pairs = zip(models[0].parameters(), models[1].parameters(), strict=True)
    return torch.cat([(a - b).detach().abs().reshape(-1) > 1e-7 for a, b in pairs])


def test_top_k_is_the_largest_squared_gradient(digits_line: Line, tmp_path: Path) -> None:
    """Saliencies in plain torch, over all forgotten records at once; the weights themselves play no part."""
    problem = digits_line.problem(40)
    params = TopKPerturbationParams(share=0.01, noise=5.0, **STILL)  # type: ignore[arg-type]
    outcome = top_k_perturbation(problem, params, factories.context(), tmp_path)
    edit = Edit(problem, EditParams(), factories.context())
    batch = edit.forget.batch(list(range(40)), torch.device("cpu"))
    logits = edit.model(pixel_values=batch["pixel_values"]).logits
    loss = torch.nn.functional.cross_entropy(logits, batch["labels"])
    gradients = torch.autograd.grad(loss, list(edit.model.parameters()))
    saliency = torch.cat([value.square().reshape(-1) for value in gradients])
    count = round(0.01 * len(saliency))
    wanted = torch.zeros(len(saliency), dtype=torch.bool)
    wanted[saliency.argsort(descending=True)[:count]] = True
    got = changed(digits_line, tmp_path)
    assert int((got & ~wanted).sum()) <= 2
    assert int(got.sum()) > 0.95 * count
    assert f"{count} of {len(saliency)} weights were perturbed" in outcome.notes


def test_random_k_takes_its_share_and_repeats_itself(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(40)
    params = RandomKPerturbationParams(share=0.05, noise=5.0, **STILL)  # type: ignore[arg-type]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        random_k_perturbation(problem, params, factories.context(seed), tmp_path / name)
    first, again, other = (changed(digits_line, tmp_path / name) for name in "abc")
    assert float(first.float().mean()) == pytest.approx(0.05, abs=0.005)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_has_the_size_asked_for() -> None:
    weights = [torch.nn.Parameter(torch.full((20_000,), 3.0)), torch.nn.Parameter(torch.full((20_000,), 0.5))]
    masks = [torch.ones(20_000, dtype=torch.bool)] * 2
    assert perturb(weights, masks, RandomKPerturbationParams(noise=0.2), 0) == 40_000
    assert [float((p.detach() - mean).std()) for p, mean in zip(weights, (3.0, 0.5), strict=True)] == pytest.approx(
        [0.6, 0.1], rel=0.03
    )
    plain = [torch.nn.Parameter(torch.full((20_000,), 3.0))]
    perturb(plain, masks[:1], RandomKPerturbationParams(noise=0.2, noise_unit="absolute"), 0)
    assert float((plain[0].detach() - 3.0).std()) == pytest.approx(0.2, rel=0.03)
    assert largest_share([torch.tensor([1.0, 5.0, 2.0])], 0.4)[0].tolist() == [False, True, False]


@pytest.mark.parametrize("method", [top_k_perturbation, random_k_perturbation])
@pytest.mark.parametrize("forget", [10, 270])
def test_the_repair_brings_the_model_back(digits_line: Line, tmp_path: Path, method, forget: int) -> None:  # type: ignore[no-untyped-def]
    problem = digits_line.problem(forget)
    before = measure(digits_line, digits_line.base, problem)
    kind = TopKPerturbationParams if method is top_k_perturbation else RandomKPerturbationParams
    method(problem, kind(epochs=2.0), factories.context(), tmp_path)
    after = measure(digits_line, tmp_path, problem)
    assert after.retain < before.retain + 0.4
    assert after.unseen < 1.4 * before.unseen
    assert after.forget < after.unseen + 0.4


def test_the_divergence_term_keeps_old_answers(digits_line: Line, tmp_path: Path) -> None:
    """Which is why its weight is 0 unless it is asked for: it works against forgetting."""
    problem = digits_line.problem(100)
    kept: dict[float, float] = {}
    for weight in (0.0, 10.0):
        out = tmp_path / str(weight)
        out.mkdir()
        params = TopKPerturbationParams(noise=1.0, divergence_weight=weight, epochs=1.0)
        top_k_perturbation(problem, params, factories.context(), out)
        kept[weight] = _apart(digits_line, problem, out)
    assert kept[10.0] < kept[0.0]


def _apart(line: Line, problem: Problem, out: Path) -> float:
    """Mean absolute difference of the forgotten records' losses from those of the served model."""
    losses = []
    for place in (line.base, out):
        edit = Edit(dataclasses.replace(problem, base_dir=place), EditParams(), factories.context())
        losses.append(edit.measure(edit.forget))
    return float(abs(losses[0] - losses[1]).mean())
