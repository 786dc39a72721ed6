"""A small pool of real models that several tests read, and what it was made from."""

from collections.abc import Callable

import pytest
import torch

from service.catalogue.recipes import Recipe
from tests.workers import factories
from workers.modeling.fresh import Provenance
from workers.modeling.records import Records
from workers.modeling.train import train_by_recipe
from workers.references.layout import Pool
from workers.references.members import Materials
from workers.references.pool import build_pool

TINY = factories.RESNET | {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
DATA, HELD_OUT = "ab" * 32, "cd" * 32
COUNT = 16


def tiny_recipe(epochs: int = 2) -> Recipe:
    model = {"task": "image-classification", "config": TINY}
    return Recipe.model_validate({"model": model, "training": {"epochs": epochs, "batch_size": 32}})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def make_materials(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Materials]:
    def make(data: Records, held_out: Records | None, recipe: Recipe) -> Materials:
        served = tmp_path_factory.mktemp("served") / "model"
        train_by_recipe(recipe.bare(), data, served, 0, factories.context(), Provenance(DATA, HELD_OUT))
        return Materials(served, data, held_out, recipe, DATA, HELD_OUT if held_out is not None else None, {})

    return make


@pytest.fixture(scope="package")
def materials(make_materials: Callable[..., Materials]) -> Materials:
    return make_materials(*factories.digits(150, 60), tiny_recipe())


@pytest.fixture(scope="package")
def pool(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Sixteen members, eight a side; read only."""
    return build_pool(tmp_path_factory.mktemp("pool") / "pool", materials, factories.context(7), COUNT)
