"""From a recipe and records to a complete model directory with its training record."""

from pathlib import Path

from service.catalogue.lineage import LINEAGE
from service.catalogue.recipes import Recipe
from workers.modeling.adapters import train_adapters
from workers.modeling.batching import Encoded
from workers.modeling.devices import seed_everything
from workers.modeling.directories import building
from workers.modeling.fresh import Provenance, fresh_model, provenance_of
from workers.modeling.problem import Context, Outcome, Problem
from workers.modeling.records import Records
from workers.modeling.sharding import train_shards
from workers.modeling.storing import Clock, Made, store
from workers.modeling.training import fit
from workers.modeling.training_record import TrainingRecord


def train_by_recipe(
    recipe: Recipe, data: Records, out_dir: Path, seed: int | None, context: Context, provenance: Provenance
) -> TrainingRecord:
    """Train and publish a model directory at `out_dir`, which appears whole or not at all.

    `seed` None takes the recipe's. Raises BadRecipe, BadDataset, BadModel (a base that cannot be used),
    BadParameters (`out_dir` holds something), Cancelled and JobError.
    """
    with building(out_dir) as directory:
        return train_into(recipe, data, directory, recipe.training.seed if seed is None else seed, context, provenance)


def train_into(
    recipe: Recipe, data: Records, directory: Path, seed: int, context: Context, provenance: Provenance
) -> TrainingRecord:
    """Train into an existing empty directory; errors as for `train_by_recipe`."""
    if recipe.sharding.on:
        return train_shards(recipe, data, directory, seed, context, provenance)
    if recipe.adapters is not None:
        return train_adapters(recipe, data, directory, seed, context, provenance)
    clock = Clock()
    seed_everything(seed, context.threads)
    loaded = fresh_model(recipe, data, directory, provenance, context)
    recorder = context.recorder(directory / LINEAGE) if context.recorder is not None else None
    encoded = Encoded(loaded.task, data)
    fitted = fit(loaded.model, encoded, recipe, seed, context, recorder)
    lineage = recorder.finish() if recorder is not None else None
    return store(
        loaded, directory, Made(recipe, data, encoded.tokens, seed, provenance, fitted, lineage), context, clock
    )


def train_again(problem: Problem, recipe: Recipe, context: Context, out_dir: Path) -> Outcome:
    """Train by the recipe on the retained records alone: what every exact method falls back to. Raises as above."""
    record = train_into(recipe, problem.retain, out_dir, context.seed, context, provenance_of(problem))
    passes = int(record.cost["forward_passes"])
    return Outcome(record.steps, passes, passes, curve=record.curve, exact=True)
