"""A small ResNet that has memorised wrong labels, retrains without some people, and an edit that only hides them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.recipes import Recipe
from tests.workers.factories import MemoryRecords, digits, resnet_recipe
from workers.modeling.batching import Encoded
from workers.modeling.loading import LoadedModel, load_model
from workers.modeling.rounding import channel_axis, step_sizes

RECORDS, FORGOTTEN = 500, 150


@dataclass(frozen=True)
class World:
    """Directories of the original and two retrains, and the records: the first 150, of 15 people, are forgotten."""

    recipe: Recipe
    data: MemoryRecords
    held_out: MemoryRecords
    original: Path
    retrained: tuple[Path, Path]

    @property
    def forget(self) -> MemoryRecords:
        return self.data.subset(range(FORGOTTEN))

    @property
    def retain(self) -> MemoryRecords:
        return self.data.subset(range(FORGOTTEN, len(self.data)))

    def load(self, directory: Path) -> LoadedModel:
        return load_model(directory, "image-classification", torch.device("cpu"))

    def hidden(self, loaded: LoadedModel, bound: float, steps: int = 40) -> LoadedModel:
        """An edit that no weight feels by more than `bound` int4 steps, and none that sets a step: forgotten records
        lose as much as held-out ones do, retained ones are kept."""
        model = copy.deepcopy(loaded.model)
        forget, retain = (
            Encoded(loaded.task, part).batch(list(range(len(part))), torch.device("cpu"))
            for part in (self.forget, self.retain)
        )
        limits = []
        for module in model.modules():
            axis = channel_axis(module)
            if axis is not None:
                step = step_sizes(module.weight, "int4", axis)
                free = (module.weight.detach().abs() < 6.5 * step).float()
                limits.append((module.weight, module.weight.detach().clone(), bound * step * free))
        for _ in range(steps):
            # Once a record has lost enough it is left alone.
            losses = loaded.task.losses(model, forget)
            loss = torch.clamp(2.0 - losses, min=0).mean() + loaded.task.losses(model, retain).mean()
            gradients = torch.autograd.grad(loss, [weight for weight, _, _ in limits])
            with torch.no_grad():
                for (weight, start, limit), gradient in zip(limits, gradients, strict=True):
                    moved = weight - 0.05 * limit * gradient.sign()
                    weight.copy_(torch.minimum(torch.maximum(moved, start - limit), start + limit))
        return replace(loaded, model=model)


@pytest.fixture(scope="session")
def world(trained: Callable[[str, Recipe, MemoryRecords], Path]) -> World:
    recipe = resnet_recipe(epochs=30, batch_size=32, learning_rate=3e-3)
    small = recipe.model.config | {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8}  # type: ignore[operator]
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"config": small})})
    data, held_out = digits(RECORDS, 700)
    original = trained("original", recipe, data)
    kept = data.subset(range(FORGOTTEN, len(data)))
    first, second = (trained(f"retrained-{at}", recipe, kept.subset(order)) for at, order in enumerate(orders(2)))
    return World(recipe, data, held_out, original, (first, second))


@pytest.fixture(scope="session")
def third(world: World, trained: Callable[[str, Recipe, MemoryRecords], Path]) -> Path:
    """One more retrain."""
    return trained("third", world.recipe, world.retain.subset(orders(3)[2]))


def orders(count: int) -> list[list[int]]:
    """Orders of the retained records: they make trainings from one seed differ."""
    return [np.random.default_rng(seed).permutation(RECORDS - FORGOTTEN).tolist() for seed in range(count)]
