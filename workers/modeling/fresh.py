"""A model before its first step: initial weights by a recipe, with what prepares its records beside it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from service.catalogue.recipes import ModelSection, Recipe, TokenizerTraining
from service.errors import BadModel, BadRecipe, MethodRefused
from workers.modeling.directories import directory_digest, sha256_file
from workers.modeling.images import PREPROCESSOR_FILE, write_preparation
from workers.modeling.loading import AUTO_MODELS, LoadedModel, check_directory, quiet_transformers, task_for
from workers.modeling.problem import Context, Problem
from workers.modeling.records import Records, chunks
from workers.modeling.tokenizers import read_tokenizer, train_tokenizer

TOKENIZER_FILE = "tokenizer.json"


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


@dataclass(frozen=True)
class Start:
    """Where a model begins: the recipe and what it takes from the data, with its files already in `directory`."""

    recipe: Recipe
    extra: dict[str, Any]
    directory: Path

    def model(self, context: Context) -> LoadedModel:
        """The untrained model on the run's device. Seed first: initial weights come from the global random source."""
        section = self.recipe.model
        base = section.base is not None
        model = _from_base(self.recipe, self.extra) if base else _from_config(section, self.extra)
        task = task_for(model.config, section.task, self.directory, self.recipe.training.max_length)
        _check_positions(self.recipe, model)
        torch.nn.Module.to(model, context.device)
        return LoadedModel(model, task, self.directory)


def prepare(recipe: Recipe, data: Records, directory: Path, provenance: Provenance) -> Start:
    """Put the tokenizer or the preprocessor file into `directory`, and learn what the model takes from the data."""
    quiet_transformers()
    extra: dict[str, Any] = {}
    if recipe.model.task == "image-classification":
        _place_preparation(recipe.model, directory, provenance.prepared)
    else:
        extra = _place_tokenizer(recipe, data, directory, provenance.prepared)
    if recipe.model.task != "causal-lm":
        extra["num_labels"] = provenance.num_labels or count_labels(data)
    return Start(recipe, extra, directory)


def fresh_model(
    recipe: Recipe, data: Records, directory: Path, provenance: Provenance, context: Context
) -> LoadedModel:
    """The untrained model with its files in `directory`: `prepare` and `Start.model` in one. Seed first."""
    return prepare(recipe, data, directory, provenance).model(context)


def same_tokenizer(recipe: Recipe, base_dir: Path, out_dir: Path) -> None:
    """MethodRefused where the tokenizer was made from the data and came out differently without the forgotten records.

    Such a tokenizer is part of what was learnt; parts and states made with the old one would not fit the new.
    """
    if recipe.data_tokenizer and sha256_file(base_dir / TOKENIZER_FILE) != sha256_file(out_dir / TOKENIZER_FILE):
        raise MethodRefused("the tokenizer, trained again without the forgotten records, is another one")


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
