"""Recipes as the registry keeps them: parsed, its keys checked, and paths in it made absolute with their digests.

The engine (workers/modeling/recipe.py) owns the meaning of every key; here, where torch is absent, only what would
otherwise fail a job hours later is refused: unknown keys, another task, a tokenizer that is not there.
"""

import tomllib
from pathlib import Path
from typing import Any

from service.errors import BadRecipe
from service.registry.files import digest_directory, manifest_digest

KEYS = {
    "model": {"task", "config", "base", "tokenizer"},
    "training": {
        "epochs",
        "batch_size",
        "optimizer",
        "learning_rate",
        "schedule",
        "warmup_fraction",
        "weight_decay",
        "precision",
        "seed",
        "augmentation",
        "max_length",
    },
    "lineage": {"checkpoints", "canaries", "reserve", "storage"},
    "sharding": {"shards", "slices"},
}


_LATER = ("lineage", "sharding")
_OFF = ("off", "none", "", 0, False)


def read_recipe(path: Path, task: str) -> dict[str, Any]:
    """The recipe file as the dict that a training record would hold. Raises BadRecipe, one line with file and key."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path}: cannot be read ({type(error).__name__}): give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{path}: not valid TOML: {error}") from None
    _check_keys(path, content)
    model = content.get("model", {})
    if model.get("task") != task:
        raise BadRecipe(f"{path}: model.task is {model.get('task')!r}, but the model is registered for {task!r}")
    return _locate(path, content)


def _check_keys(path: Path, content: dict[str, Any]) -> None:
    for section, values in content.items():
        if section not in KEYS:
            raise BadRecipe(f"{path}: unknown key {section}")
        if not isinstance(values, dict):
            raise BadRecipe(f"{path}: {section} must be a table")
        for key in values:
            if key not in KEYS[section]:
                raise BadRecipe(f"{path}: unknown key {section}.{key}")
            if section in _LATER and values[key] not in _OFF:
                raise BadRecipe(f"{path}: {section}.{key} has to wait until a later release: leave it out")


def _locate(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    model, sources = dict(content["model"]), {}
    for key in ("base", "tokenizer"):
        value = model.get(key)
        if not isinstance(value, str):
            continue
        folder = path.absolute().parent / Path(value).expanduser()
        if folder.is_dir():
            model[key], sources[key] = str(folder.resolve()), manifest_digest(digest_directory(folder))
        elif key == "tokenizer" or value.startswith((".", "/", "~")):
            raise BadRecipe(f"{path}: model.{key}: no directory {folder}")
    return content | {"model": model, "sources": sources}
