"""Model directories in and out: safetensors and JSON only, complete and consistent, or one line that says what is not.

Nothing here runs code from a model directory: pickles are refused wherever they lie, and so is `auto_map`.
"""

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from service.errors import BadModel, JobError
from workers.modeling.ensembles import Ensemble, member_directories, read_ensemble
from workers.modeling.images import PREPROCESSOR_FILE, ImageClassification, read_preparation
from workers.modeling.jsonfiles import read_object
from workers.modeling.language import CausalLanguageModelling, TextClassification
from workers.modeling.tasks import Task
from workers.modeling.tokenizers import length_limit, load_tokenizer

AUTO_MODELS: dict[str, Any] = {
    "image-classification": AutoModelForImageClassification,
    "text-classification": AutoModelForSequenceClassification,
    "causal-lm": AutoModelForCausalLM,
}
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_COMPANIONS = (
    PREPROCESSOR_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja",
)  # fmt: skip


@dataclass
class LoadedModel:
    """A model in memory with its task and the directory it came from."""

    model: PreTrainedModel
    task: Task
    dir: Path

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)


def quiet_transformers() -> None:
    """No progress bars and no advice from transformers: stdout and stderr belong to the caller."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_directory(directory: Path, task_name: str, labels: bool = True) -> dict[str, Any]:
    """The parsed config.json of a directory that may be loaded; `labels` False leaves the head's size alone.

    Raises BadModel in one line for: no such directory, a pickle, custom code, a missing file, a file that is not
    valid JSON or safetensors, a number of labels that does not fit the weights, a task it is not made for.
    """
    if task_name not in AUTO_MODELS:
        raise BadModel(f"task {task_name!r} is unknown: use {', '.join(AUTO_MODELS)}")
    if not directory.is_dir():
        raise BadModel(f"{directory}: no such model directory")
    pickles = sorted(path for path in directory.rglob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise BadModel(f"{pickles[0]}: pickle files are refused: save the model with safetensors and remove it")
    configs = [_check_single(place, task_name, labels) for place in member_directories(directory)]
    return configs[0]


def _check_single(directory: Path, task_name: str, labels: bool) -> dict[str, Any]:
    config = read_object(directory / "config.json")
    if config.get("auto_map"):
        raise BadModel(f"{directory / 'config.json'}: auto_map asks for code of its own, which is never run")
    if not isinstance(config.get("model_type"), str):
        raise BadModel(f"{directory / 'config.json'}: model_type is missing")
    shapes = {name: shape for path in _files(directory) for name, shape in _shapes(path).items()}
    if labels and task_name != "causal-lm":
        _check_labels(directory / "config.json", config, shapes)
    return config


def load_model(directory: Path, task_name: str, device: torch.device) -> LoadedModel:
    """Load a model directory for a task, in evaluation mode.

    Raises BadModel as `check_directory` does, and where weights are missing or do not fit the configuration.
    """
    quiet_transformers()
    check_directory(directory, task_name)
    facts = read_ensemble(directory)
    if facts is None:
        model = _load_single(directory, task_name)
    else:
        members = {name: _load_single(directory / name, task_name) for name in facts.members}
        # It answers to all that is asked of a loaded model.
        model = cast(PreTrainedModel, Ensemble(members, facts.reason))
    torch.nn.Module.to(model, device)
    model.eval()
    return LoadedModel(model, task_for(model.config, task_name, directory), directory)


def _load_single(directory: Path, task_name: str) -> PreTrainedModel:
    try:
        model, report = AUTO_MODELS[task_name].from_pretrained(
            str(directory),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise BadModel(f"{directory}: cannot be loaded for {task_name}: {reason}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise BadModel(f"{directory}: the weights lack {missing[0]}: it is not a {task_name} model")
    loaded: PreTrainedModel = model
    return loaded


def load_task(directory: Path, task_name: str) -> Task:
    """How a model directory prepares its records, without its weights. Raises BadModel as `check_directory` does."""
    quiet_transformers()
    check_directory(directory, task_name)
    config = AutoConfig.from_pretrained(str(member_directories(directory)[0]), local_files_only=True)
    return task_for(config, task_name, directory)


def task_for(config: Any, task_name: str, directory: Path, max_length: int | None = None) -> Task:
    """The task of a model: how its directory says that records are prepared.

    `max_length` overrides the tokenizer's own limit (a recipe's, while a model is made).
    """
    if task_name == "image-classification":
        channels = int(getattr(config, "num_channels", 3))
        return ImageClassification(channels, int(config.num_labels), read_preparation(directory))
    tokenizer = load_tokenizer(directory, max_length)
    limit = length_limit(tokenizer, getattr(config, "max_position_embeddings", None))
    if task_name == "text-classification":
        return TextClassification(tokenizer, limit, int(config.num_labels))
    return CausalLanguageModelling(tokenizer, limit)


def save_model(loaded: LoadedModel, directory: Path) -> None:
    """Write weights, configuration and what prepares the records; plain transformers loads the result.

    Raises JobError for weights that are not finite.
    """
    for name, value in loaded.model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise JobError(f"weight {name} is not finite: lower the learning rate")
    loaded.model.save_pretrained(str(directory))
    for place in {directory, *member_directories(directory)}:
        for path in place.glob("*.safetensors"):
            # safetensors writes 0600; the inference server may run as another user.
            path.chmod((place / "config.json").stat().st_mode)
        for name in _COMPANIONS if place != loaded.dir else ():
            if (loaded.dir / name).is_file():
                shutil.copyfile(loaded.dir / name, place / name)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a directory, sorted; BadModel naming the one that is missing."""
    return [path for place in member_directories(directory) for path in _files(place)]


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.exists():
        mapping = read_object(index).get("weight_map")
        if not isinstance(mapping, dict) or not mapping:
            raise BadModel(f"{index}: weight_map is missing")
        files = [directory / Path(str(name)).name for name in sorted(set(mapping.values()))]
    else:
        files = [directory / WEIGHTS]
    for path in files:
        if not path.is_file():
            raise BadModel(f"{directory}: {path.name} is missing")
    return files


def _shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name -> shape from the header of a safetensors file, whose length must agree with the file's size."""
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: list(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, json.JSONDecodeError, struct.error) as error:
        raise BadModel(f"{path}: not a valid safetensors file ({str(error)[:80]})") from error


def _check_labels(path: Path, config: dict[str, Any], shapes: dict[str, list[int]]) -> None:
    names = config.get("id2label")
    labels = len(names) if isinstance(names, dict) else int(config.get("num_labels") or 2)
    heads = {name: shape for name, shape in shapes.items() if name.split(".")[0] in ("classifier", "score")}
    last = max(heads, key=lambda name: name.removesuffix(".bias").removesuffix(".weight"), default=None)
    if last is not None and heads[last] and heads[last][0] != labels:
        raise BadModel(f"{path}: {labels} labels do not fit the weights: {last} has {heads[last][0]} rows")
