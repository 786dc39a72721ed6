"""One reference model: trained by the bare recipe on its half, then scored once over every record."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.catalogue.recipes import Recipe
from service.errors import BadParameters, BadRecipe
from workers.modeling.directories import building, sha256_file, sha256_json
from workers.modeling.fresh import Provenance
from workers.modeling.loading import check_directory, load_model
from workers.modeling.problem import Context
from workers.modeling.progress import part_of, timed
from workers.modeling.records import Records
from workers.modeling.tokenizers import length_limit, load_tokenizer
from workers.modeling.train import train_into
from workers.modeling.training_record import TrainingRecord
from workers.references.layout import (
    HELD_OUT,
    SCORES_FILE,
    TRAIN,
    Planned,
    Pool,
    generations,
    member_path,
    read_split,
    write_table,
)
from workers.references.split import member_seed
from workers.scoring.score import score

SERVED = "served"
"""What the recipe of a reference says of its tokenizer: it is taken over from the served model."""

_TRAINING_SHARE = 0.9  # of a member's progress bar; the rest is scoring
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class Materials:
    """What a pool is made from: the served model's directory, its data, held-out records, and the recipe.

    `recipe` may be a reduced one of the same task (fewer epochs, a smaller model). `data` must hold every record of
    the pool that is not deleted.
    """

    model_dir: Path
    data: Records
    held_out: Records | None
    recipe: Recipe
    data_digest: str
    holdout_digest: str | None
    columns: dict[str, str]


def reference_recipe(recipe: Recipe, model_dir: Path) -> Recipe:
    """The recipe of the members: bare, with the served model's tokenizer and length of texts.

    A reference with a tokenizer of its own would cut a text into other tokens, and its loss per token could not be
    compared with the served model's; so one that was trained on the data is taken over and not trained again.
    """
    bare = recipe.bare()
    if recipe.model.task == "image-classification":
        return bare
    config = check_directory(model_dir, recipe.model.task)
    limit = length_limit(load_tokenizer(model_dir), config.get("max_position_embeddings", config.get("n_positions")))
    files = {name: sha256_file(model_dir / name) for name in _TOKENIZER_FILES if (model_dir / name).is_file()}
    return bare.model_copy(
        update={
            "model": bare.model.model_copy(update={"tokenizer": SERVED}),
            "training": bare.training.model_copy(update={"max_length": limit}),
            "sources": bare.sources | {"tokenizer": sha256_json(files)},
        }
    )


def check_materials(materials: Materials) -> None:
    """Raises BadRecipe for a recipe of another task than the data, BadModel for a model that is not of that task."""
    if materials.recipe.model.task != materials.data.task:
        raise BadRecipe(f"the recipe makes a {materials.recipe.model.task} model, the data is {materials.data.task}")
    check_directory(materials.model_dir, materials.data.task)


def train_member(
    pool: Pool,
    number: int,
    materials: Materials,
    context: Context,
    generation: int = 0,
    excluded: Collection[str] = (),
) -> Path:
    """Train and score one member, unless its directory is there already; answers the directory.

    It appears whole or not at all, so members can be trained side by side and a run that was killed goes on where it
    was. `excluded` are deleted record ids, which are neither trained on nor scored. Raises BadParameters for a number
    that the pool does not have, and as `train_by_recipe` does.
    """
    if not 0 <= number < pool.facts.count:
        raise BadParameters(f"the pool has members 0 to {pool.facts.count - 1}, not {number}")
    final = pool.directory / member_path(number, generation)
    if not final.is_dir():
        planned = read_split(pool.directory).without(excluded)
        try:
            with building(final) as directory:
                make_member(directory, pool, number, generation, planned, materials, timed(context))
        except BadParameters:
            if not final.is_dir():
                raise  # otherwise somebody else has finished the same member meanwhile
    return final


def newest(directory: Path, number: int) -> Path | None:
    """The newest directory of a member, None where it was not trained yet."""
    found = generations(directory, number)
    return directory / member_path(number, found[0]) if found else None


def make_member(
    directory: Path,
    pool: Pool,
    number: int,
    generation: int,
    planned: Planned,
    materials: Materials,
    context: Context,
) -> TrainingRecord:
    """Train and score a member into an empty directory: what `planned` gives it, and nothing else. Raises as above."""
    name = f"reference {number + 1} of {pool.facts.count}"
    half = _records(materials.data, planned.train[planned.split.trained_by(number)])
    provenance = Provenance(
        data_digest=materials.data_digest,
        holdout_digest=materials.holdout_digest,
        columns=materials.columns,
        excluded=len(planned.train) - len(half),
        num_labels=_labels(materials),
        prepared=materials.model_dir,
    )
    seed = member_seed(pool.facts.seed, number, generation)
    fresh = Context(context.device, seed, context.threads, context.progress, context.cancelled)
    training = part_of(fresh, 0.0, _TRAINING_SHARE, name)
    record = train_into(pool.facts.recipe, half, directory, seed, training, provenance)
    scoring = part_of(fresh, _TRAINING_SHARE, 1.0, name)
    write_table(directory / SCORES_FILE, _scores(directory, number, planned, materials, scoring))
    return record


def _records(data: Records, ids: NDArray[Any]) -> Records:
    return data.subset(data.rows_of(ids.tolist()).tolist())


def _labels(materials: Materials) -> int | None:
    """The number of classes of the model line: a half may lack some."""
    if materials.data.task == "causal-lm":
        return None
    config = check_directory(materials.model_dir, materials.data.task)
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) else int(config.get("num_labels") or 2)


def _scores(directory: Path, number: int, planned: Planned, materials: Materials, context: Context) -> pa.Table:
    """The member's scores of all records, and which of them it counts for as an IN and as an OUT reference."""
    loaded = load_model(directory, materials.data.task, context.device)
    split = planned.split
    flags = {
        TRAIN: (split.trained_by(number), split.out_of(number)),
        HELD_OUT: (np.zeros(len(planned.held_out), dtype=bool), split.held_out_of(number)),
    }
    sets = {TRAIN: _records(materials.data, planned.train)}
    if materials.held_out is not None and len(planned.held_out):
        sets[HELD_OUT] = _records(materials.held_out, planned.held_out)
    total, done = sum(map(len, sets.values())), 0
    tables = []
    for part, records in sets.items():
        share = part_of(context, done / total, (done + len(records)) / total, "scoring")
        table = score(loaded, records, share).table
        for at, (column, values) in enumerate(zip(("in", "out"), flags[part], strict=True), start=2):
            table = table.add_column(at, column, pa.array(values))
        tables.append(table.add_column(2, "set", pa.array([part] * len(records), pa.string())))
        done += len(records)
    return pa.concat_tables(tables)
