"""A ResNet on digits, trained in shards with its lineage, for the tests of sharding."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from tests.workers import factories
from tests.workers.factories import MemoryRecords
from workers.lineage.recorder import TrainingRecorder
from workers.modeling.directories import sha256_file
from workers.modeling.fresh import Provenance
from workers.modeling.parts import StoredParts
from workers.modeling.problem import Problem
from workers.modeling.train import train_by_recipe
from workers.planning.attempt import AttemptResult, run_attempt
from workers.planning.problems import build_problem, open_line

DIGEST = "00" * 32
SHARDS, SLICES = 4, 3
CPU = torch.device("cpu")


def recipe(shards: int = SHARDS, slices: int = SLICES, **lineage: Any) -> Recipe:
    plain = factories.resnet_recipe(epochs=4, batch_size=16, learning_rate=3e-3)
    sections = {"sharding": {"shards": shards, "slices": slices}, "lineage": lineage}
    return Recipe.model_validate(plain.model_dump(mode="json") | sections)


@dataclass(frozen=True)
class Sharded:
    """A model trained in shards with its lineage, and its data."""

    base: Path
    recipe: Recipe
    data: MemoryRecords

    @property
    def parts(self) -> StoredParts:
        return StoredParts(self.base, "shards")

    def ids(self, part: int, piece: int, count: int = 2) -> list[str]:
        """Records of one slice of one shard."""
        table = self.parts.table
        found: list[str] = table.ids[(table.part == part) & (table.slice == piece)].tolist()
        return found[:count]

    def problem(self, ids: list[str], data: MemoryRecords | None = None, base: Path | None = None) -> Problem:
        line = open_line(base or self.base, self.data.task, data or self.data, None, None)
        return build_problem(line, ids, self.recipe, DIGEST, {})

    def forget(self, ids: list[str], out: Path, **params: Any) -> AttemptResult:
        return run_attempt("sharded", params, self.problem(ids), factories.context(7), out)


def train(folder: Path, chosen: Recipe, data: MemoryRecords) -> Sharded:
    context = replace(factories.context(), recorder=TrainingRecorder)
    train_by_recipe(chosen, data, folder / "model", 0, context, Provenance(DIGEST))
    return Sharded(folder / "model", chosen, data)


def states(directory: Path) -> dict[str, str]:
    folder = directory / LINEAGE / "parts"
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*.safetensors")}
