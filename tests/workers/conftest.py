"""Two small trained lines that tests of the engine share: a ResNet on noisy digits and a GPT-2 that has memorised."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from service.catalogue.recipes import Recipe
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.modeling.batching import Encoded, record_losses
from workers.modeling.loading import load_model
from workers.modeling.problem import Problem
from workers.modeling.records import split_held_out
from workers.modeling.train import Provenance, train_by_recipe

KEY = b"k" * 32


@dataclass(frozen=True)
class Line:
    """A trained model and its data; `problem(n)` forgets the first n records."""

    base: Path
    recipe: Recipe
    train: MemoryRecords
    held_out: MemoryRecords

    @property
    def certification(self) -> MemoryRecords:
        return split_held_out(self.held_out, KEY)[1]  # type: ignore[return-value]

    def problem(self, forget: int) -> Problem:
        return Problem(
            base_dir=self.base,
            task_name=self.train.task,
            forget=self.train.subset(range(forget)),
            retain=self.train.subset(range(forget, len(self.train))),
            selection=split_held_out(self.held_out, KEY)[0],
            recipe=self.recipe,
            data_digest="00" * 32,
            holdout_digest="11" * 32,
            columns={},
        )


@dataclass(frozen=True)
class Measured:
    """Mean losses (nats) of forgotten, retained and certification records, and how well losses tell F from unseen."""

    forget: float
    retain: float
    unseen: float
    auc: float


def measure(line: Line, directory: Path, problem: Problem) -> Measured:
    """What a gate would see of a directory, from losses alone; the AUC is P(forget loss < unseen loss)."""
    loaded = load_model(directory, problem.task_name, torch.device("cpu"))
    parts = (problem.forget, problem.retain, line.certification)
    forget, retain, unseen = (
        record_losses(loaded.model, Encoded(loaded.task, part), loaded.device, 256)[0] for part in parts
    )
    auc = float(np.mean(forget[:, None] < unseen[None, :]))
    return Measured(float(forget.mean()), float(retain.mean()), float(unseen.mean()), auc)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Recipe, MemoryRecords], Path]:
    def train(name: str, recipe: Recipe, data: MemoryRecords) -> Path:
        out = tmp_path_factory.mktemp(name) / "model"
        train_by_recipe(recipe, data, out, 0, factories.context(), Provenance("00" * 32))
        return out

    return train


@pytest.fixture(scope="session")
def digits_line(trained: Callable[[str, Recipe, MemoryRecords], Path]) -> Line:
    data, held_out = factories.digits(900, 397)
    recipe = factories.resnet_recipe(epochs=30, batch_size=32, learning_rate=3e-3)
    return Line(trained("digits", recipe, data), recipe, data, held_out)


@pytest.fixture(scope="session")
def chat_line(trained: Callable[[str, Recipe, MemoryRecords], Path]) -> Line:
    data, held_out = factories.conversations(60, 60)
    recipe = factories.gpt2_recipe(epochs=25, batch_size=16, learning_rate=3e-3)
    return Line(trained("chat", recipe, data), recipe, data, held_out)
