"""Small lines that were trained with their lineage."""

import dataclasses
from pathlib import Path

from service.catalogue.recipes import Recipe
from tests.workers import factories
from tests.workers.conftest import Line
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.lineage.store import open_history
from workers.modeling.fresh import Provenance
from workers.modeling.problem import Problem
from workers.modeling.train import train_by_recipe


def logged(folder: Path, recipe: Recipe, data: MemoryRecords, held_out: MemoryRecords) -> Line:
    """Train with the order log and states that the recipe asks for."""
    context = dataclasses.replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(recipe, data, folder / "model", 0, context, Provenance("00" * 32))
    return Line(folder / "model", recipe, data, held_out)


def logged_digits(folder: Path) -> Line:
    """A ResNet on 500 noisy digits, 12 epochs."""
    data, held_out = factories.digits(500, 397)
    recipe = factories.resnet_recipe(epochs=12, batch_size=32, learning_rate=3e-3)
    return logged(folder, recipe, data, held_out)


def with_history(line: Line, forget: int) -> Problem:
    """Forget the first records, with what the training recorded."""
    return dataclasses.replace(line.problem(forget), lineage=open_history(line.base))
