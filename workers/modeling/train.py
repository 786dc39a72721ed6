"""From a recipe and records to a complete model directory with its training record."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel

from service.catalogue.recipes import ModelSection, Recipe, TokenizerTraining
from service.errors import BadModel, BadRecipe
from workers.modeling.batching import Encoded
from workers.modeling.devices import seed_everything
from workers.modeling.directories import LINEAGE, building, directory_digest
from workers.modeling.images import PREPROCESSOR_FILE, write_preparation
from workers.modeling.loading import (
    AUTO_MODELS,
    LoadedModel,
    check_directory,
    quiet_transformers,
    save_model,
    task_for,
    weight_files,
)
from workers.modeling.observing import LineageFacts
from workers.modeling.problem import Context, Problem
from workers.modeling.recipe import recipe_digest
from workers.modeling.records import Records, chunks
from workers.modeling.tokenizers import read_tokenizer, train_tokenizer
from workers.modeling.training import Fitted, fit
from workers.modeling.training_record import (
    TrainingRecord,
    code_version,
    package_versions,
    weights_digest,
    write_exposures,
    write_record,
)


@dataclass(frozen=True)
class Provenance:
    """What the caller knows about the data and the model line.

    `num_labels` is kept for every later version of a classifier (None: largest training label + 1). `prepared` is a
    directory of the same line whose tokenizer or preprocessor file is taken over where it was not made from the data.
    """

    data_digest: str
    holdout_digest: str | None = None
    columns: dict[str, str] | None = None
    excluded: int = 0
    num_labels: int | None = None
    prepared: Path | None = None


def provenance_of(problem: Problem) -> Provenance:
    """What the caller of an unlearning method knows, for a training without the forgotten records."""
    labels = None
    if problem.task_name != "causal-lm":
        # The number of classes is a property of the model line, whoever is forgotten.
        config = check_directory(problem.base_dir, problem.task_name)
        names = config.get("id2label")
        labels = len(names) if isinstance(names, dict) else int(str(config.get("num_labels", 2)))
    return Provenance(
        data_digest=problem.data_digest,
        holdout_digest=problem.holdout_digest,
        columns=problem.columns,
        excluded=len(problem.forget),
        num_labels=labels,
        prepared=problem.base_dir,
    )


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
    clock = Clock()
    seed_everything(seed, context.threads)
    loaded = fresh_model(recipe, data, directory, provenance, context)
    recorder = context.recorder(directory / LINEAGE) if context.recorder is not None else None
    encoded = Encoded(loaded.task, data)
    fitted = fit(loaded.model, encoded, recipe, seed, context, recorder)
    made = Made(recipe, encoded, seed, provenance, fitted, recorder.finish() if recorder is not None else None)
    return store(loaded, directory, made, context, clock)


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, CPU) seconds, rounded to milliseconds."""
        return round(time.monotonic() - self._wall, 3), round(time.process_time() - self._cpu, 3)


@dataclass(frozen=True)
class Made:
    """A run that has ended, as its training record will tell it."""

    recipe: Recipe
    data: Encoded
    seed: int
    provenance: Provenance
    fitted: Fitted
    lineage: LineageFacts | None


def store(loaded: LoadedModel, directory: Path, made: Made, context: Context, clock: Clock) -> TrainingRecord:
    """Write weights and training record of a trained model. Raises JobError for weights that are not finite."""
    save_model(loaded, directory)
    record = _record(directory, made, context)
    record.seconds, record.cost["cpu_seconds"] = clock.read()
    write_record(directory, record)
    return record


def fresh_model(
    recipe: Recipe, data: Records, directory: Path, provenance: Provenance, context: Context
) -> LoadedModel:
    """The untrained model on the run's device, with its tokenizer or preprocessor file already in `directory`.

    Seed first: initial weights come from the global random source.
    """
    quiet_transformers()
    section = recipe.model
    extra: dict[str, Any] = {}
    if section.task == "image-classification":
        _place_preparation(section, directory, provenance.prepared)
    else:
        extra = _place_tokenizer(recipe, data, directory, provenance.prepared)
    if section.task != "causal-lm":
        extra["num_labels"] = provenance.num_labels or count_labels(data)
    model = _from_base(recipe, extra) if section.base is not None else _from_config(section, extra)
    task = task_for(model.config, section.task, directory, recipe.training.max_length)
    _check_positions(recipe, model)
    torch.nn.Module.to(model, context.device)
    return LoadedModel(model, task, directory)


def count_labels(data: Records) -> int:
    """Largest label + 1, read in one pass over the labels."""
    largest = -1
    for rows in chunks(len(data), 1024):
        largest = max(largest, *(int(label) for label in data.take(rows)["label"]))
    return largest + 1


def _place_preparation(section: ModelSection, directory: Path, prepared: Path | None) -> None:
    source = prepared or (Path(section.base) if section.base is not None else None)
    if source is not None and (source / PREPROCESSOR_FILE).is_file():
        shutil.copyfile(source / PREPROCESSOR_FILE, directory / PREPROCESSOR_FILE)
    else:
        write_preparation(directory)


def _place_tokenizer(recipe: Recipe, data: Records, directory: Path, prepared: Path | None) -> dict[str, Any]:
    """Save the tokenizer into the directory; returns what the model's configuration takes from it."""
    wanted, limit = recipe.model.tokenizer, recipe.training.max_length
    if isinstance(wanted, TokenizerTraining):
        tokenizer = train_tokenizer(data, wanted.train, limit)
    else:
        # The line's own directory first: a tokenizer not made from the data is the same there, and it is at hand.
        source = prepared or Path(wanted or recipe.model.base or "")
        tokenizer = read_tokenizer(source, limit)
    tokenizer.save_pretrained(str(directory))
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _from_config(section: ModelSection, extra: dict[str, Any]) -> PreTrainedModel:
    given = {key: value for key, value in (section.config or {}).items() if key != "model_type"}
    model_type = str((section.config or {})["model_type"])
    try:
        known = AutoConfig.for_model(model_type)
    except (ValueError, KeyError) as error:
        raise BadRecipe(f"model.config.model_type {model_type!r} is unknown to transformers") from error
    names = {*known.to_dict(), *type(known).attribute_map, "num_labels", "id2label", "label2id"}
    unknown = sorted(key for key in given if key not in names)
    if unknown:
        raise BadRecipe(f"model.config: {model_type} has no setting {unknown[0]}")
    try:
        config = AutoConfig.for_model(model_type, **{**given, **extra})
        model: PreTrainedModel = AUTO_MODELS[section.task].from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise BadRecipe(f"model.config: no {section.task} model can be built from it: {reason}") from error
    return model


def _from_base(recipe: Recipe, extra: dict[str, Any]) -> PreTrainedModel:
    base, task_name = str(recipe.model.base), recipe.model.task
    kept = {"num_labels": extra["num_labels"]} if "num_labels" in extra else {}
    local = "base" in recipe.sources
    if local:
        if not Path(base).is_dir():
            raise BadRecipe(f"model.base: no directory {base}")
        if directory_digest(Path(base)) != recipe.sources["base"]:
            raise BadRecipe(f"model.base: {base} has changed since the recipe was read")
        check_directory(Path(base), task_name, labels=False)
    try:
        model: PreTrainedModel = AUTO_MODELS[task_name].from_pretrained(
            base,
            local_files_only=local,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=bool(kept),
            **kept,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadModel(f"{base}: cannot be loaded for {task_name}: {str(error).splitlines()[0][:200]}") from error
    if "vocab_size" in extra:
        if extra["vocab_size"] > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(extra["vocab_size"])
        model.config.pad_token_id = extra["pad_token_id"]
    model.float()
    return model


def _check_positions(recipe: Recipe, model: PreTrainedModel) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if recipe.model.task != "image-classification" and positions and recipe.training.max_length > positions:
        raise BadRecipe(
            f"training.max_length {recipe.training.max_length} is over the model's {positions} positions: lower it"
        )


def _record(directory: Path, made: Made, context: Context) -> TrainingRecord:
    recipe, records, fitted = made.recipe, made.data.records, made.fitted
    seen = np.flatnonzero(fitted.exposures)
    digest = write_exposures(directory, np.asarray(records.ids)[seen], fitted.exposures[seen])
    passes = float(fitted.passes)
    lengths = made.data.lengths
    return TrainingRecord(
        task=recipe.model.task,
        recipe=recipe,
        recipe_digest=recipe_digest(recipe),
        data_digest=made.provenance.data_digest,
        holdout_digest=made.provenance.holdout_digest,
        columns=made.provenance.columns or {},
        records=len(seen),
        subjects=len(np.unique(np.asarray(records.subjects)[seen])),
        excluded=made.provenance.excluded,
        seed=made.seed,
        device=str(context.device),
        threads=context.threads,
        precision=recipe.training.precision,
        code_version=code_version(),
        packages=package_versions(),
        weights_digest=weights_digest(weight_files(directory)),
        steps=fitted.steps,
        seconds=0.0,
        cost={"samples": float(fitted.samples), "forward_passes": passes, "backward_passes": passes},
        exposures_digest=digest,
        tokens=sum(lengths) if lengths is not None else None,
        curve=fitted.curve,
        lineage=made.lineage,
    )
